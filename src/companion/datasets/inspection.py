"""A first look at a target: counts, sizes, duplicates, what was left out. Nothing is refused that can be told."""

from __future__ import annotations

import contextlib
import hashlib
import os
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

import numpy as np

from companion import store
from companion.datasets import load
from companion.datasets.dataset import SPLITS, Dataset
from companion.datasets.images import Header, ImageFiles, Progress, in_parallel, probe, read
from companion.datasets.listing import Listing, bits_of, contents, divide, groups, shared_groups
from companion.errors import InputError

FEW = 25  # images of a class in training, under which scores are unsteady
FEWEST = 3  # images of a class to validate or test on, under which an AUC is next to nothing
UNBALANCED = 10
SHOWN_FEW = 5
EXAMPLES, SHOWN_CLASSES = 6, 12
COMPARED = 224  # side in pixels at which images are compared


@dataclass(frozen=True)
class Inspection:
    """Facts about a target.

    Attributes
    ----------
    name, origin
        As of the `Dataset`.
    official_split
        Whether the splits are given; otherwise the counts are of those that are drawn here.
    counts
        Split -> class -> images.
    sizes
        (width, height) -> files, most frequent first; of arrays their one size.
    modes
        Mode -> files.
    patients
        Distinct patients, 0 where nobody says.
    shared_patients
        Patients in more than one given split -> these splits.
    duplicates
        Groups of images with the same content, as tuples of ``split/name``.
    across
        How many of these groups lie in more than one split: what is tested there has been seen.
    contradictory
        How many of these groups have more than one label.
    unreadable, skipped
        (what, why) of files that cannot be read, and of what was found beside the images.
    warnings
        What of this people should mend or know, one line each.
    examples
        A few images of every class, for a figure.
    """

    name: str
    origin: str
    official_split: bool
    counts: dict[str, dict[str, int]]
    sizes: dict[tuple[int, int], int]
    modes: dict[str, int]
    patients: int
    shared_patients: dict[str, list[str]]
    duplicates: tuple[tuple[str, ...], ...]
    across: int
    contradictory: int
    unreadable: tuple[tuple[str, str], ...]
    skipped: tuple[tuple[str, str], ...]
    warnings: tuple[str, ...]
    examples: Dataset = field(repr=False, compare=False)

    def as_document(self, *, names: bool = True) -> dict[str, Any]:
        """Everything as JSON-able values; without `names` nothing that names a file or a patient."""
        found = {each.name: getattr(self, each.name) for each in fields(self) if each.name != "examples"}
        found["sizes"] = {f"{width} x {height}": count for (width, height), count in self.sizes.items()}
        if not names:
            for key in ("duplicates", "unreadable", "skipped", "shared_patients"):
                found[key] = len(found[key])
        return found


