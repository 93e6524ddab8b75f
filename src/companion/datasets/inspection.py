"""What there is to know of a target before it is ranked for: counts, sizes, duplicates, and whether it would load."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import pandas as pd

from companion.datasets.dataset import Dataset, Options, digests
from companion.datasets.images import Progress
from companion.datasets.load import read_target

MIN_TRAIN = 25  # images of a class, under which scores are unsteady
MIN_EVALUATED = 3  # images of a class to validate or test on, under which an AUC is next to nothing
UNBALANCED = 10
MAX_NAMED = 5
SHOWN = 10  # entries of a list on a terminal
DRAWN_HERE = "drawn here, always the same; give your own for a result to publish"


@dataclass(frozen=True)
class Inspection:
    """Facts about a target; `name`, `origin` and `official_split` are those of the `Dataset`."""

    name: str
    origin: str
    official_split: bool  # otherwise the counts are of splits that are drawn here
    counts: dict[str, dict[str, int]]  # split -> class -> images
    sizes: dict[str, int]  # "width x height" -> files, most frequent first
    modes: dict[str, int]  # mode -> files
    duplicates: tuple[tuple[str, ...], ...]  # groups of images with the same content, each as "split: name"
    across: int  # of these groups lie in more than one split: what is tested there has been seen
    contradictory: int  # of these groups have more than one label
    warnings: tuple[str, ...]  # what of this people should mend or know, one line each
    dataset: Dataset = field(repr=False, compare=False)  # as it is loaded, for a figure
    patients: int | None = None  # distinct ones; None where they are unknown
    shared_patients: Mapping[str, Sequence[str]] = field(default_factory=dict)  # patient -> given splits
    unreadable: tuple[tuple[str, str], ...] = ()  # (file, why)
    skipped: tuple[tuple[str, str], ...] = ()  # (what, why) of what was found beside the images
    errors: tuple[str, ...] = ()  # why `companion.load_dataset` refuses the target, in its words

    def as_document(self) -> dict[str, Any]:
        """Everything but the images as JSON-able values."""
        return {name: value for name, value in vars(self).items() if name != "dataset"}

    def __str__(self) -> str:
        """Everything for a terminal."""
        counts, split = pd.DataFrame(self.counts), "given" if self.official_split else DRAWN_HERE
        lines = [
            f"{self.name} ({self.origin}): {int(counts.to_numpy().sum())} images, {len(counts)} classes",
            f"\nimages per class (splits: {split})\n{counts.to_string()}\n",
            f"sizes: {_named(self.sizes)}",
            f"kinds: {_named(self.modes)}",
            f"patients: {'unknown' if self.patients is None else self.patients}",
            *(f"! {warning}" for warning in self.warnings),
        ]
        listed = {"the same image": [" = ".join(found) for found in self.duplicates]}
        if self.patients is not None:
            shared = [f"{who} in {', '.join(splits)}" for who, splits in self.shared_patients.items()]
            listed["patients in several splits"] = shared
        listed["cannot be read"] = [why for _, why in self.unreadable]
        listed["why ranking refuses it"] = list(self.errors)
        listed["left out"] = [f"{what}: {why}" for what, why in self.skipped]
        for title, entries in listed.items():
            lines += [f"{title}: {len(entries)}", *(f"  {entry}" for entry in entries[:SHOWN])]
            if len(entries) > SHOWN:
                lines.append(f"  and {len(entries) - SHOWN} more (--json lists them)")
        return "\n".join(lines)


def _named(counts: Mapping[str, int]) -> str:
    """The first of some counts, with their names."""
    named = [f"{name} ({count})" for name, count in counts.items()]
    return ", ".join(named[:MAX_NAMED]) + (
        f" and {len(named) - MAX_NAMED} more" if len(named) > MAX_NAMED else ""
    )


def inspect(target: str | os.PathLike, *, progress: Progress | None = None, **reading: Any) -> Inspection:
    """Report facts about a target before anything is computed from it.

    Parameters and errors are those of `companion.load_dataset`, `reading` being its other options. Images are compared
    at the size they are loaded at; what would only be refused for its content is reported in `Inspection.errors`.
    """
    found = read_target(target, Options(**reading), progress)
    dataset, headers, unreadable = found.dataset, found.headers, len(found.unreadable)
    parts = []
    for split, pixels in dataset.images.items():
        columns: dict[str, Any] = {"split": split, "label": [str(label) for label in dataset.labels[split]]}
        columns["name"] = dataset.names.get(split) or [*map(str, range(len(pixels)))]
        columns["patient"] = dataset.patients.get(split, "")
        parts.append(pd.DataFrame(columns | {"digest": digests(pixels)}))
    images = pd.concat(parts)
    again = images[images.duplicated("digest", keep=False)].groupby("digest", sort=False)
    across, contradictory = (int((again[column].nunique() > 1).sum()) for column in ("split", "label"))
    known = images[images["patient"] != ""].groupby("patient")["split"].unique()
    shared = {str(who): list(splits) for who, splits in known.items() if len(splits) > 1}
    warnings = {
        f"{unreadable} file(s) cannot be read": unreadable,
        f"{len(shared)} patient(s) lie in more than one split: ranking refuses this": len(shared),
        f"{contradictory} image(s) come with more than one label": contradictory,
    }
    side, colours = f"{dataset.size} x {dataset.size}", "RGB" if dataset.channels == 3 else "grey"
    sizes = [f"{header.width} x {header.height}" for header in headers] or [side] * len(images)
    return Inspection(
        name=dataset.name,
        origin=dataset.origin,
        official_split=dataset.official_split,
        counts={split: dataset.class_counts(split) for split in dataset.labels},
        sizes=dict(Counter(sizes).most_common()),
        modes=dict(Counter([header.mode for header in headers] or [colours] * len(images)).most_common()),
        duplicates=tuple(tuple(group["split"] + ": " + group["name"]) for _, group in again),
        across=across,
        contradictory=contradictory,
        warnings=(*(line for line, many in warnings.items() if many), *cautions(dataset)),
        dataset=dataset,
        patients=len(known) or None,
        shared_patients=shared,
        unreadable=found.unreadable,
        skipped=found.skipped,
        errors=found.errors,
    )


def cautions(dataset: Dataset) -> list[str]:
    """What people should know of a dataset before they rank for it or fine-tune on it, one line each."""
    notes, where = [], Counter(one for images in dataset.images.values() for one in set(digests(images)))
    if across := sum(count > 1 for count in where.values()):
        seen = "what is tested there has been seen; companion inspect lists them"
        notes.append(f"{across} image(s) lie in more than one split: {seen}")
    notes += dataset.notes
    train = dataset.class_counts()
    if rare := _below(MIN_TRAIN, train):
        notes.append(f"few training images: {_named(rare)}: scores will be unsteady")
    smallest, largest = min(train, key=train.__getitem__), max(train, key=train.__getitem__)
    if train[largest] > UNBALANCED * max(1, train[smallest]):
        most = f"class {largest!r} has {train[largest]} training images"
        notes.append(f"{most} and {smallest!r} {train[smallest]}")
    for split in [split for split in dataset.labels if split != "train"]:
        if rare := _below(MIN_EVALUATED, dataset.class_counts(split)):
            notes.append(f"hardly any {split} images: {_named(rare)}: an AUC on them says little")
    return notes


def _below(least: int, counts: Mapping[str, int]) -> dict[str, int]:
    """Classes of fewer images, the rarest first."""
    ordered = sorted(counts.items(), key=lambda item: item[1])
    return {name: count for name, count in ordered if count < least}
