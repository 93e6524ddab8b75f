"""A first look at a target: counts, sizes, duplicates, what was left out, and whether it would load."""

from __future__ import annotations

import hashlib
import os
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from typing import Any

import numpy as np
import pandas as pd

from companion import store
from companion.datasets import files
from companion.datasets.dataset import Dataset, check_classes
from companion.datasets.decoding import Header, read
from companion.datasets.images import ImageFiles, Progress, in_parallel
from companion.datasets.listing import Listing, list_images
from companion.datasets.load import find, load_dataset
from companion.datasets.splits import SPLITS
from companion.errors import InputError

MIN_TRAIN = 25  # images of a class, under which scores are unsteady
MIN_EVALUATED = 3  # images of a class to validate or test on, under which an AUC is next to nothing
UNBALANCED = 10
MAX_NAMED = 5
EXAMPLES, MAX_CLASSES = 6, 12
SHOWN = 10  # entries of a list on a terminal
COMPARED = 224  # side in pixels at which images are compared


@dataclass(frozen=True)
class Inspection:
    """Facts about a target; `name`, `origin` and `official_split` are those of the `Dataset`."""

    name: str
    origin: str
    official_split: bool  # otherwise the counts are of splits that are drawn here
    counts: dict[str, dict[str, int]]  # split -> class -> images
    sizes: dict[tuple[int, int], int]  # (width, height) -> files, most frequent first
    modes: dict[str, int]  # mode -> files
    duplicates: tuple[tuple[str, ...], ...]  # groups of images with the same content, each as "split: name"
    across: int  # of these groups lie in more than one split: what is tested there has been seen
    contradictory: int  # of these groups have more than one label
    warnings: tuple[str, ...]  # what of this people should mend or know, one line each
    examples: Dataset = field(repr=False, compare=False)  # a few images of every class, for a figure
    patients: int = 0  # distinct ones, 0 where nobody says
    shared_patients: Mapping[str, Sequence[str]] = field(default_factory=dict)  # patient -> given splits
    unreadable: tuple[tuple[str, str], ...] = ()  # (file, why)
    skipped: tuple[tuple[str, str], ...] = ()  # (what, why) of what was found beside the images
    errors: tuple[str, ...] = ()  # why `companion.load_dataset` refuses the target, in its words

    def as_document(self, *, names: bool = True) -> dict[str, Any]:
        """Everything as JSON-able values; without `names` nothing that names a file or a patient."""
        found = {each.name: getattr(self, each.name) for each in fields(self) if each.name != "examples"}
        found["sizes"] = {f"{width} x {height}": count for (width, height), count in self.sizes.items()}
        if not names:
            for key in ("duplicates", "unreadable", "skipped", "shared_patients", "errors"):
                found[key] = len(found[key])
        return found

    def as_text(self, *, names: bool = True) -> str:
        """Everything for a terminal; without `names` no file or patient is named."""
        counts = pd.DataFrame(self.counts)
        split = (
            "given"
            if self.official_split
            else "drawn here, always the same; give your own for a result to publish"
        )
        lines = [f"{self.name} ({self.origin}): {int(counts.to_numpy().sum())} images, {len(counts)} classes"]
        lines += ["", f"images per class (splits: {split})", counts.to_string(), ""]
        sizes = [f"{width} x {height} ({count})" for (width, height), count in self.sizes.items()]
        lines += [
            f"sizes: {_first(sizes)}",
            f"kinds: {_first([f'{m} ({n})' for m, n in self.modes.items()])}",
        ]
        if self.patients:
            lines.append(f"patients: {self.patients}")
        lines += [f"! {warning}" for warning in self.warnings]
        listed = {
            "the same image": [" = ".join(found) for found in self.duplicates],
            "patients in several splits": [
                f"{who} in {', '.join(s)}" for who, s in self.shared_patients.items()
            ],
            "why ranking refuses it": list(self.errors),
            "left out": [f"{what}: {why}" for what, why in self.skipped],
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


def inspect(
    target: str | os.PathLike,
    *,
    size: int | None = None,
    seed: int = 0,
    data_dir: str | os.PathLike | None = None,
    progress: Progress | None = None,
) -> Inspection:
    """Report facts about a target before anything is computed from it.

    Parameters
    ----------
    target, size, seed, data_dir, progress
        As for `companion.load_dataset`. Every image is decoded once and forgotten.

    Returns
    -------
    Inspection

    Raises
    ------
    InputError
        If there is no such target, or nothing in it that could be listed.
    EnvironmentFailure
        If a download fails or an extra is missing.
    """
    name = os.fspath(target)
    with store.data_directory(data_dir):
        path = find(name)
        listing = list_images(path) if path is not None else None
        if listing is None:
            return _of_arrays(load_dataset(name, size=size, seed=seed, progress=progress))
        return _of_files(listing, seed=seed, progress=progress)


def sample(dataset: Dataset) -> Dataset:
    """A few training images of the first dozen classes, for a figure."""
    first = dataset.labels["train"]
    labels = first if first.ndim == 1 else first.argmax(1)
    return _examples(
        dataset.name, dataset.classes, labels, dataset.images["train"], synthetic=dataset.synthetic
    )


def in_several_splits(dataset: Dataset) -> int:
    """How many distinct images of a dataset lie in more than one split: what is tested there has been seen.

    Copies have the same pixels; where the images stay on disk, the same file content.
    """
    where = Counter(digest for images in dataset.images.values() for digest in set(_digests(images)))
    return sum(count > 1 for count in where.values())


def too_few(counts: Mapping[str, Mapping[str, int]]) -> list[str]:
    """What people should know of classes with few images, one line each; `counts` is split -> class -> images."""
    notes = []
    train = counts.get("train", counts.get("all", {}))
    if rare := {name: count for name, count in train.items() if count < MIN_TRAIN}:
        notes.append(f"few training images: {_named(rare)}: scores will be unsteady")
    smallest, largest = min(train, key=train.__getitem__), max(train, key=train.__getitem__)
    if train[largest] > UNBALANCED * max(1, train[smallest]):
        notes.append(
            f"class {largest!r} has {train[largest]} training images and {smallest!r} {train[smallest]}"
        )
    for split in ("val", "test"):
        if rare := {name: count for name, count in counts.get(split, {}).items() if count < MIN_EVALUATED}:
            notes.append(f"hardly any {split} images: {_named(rare)}: an AUC on them says little")
    return notes


def _named(counts: Mapping[str, int]) -> str:
    named = [f"{name!r} {count}" for name, count in sorted(counts.items(), key=lambda item: item[1])]
    rest = f" and {len(named) - MAX_NAMED} more classes" if len(named) > MAX_NAMED else ""
    return ", ".join(named[:MAX_NAMED]) + rest


def _of_arrays(dataset: Dataset) -> Inspection:
    rows = [
        (split, dataset.classes[int(label)] if label.ndim == 0 else str(label.tolist()), str(index), digest)
        for split, images in dataset.images.items()
        for index, (label, digest) in enumerate(zip(dataset.labels[split], _digests(images), strict=True))
    ]
    return _inspection(
        rows,
        name=dataset.name,
        origin=dataset.origin,
        official_split=dataset.official_split,
        counts={split: dataset.class_counts(split) for split in dataset.labels},
        sizes={(dataset.size, dataset.size): len(rows)},
        modes={"RGB" if dataset.channels == 3 else "grey": len(rows)},
        examples=sample(dataset),
    )


def _of_files(listing: Listing, *, seed: int, progress: Progress | None) -> Inspection:
    paths, labels = listing.paths, [entry.label for entry in listing.entries]
    found = files.headers(listing, progress=progress)
    headers = [header for header in found if isinstance(header, Header)]
    grey, bits = all(header.grey for header in headers), files.bits_of(headers)

    def digest(index: int) -> bytes | InputError:
        header = found[index]
        if isinstance(header, InputError):
            return header
        try:
            pixels = read(paths[index], COMPARED, grey=header.grey, bits=bits)
        except InputError as error:
            return error
        return hashlib.sha256(repr(pixels.shape).encode() + pixels.tobytes()).digest()

    digests = in_parallel(digest, range(len(paths)), what="comparing images", progress=progress)
    names, listing = [listing.relative(path) for path in paths], files.with_patients(listing, found)
    unreadable = [(names[at], str(why)) for at, why in enumerate(digests) if isinstance(why, InputError)]
    whole = [at for at, digest in enumerate(digests) if isinstance(digest, bytes)]
    counts, splits, errors = _counted(listing, seed)
    return _inspection(
        [(splits[at], labels[at], names[at], digests[at]) for at in whole],
        name=listing.name,
        origin=listing.origin,
        official_split=listing.has_splits,
        counts=counts,
        sizes=dict(Counter((header.width, header.height) for header in headers).most_common()),
        modes=dict(Counter(header.mode for header in headers).most_common()),
        patients=len({entry.patient for entry in listing.entries} - {""}),
        shared_patients=files.shared_patients(listing),
        unreadable=tuple(unreadable),
        skipped=listing.skipped,
        errors=(*(why for _, why in unreadable), *errors),
        examples=_examples(
            listing.name,
            listing.classes,
            listing.labels[whole],
            ImageFiles([paths[at] for at in whole], 64, grey=grey, bits=bits),
        ),
    )


def _counted(listing: Listing, seed: int) -> tuple[dict[str, dict[str, int]], np.ndarray, list[str]]:
    """Split -> class -> images, the split of every entry ("all" where none can be drawn), and what loading refuses."""
    splits = np.array([entry.split or "all" for entry in listing.entries], dtype=object)
    errors = []
    try:
        for split, index in files.divide(listing, files.contents(listing), seed=seed).items():
            splits[index] = split
    except InputError as error:
        errors.append(str(error))
    counted = Counter(zip(splits, (entry.label for entry in listing.entries), strict=True))
    counts = {
        split: {label: counted[split, label] for label in listing.classes}
        for split in (*SPLITS, "all")
        if split in splits
    }
    try:
        check_classes(listing.name, counts.get("train") or counts["all"])
    except InputError as error:
        errors.append(str(error))
    return counts, splits, errors


def _inspection(rows: Sequence[tuple], **facts: Any) -> Inspection:
    """Add duplicates and warnings; a row of an image is its split, label, name and digest."""
    images = pd.DataFrame(rows, columns=["split", "label", "name", "digest"])
    again = images[images.duplicated("digest", keep=False)].groupby("digest", sort=False)
    across, contradictory = (int((again[column].nunique() > 1).sum()) for column in ("split", "label"))
    unreadable, shared = len(facts.get("unreadable", ())), len(facts.get("shared_patients", ()))
    warnings = {
        f"{unreadable} file(s) cannot be read: mend or remove them before ranking": unreadable,
        f"{shared} patient(s) lie in more than one split: ranking refuses this": shared,
        f"{across} image(s) lie in more than one split: what is tested there has been seen": across,
        f"{contradictory} image(s) come with more than one label": contradictory,
    }
    return Inspection(
        duplicates=tuple(tuple(group["split"] + ": " + group["name"]) for _, group in again),
        across=across,
        contradictory=contradictory,
        warnings=(*(line for line, count in warnings.items() if count), *too_few(facts["counts"])),
        **facts,
    )


def _digests(images: np.ndarray | ImageFiles) -> list[bytes]:
    """What is the same for copies: of the pixels, or of files that stay on disk."""
    if isinstance(images, ImageFiles):
        return images.digests
    return [hashlib.sha256(np.ascontiguousarray(image).tobytes()).digest() for image in images]


def _examples(
    name: str, classes: tuple[str, ...], labels: np.ndarray, images: Any, *, synthetic: bool = False
) -> Dataset:
    rng = np.random.default_rng(0)
    classes = classes[:MAX_CLASSES]
    chosen = [rng.permutation(np.flatnonzero(labels == label))[:EXAMPLES] for label in range(len(classes))]
    index = np.concatenate(chosen)
    return Dataset(
        name, {"train": images[index]}, {"train": labels[index]}, classes, "", "", synthetic=synthetic
    )
