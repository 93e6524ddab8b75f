"""Which sources can be had on this machine without a download, and which cannot: the default candidates."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from companion import store
from companion.datasets import cached_file, load_dataset, medmnist_flags, medmnist_samples
from companion.errors import CompanionError, InputError
from companion.models import ARCHITECTURES, check_architecture, read_state
from companion.ranking.sets import MIN_CANDIDATES
from companion.sources import (
    BY_HAND,
    CHECKPOINT_SUFFIXES,
    by_hand_file,
    imagenet_file,
    medmnist_file,
    trained_file,
)
from companion.training import SEED
from companion.training.loop import Report


@dataclass(frozen=True)
class Candidate:
    """A source, as `companion.load_source` takes it, and why it was left out; empty where it is a candidate."""

    source: str
    reason: str = ""


def default_sources(
    target: str, *, architecture: str = "resnet18", seed: int = SEED, progress: Report | None = None
) -> tuple[list[str], list[Candidate]]:
    """Sources that can be had without a download, and those left out with the reason.

    ImageNet weights, MedMNIST's released weights and RadImageNet's are candidates where their files are here; so are
    this package's own checkpoints in the folder ``weights`` of the data directory, models trained here earlier, and
    random weights. If that is too few for an order, models are trained on the smallest MedMNIST sets on this machine.

    Parameters
    ----------
    target
        Name of the target; a source trained on it is no candidate.
    architecture, seed, progress
        As for `companion.rank`.

    Returns
    -------
    chosen, left_out
        In the order in which they are ranked.

    Raises
    ------
    InputError
        If there is nothing to compare.
    """
    check_architecture(architecture)
    files = _files(target, architecture)
    found = [Candidate(source, "" if path.is_file() else reason) for source, path, reason in files]
    found += _own()
    trained = _trained(target, architecture, seed)
    chosen = [one.source for one in [*found, *trained] if not one.reason]
    of_one_kind = sum(not source.startswith("torchvision:") for source in chosen) + 1  # with random weights
    missing = [one for one in trained if one.reason]
    added = missing[: max(0, MIN_CANDIDATES - of_one_kind)]
    chosen += [one.source for one in added]
    if added and progress:
        progress(0.0, f"{len(added)} source(s) are trained here first, once: about {len(added)} min")
    if not chosen:
        raise InputError(
            "only random weights can be had here without a download: name sources (--source), or bring some, as "
            "companion fetch imagenet does"
        )
    return [*chosen, "scratch"], [one for one in found if one.reason] + missing[len(added) :]


def _files(target: str, architecture: str) -> Iterator[tuple[str, Path, str]]:
    """Sources whose files have a place of their own: that place, and what to say where nothing lies there."""
    for name in dict.fromkeys((architecture, *ARCHITECTURES)):
        weights, path = imagenet_file(name)
        megabytes = weights.meta.get("_file_size", 0)
        reason = f"not on this machine: companion fetch brings it ({megabytes:.0f} MB)"
        yield "imagenet" if name == architecture else f"torchvision:{name}", path, reason
    reason = "not on this machine, and without a published checksum: companion fetch weights:NAME --trust"
    for flag in medmnist_flags(single_label=True):
        if flag != target:
            yield flag, medmnist_file(flag), reason
    for name, where in BY_HAND.items():
        if name != "medmnist" or target in medmnist_flags():  # its weights are for a target that was left out
            path = by_hand_file(name, target)
            # Without the folders above: a report is sent to others.
            place = path.relative_to(store.data_dir()).as_posix()
            yield name, path, f"fetched by hand from {where}, and saved as {place} in the data directory"


def _own() -> Iterator[Candidate]:
    """Checkpoints in the folder of weights; those that do not say what they are must be named."""
    known = {by_hand_file(name, "").name for name in BY_HAND}
    for path in sorted((store.data_dir() / "weights").glob("*.*")):
        if (
            path.suffix in CHECKPOINT_SUFFIXES
            and path.name not in known
            and not path.name.startswith("medmnist_")
        ):
            reason = "not saved by this package, so it must be named: --source FILE@ARCHITECTURE"
            with contextlib.suppress(CompanionError):  # a damaged one is reported where it is named
                if path.suffix == ".safetensors" and "companion" in read_state(path)[1]:
                    reason = ""
            yield Candidate(str(path), reason)


def _trained(target: str, architecture: str, seed: int) -> list[Candidate]:
    """Sources trained on MedMNIST sets of this machine, smallest first; with a reason where that is still to do."""
    samples, found = medmnist_samples(), []
    for flag in sorted(medmnist_flags(single_label=True), key=lambda flag: samples[flag]["train"]):
        if flag != target and cached_file(flag, 28) is not None:
            made = _is_trained(flag, architecture, seed)
            reason = "" if made else "not trained yet, about a minute each: name it with --source"
            found.append(Candidate(f"train:{flag}", reason))
    return found


def _is_trained(flag: str, architecture: str, seed: int) -> bool:
    """Tell whether a model trained on a MedMNIST set lies in the cache; large sets are read only where one may."""
    with contextlib.suppress(CompanionError):  # a damaged file is reported where it is named
        if any((store.cache_dir() / "sources").glob(f"{flag}-*.safetensors")):
            return trained_file(load_dataset(flag, size=28), architecture=architecture, seed=seed).is_file()
    return False