def inspect(
    target: str | os.PathLike,
    *,
    size: int | None = None,
    seed: int = 0,
    data_dir: str | os.PathLike | None = None,
    progress: Progress | None = None,
) -> Inspection:
    """Look at a target before anything is computed from it.

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
        path = load.find(name)
        listing = load.list_files(path) if path is not None else None
        if listing is None:
            return _of_arrays(load.load_dataset(name, size=size, seed=seed, progress=progress))
        return _of_files(listing, seed=seed, progress=progress)


def _probed(path: Path) -> Header | str:
    try:
        return probe(path)
    except InputError as error:
        return str(error)


def _of_files(listing: Listing, *, seed: int, progress: Progress | None) -> Inspection:
    paths = [entry.path for entry in listing.entries]
    found = in_parallel(_probed, paths, what="looking at files", progress=progress)
    headers = [header if isinstance(header, Header) else None for header in found]
    bits = bits_of([header for header in headers if header])

    def digest(index: int) -> bytes | str:
        header = headers[index]
        if header is None:
            return str(found[index])
        try:
            pixels = read(paths[index], COMPARED, grey=header.grey, bits=bits)
        except InputError as error:
            return str(error)
        return hashlib.sha256(repr(pixels.shape).encode() + pixels.tobytes()).digest()

    digests = in_parallel(digest, range(len(paths)), what="comparing images", progress=progress)
    of = groups(listing, headers)
    shared = shared_groups(listing, of)
    splits = _splits(listing, of, seed)
    labels = [entry.label for entry in listing.entries]
    names = [f"{split}: {listing.relative(path)}" for split, path in zip(splits, paths, strict=True)]
    whole = [index for index, digest in enumerate(digests) if isinstance(digest, bytes)]
    grey = all(header.grey for header in headers if header)
    return _with_warnings(
        name=listing.name,
        origin=listing.origin,
        official_split=listing.has_splits,
        counts=_counts(splits, labels, listing.classes),
        sizes=dict(Counter((h.width, h.height) for h in headers if h).most_common()),
        modes=dict(Counter(header.mode for header in headers if header).most_common()),
        patients=len(set(of) - {""}),
        shared_patients=shared,
        unreadable=tuple(
            (listing.relative(path), digest)
            for path, digest in zip(paths, digests, strict=True)
            if isinstance(digest, str)
        ),
        skipped=listing.skipped,
        examples=_examples(
            listing.name,
            listing.classes,
            np.asarray(listing.labels)[whole],
            ImageFiles([paths[index] for index in whole], 64, grey=grey, bits=bits),
        ),
        **_duplicates(
            [digest.hex() for digest in digests if isinstance(digest, bytes)],
            [names[index] for index in whole],
            [splits[index] for index in whole],
            [labels[index] for index in whole],
        ),
    )


def _splits(listing: Listing, of: Sequence[str], seed: int) -> list[str]:
    """Split of every entry, "all" where there are too few images to draw splits from."""
    if listing.has_splits:
        return [entry.split for entry in listing.entries]
    splits = np.full(len(listing.entries), "all", dtype=object)
    with contextlib.suppress(InputError):
        for split, index in divide(listing, of, contents(listing), seed=seed).items():
            splits[index] = split
    return list(splits)


def sample(dataset: Dataset) -> Dataset:
    """A few training images of the first dozen classes, for a figure."""
    first = dataset.labels["train"]
    labels = first if first.ndim == 1 else first.argmax(1)
    return _examples(
        dataset.name, dataset.classes, labels, dataset.images["train"], synthetic=dataset.synthetic
    )


def _examples(
    name: str, classes: tuple[str, ...], labels: np.ndarray, images: Any, *, synthetic: bool = False
) -> Dataset:
    rng = np.random.default_rng(0)
    classes = classes[:SHOWN_CLASSES]
    chosen = [
        index
        for label in range(len(classes))
        for index in rng.permutation(np.flatnonzero(labels == label))[:EXAMPLES]
    ]
    index = np.array(chosen, dtype=int)
    return Dataset(
        name, {"train": images[index]}, {"train": labels[index]}, classes, "", "", synthetic=synthetic
    )


def _digests(images: np.ndarray | ImageFiles) -> list[bytes]:
    """What is the same for copies: of the pixels, or of files that stay on disk."""
    if isinstance(images, ImageFiles):
        return images.digests
    return [hashlib.sha256(np.ascontiguousarray(image).tobytes()).digest() for image in images]


def in_several_splits(dataset: Dataset) -> int:
    """How many distinct images of a dataset lie in more than one split: what is tested there has been seen.

    Copies have the same pixels; where the images stay on disk, the same file content.
    """
    where = Counter(digest for images in dataset.images.values() for digest in set(_digests(images)))
    return sum(count > 1 for count in where.values())


def _of_arrays(dataset: Dataset) -> Inspection:
    splits, labels, digests, names = [], [], [], []
    for split, images in dataset.images.items():
        digests += [digest.hex() for digest in _digests(images)]
        for index, label in enumerate(dataset.labels[split]):
            splits.append(split)
            labels.append(dataset.classes[int(label)] if label.ndim == 0 else repr(label.tolist()))
            names.append(f"{split}: {index}")
    return _with_warnings(
        name=dataset.name,
        origin=dataset.origin,
        official_split=dataset.official_split,
        counts={split: dataset.class_counts(split) for split in dataset.labels},
        sizes={(dataset.size, dataset.size): len(splits)},
        modes={"RGB" if dataset.channels == 3 else "grey": len(splits)},
        patients=0,
        shared_patients={},
        unreadable=(),
        skipped=(),
        examples=sample(dataset),
        **_duplicates(digests, names, splits, labels),
    )


def _counts(
    splits: Sequence[str], labels: Sequence[str], classes: Sequence[str]
) -> dict[str, dict[str, int]]:
    counted = Counter(zip(splits, labels, strict=True))
    present = [split for split in (*SPLITS, "all") if split in set(splits)]
    return {split: {label: counted[split, label] for label in classes} for split in present}


def _duplicates(
    digests: Sequence[str], names: Sequence[str], splits: Sequence[str], labels: Sequence[str]
) -> dict[str, Any]:
    members: dict[str, list[int]] = defaultdict(list)
    for index, digest in enumerate(digests):
        members[digest].append(index)
    repeated = [found for found in members.values() if len(found) > 1]
    return {
        "duplicates": tuple(tuple(names[index] for index in found) for found in repeated),
        "across": sum(len({splits[index] for index in found}) > 1 for found in repeated),
        "contradictory": sum(len({labels[index] for index in found}) > 1 for found in repeated),
    }


def too_few(counts: Mapping[str, Mapping[str, int]]) -> list[str]:
    """What people should know of classes with few images, one line each.

    Parameters
    ----------
    counts
        Split -> class -> images.
    """
    said = []
    train = counts.get("train", counts.get("all", {}))
    rare = {name: count for name, count in train.items() if count < FEW}
    if rare:
        said.append(f"few training images: {_named(rare)}: scores will be unsteady")
    smallest, largest = min(train, key=train.__getitem__), max(train, key=train.__getitem__)
    if train[largest] > UNBALANCED * max(1, train[smallest]):
        said.append(
            f"class {largest!r} has {train[largest]} training images and {smallest!r} {train[smallest]}"
        )
    for split in ("val", "test"):
        rare = {name: count for name, count in counts.get(split, {}).items() if count < FEWEST}
        if rare:
            said.append(f"hardly any {split} images: {_named(rare)}: an AUC on them says little")
    return said


def _named(counts: Mapping[str, int]) -> str:
    first = [f"{name!r} {count}" for name, count in sorted(counts.items(), key=lambda item: item[1])]
    return ", ".join(first[:SHOWN_FEW]) + (
        f" and {len(first) - SHOWN_FEW} more classes" if len(first) > SHOWN_FEW else ""
    )


def _with_warnings(**facts: Any) -> Inspection:
    said = []
    if facts["unreadable"]:
        said.append(f"{len(facts['unreadable'])} file(s) cannot be read: mend or remove them before ranking")
    if facts["shared_patients"]:
        said.append(
            f"{len(facts['shared_patients'])} patient(s) lie in more than one split: ranking refuses this"
        )
    if facts["across"]:
        said.append(
            f"{facts['across']} image(s) lie in more than one split: what is tested there has been seen"
        )
    if facts["contradictory"]:
        said.append(f"{facts['contradictory']} image(s) come with more than one label")
    said += too_few(facts["counts"])
    return Inspection(**facts, warnings=tuple(said))
