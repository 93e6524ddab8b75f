"""A first look at a target as people and programs read it."""

from __future__ import annotations

import io
import json
from pathlib import Path

import pandas as pd

from companion import store
from companion.datasets import Inspection

LOOK_FILES = ("inspection.json", "examples.png")
SHOWN = 10  # entries of a list on a terminal


def look_as_text(facts: Inspection, *, names: bool = True) -> str:
    """Lay a first look out for a terminal; without `names` no file or patient is named."""
    counts = pd.DataFrame(facts.counts)
    split = (
        "given"
        if facts.official_split
        else "drawn here, always the same; give your own for a result to publish"
    )
    lines = [f"{facts.name} ({facts.origin}): {int(counts.to_numpy().sum())} images, {len(counts)} classes"]
    lines += ["", f"images per class (splits: {split})", counts.to_string(), ""]
    sizes = [f"{width} x {height} ({count})" for (width, height), count in facts.sizes.items()]
    lines += [f"sizes: {_first(sizes)}", f"kinds: {_first([f'{m} ({n})' for m, n in facts.modes.items()])}"]
    if facts.patients:
        lines.append(f"patients: {facts.patients}")
    lines += [f"! {warning}" for warning in facts.warnings]
    listed = {
        "the same image": [" = ".join(found) for found in facts.duplicates],
        "patients in several splits": [
            f"{who} in {', '.join(s)}" for who, s in facts.shared_patients.items()
        ],
        "why ranking refuses it": list(facts.errors),
        "left out": [f"{what}: {why}" for what, why in facts.skipped],
    }
    for title, entries in listed.items():
        lines.append(f"{title}: {len(entries)}")
        if names:
            lines += [f"  {entry}" for entry in entries[:SHOWN]]
            lines += (
                [f"  and {len(entries) - SHOWN} more (--json lists them)"] if len(entries) > SHOWN else []
            )
    return "\n".join(lines)


def _first(entries: list[str], count: int = 6) -> str:
    rest = f" and {len(entries) - count} more" if len(entries) > count else ""
    return ", ".join(entries[:count]) + rest


def write_look(facts: Inspection, folder: Path, *, force: bool = False, images: bool = True) -> list[Path]:
    """Write a first look to a folder: the facts as JSON and, unless `images` is False, example images and names."""
    from companion import figures

    store.check_folder(folder, LOOK_FILES, force=force)
    contents = {"inspection.json": json.dumps(facts.as_document(names=images), indent=1).encode()}
    if images:
        buffer = io.BytesIO()
        figures.examples(facts.examples).savefig(buffer, format="png", dpi=100)
        contents["examples.png"] = buffer.getvalue()
    written = store.write_files(folder, contents)
    if not images:  # of an earlier look, which --force lets go
        (folder / "examples.png").unlink(missing_ok=True)
    return written
