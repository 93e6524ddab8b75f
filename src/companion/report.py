"""A ranking as people and programs read it: text, JSON, CSV, a page; and what the surroundings offer."""

from __future__ import annotations

import base64
import contextlib
import importlib.util
import io
import json
import math
import platform
import shutil
from collections.abc import Mapping, Sequence
from importlib import resources
from pathlib import Path
from typing import Any

import pandas as pd

from companion import store
from companion.datasets import Inspection
from companion.errors import InputError, SurroundingsError

SHOWN = 10  # entries of a list on a terminal
LOOK_FILES = ("inspection.json", "examples.png")
FILES = ("ranking.csv", "ranking.json", "ranking.png", "ranking.html")
NOT_CLINICAL = "Research software, not for clinical use."


def context(kind: str = "source_datasets") -> str:
    """Say what rankings of this kind were worth in the published ground truth; computed, never typed."""
    from companion import evaluation

    setting = "architectures" if kind == "architectures" else "source_datasets"
    table = evaluation.oriented(setting)
    taus = evaluation.weighted_tau(setting)
    line = (
        f"In the published ground truth ({setting.replace('_', ' ')}) this score's order had a mean weighted τ of "
        f"{taus['proposed'].mean():.2f}, and its first choice gave away "
        f"{evaluation.regret(table, 'proposed').mean():.4f} AUC on average"
    )
    if setting == "architectures":
        best = taus.mean().idxmax()
        return f"{line}. Both terms are turned round there, decided after the fact; the highest mean τ was {best}'s."
    imagenet = evaluation.regret(table, lambda rows: "imagenet").mean()
    return f"{line}; always taking ImageNet gave away {imagenet:.4f}. Try ImageNet first."


def contexts(table: pd.DataFrame) -> str:
    """Give the context of every kind of pool in a ranking."""
    kinds = dict.fromkeys(pool["kind"] for pool in table.attrs["pools"] if pool["kind"] != "left_out")
    return " ".join(context(kind) for kind in kinds)


def verdict(pool: dict[str, Any], rows: pd.DataFrame) -> str:
    """One line on what the order of a pool is worth."""
    if pool["order"] == "undetermined":
        return f"order undetermined: {pool['reason']}"
    first, second = rows.iloc[0], rows.iloc[1]
    line = (
        f"{first['source']} leads {second['source']} by {first['gap']:.3f}, where the pool spans "
        f"{rows['proposed'].min():.3f} to {rows['proposed'].max():.3f}"
    )
    return f"{line}; {pool['reason']}" if pool["reason"] else line


def _pools(table: pd.DataFrame) -> list[tuple[dict[str, Any], pd.DataFrame]]:
    return [(pool, table[table["pool"] == pool["pool"]]) for pool in table.attrs["pools"]]


def _shown(rows: pd.DataFrame) -> pd.DataFrame:
    """Columns people compare, as text."""
    columns = [c for c in rows.columns if c not in ("pool", "architecture", "pretraining", "note", "gap")]
    shown = rows[columns].copy()
    for column in shown.columns:
        if column == "rank":
            shown[column] = [("–" if pd.isna(value) else str(value)) for value in shown[column]]
        elif pd.api.types.is_numeric_dtype(shown[column]):
            shown[column] = ["–" if pd.isna(value) else f"{value:.3f}" for value in shown[column]]
    return shown


def as_text(table: pd.DataFrame) -> str:
    """Lay the ranking out for a terminal: a table a pool, what each is worth, why something is missing."""
    lines = [f"target: {table.attrs['target']}"]
    if table.attrs.get("synthetic"):
        lines.append(f"{table.attrs['synthetic'].upper()}: such numbers say nothing about medical images")
    for pool, rows in _pools(table):
        lines += ["", pool["pool"], _shown(rows).to_string(index=False), verdict(pool, rows)]
        lines += [f"  {row.source}: {row.note}" for row in rows.itertuples() if row.note]
    return "\n".join([*lines, "", contexts(table), NOT_CLINICAL])


def _plain(value: Any) -> Any:
    """JSON has no NaN: missing numbers become null."""
    if value is pd.NA or isinstance(value, float) and not math.isfinite(value):
        return None
    return value.item() if hasattr(value, "item") else value


def as_document(table: pd.DataFrame) -> dict[str, Any]:
    """Turn the ranking into what ``--json`` prints."""
    pools = [
        {
            **pool,
            "rows": [
                {key: _plain(value) for key, value in row.items() if key != "pool"}
                for row in rows.to_dict("records")
            ],
        }
        for pool, rows in _pools(table)
    ]
    return {
        "target": table.attrs["target"],
        "synthetic": table.attrs.get("synthetic", ""),
        "pools": pools,
        "context": contexts(table),
        "provenance": json.loads(json.dumps(table.attrs["provenance"], default=str)),
    }


def as_page(table: pd.DataFrame, picture: bytes) -> str:
    """Render the ranking as one self-contained HTML page; every name in it is escaped."""
    import jinja2

    pools = []
    for pool, rows in _pools(table):
        shown = _shown(rows)
        pools.append(
            {
                "title": pool["pool"],
                "undetermined": pool["order"] == "undetermined",
                "verdict": verdict(pool, rows),
                "columns": list(shown.columns),
                "rows": shown.to_numpy().tolist(),
                "notes": [f"{row.source}: {row.note}" for row in rows.itertuples() if row.note],
            }
        )
    template = jinja2.Environment(autoescape=True).from_string(
        resources.files("companion").joinpath("report.html").read_text(encoding="utf-8")
    )
    return template.render(
        target=table.attrs["target"],
        name=next(iter(table.attrs["provenance"]["data"])),
        synthetic=table.attrs.get("synthetic"),
        pools=pools,
        context=contexts(table),
        not_clinical=NOT_CLINICAL,
        provenance=table.attrs["provenance"],
        picture=base64.b64encode(picture).decode(),
    )


def check_folder(folder: Path, *, force: bool, files: Sequence[str] = FILES) -> None:
    """See before any work that the report can be written where it is wanted.

    Raises
    ------
    InputError
        If the path is a file, cannot be written, or holds a report and `force` is False.
    """
    if folder.exists() and not folder.is_dir():
        raise InputError(f"{folder} is a file: name a folder with --out")
    present = [name for name in files if (folder / name).exists()]
    if present and not force:
        raise InputError(
            f"{folder} holds {present[0]} already: give another --out, or --force to overwrite it"
        )
    store.check_writable(folder / files[0])


def write(table: pd.DataFrame, folder: Path, *, force: bool = False) -> list[Path]:
    """Write the ranking to a folder as CSV, JSON, PNG and HTML; all of them or, on failure, none."""
    from companion import figures

    check_folder(folder, force=force)
    buffer = io.BytesIO()
    figures.ranking(table).savefig(buffer, format="png", dpi=150)
    contents = {
        "ranking.csv": table.to_csv(index=False).encode(),
        "ranking.json": json.dumps(as_document(table), indent=1).encode(),
        "ranking.png": buffer.getvalue(),
        "ranking.html": as_page(table, buffer.getvalue()).encode(),
    }
    return _write(folder, contents)


def _write(folder: Path, contents: Mapping[str, bytes]) -> list[Path]:
    with contextlib.ExitStack() as stack:  # all are written before the first is put in place
        for name, content in contents.items():
            stack.enter_context(store.atomic_path(folder / name)).write_bytes(content)
    return [folder / name for name in contents]


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
        "cannot be read": [why for _, why in facts.unreadable],
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

    check_folder(folder, force=force, files=LOOK_FILES)
    contents = {"inspection.json": json.dumps(facts.as_document(names=images), indent=1).encode()}
    if images:
        buffer = io.BytesIO()
        figures.examples(facts.examples).savefig(buffer, format="png", dpi=100)
        contents["examples.png"] = buffer.getvalue()
    return _write(folder, contents)


def surroundings() -> dict[str, dict[str, str]]:
    """Tell what ``companion doctor`` prints: packages, device, directories, data at hand."""
    from companion import __version__
    from companion.datasets import medmnist_flags

    run = store.provenance()
    packages = {"companion": __version__, "python": platform.python_version()}
    packages |= {name: version or "missing" for name, version in run["libraries"].items()}
    extras = {"dicom": "pydicom", "cluster": "dask", "timm": "timm", "dev": "jupyter_book"}
    for extra, module in extras.items():
        packages[f"extra {extra}"] = "installed" if importlib.util.find_spec(module) else "not installed"
    try:
        from companion.models import best_device, torchvision

        torchvision()
        device = str(best_device())
    except (ImportError, SurroundingsError) as error:
        device = f"none: {error}"
    data = store.data_dir()
    found = (
        sorted({path.stem for pattern in ("*.npz", "*/*.npz") for path in data.glob(pattern)})
        if data.is_dir()
        else []
    )
    flags = [name for name in found if name.split("_")[0] in medmnist_flags()]
    free = shutil.disk_usage(
        next(p for p in (store.cache_dir(), *store.cache_dir().parents) if p.exists())
    ).free
    return {
        "packages": packages,
        "device": {"used": device},
        "directories": {
            "data": str(data),
            "cache": str(store.cache_dir()),
            "free in cache": f"{free / 1e9:.0f} GB",
        },
        "data at hand": {
            "MedMNIST": ", ".join(flags) or "none",
            "other": ", ".join(sorted(set(found) - set(flags))) or "none",
        },
    }
