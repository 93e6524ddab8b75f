"""Which sources can be had on this machine without a download, and which cannot: the default candidates."""

from __future__ import annotations

import contextlib

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


def default_sources(
    target: str, *, architecture: str = "resnet18", seed: int = SEED, progress: Report | None = None
) -> tuple[list[str], dict[str, str]]:
    """Sources that can be had without a download, and those left out.

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
    chosen : list of str
        In the order in which they are ranked.
    left_out : dict of str to str
        Source -> the reason.

    Raises
    ------
    InputError
        If there is nothing to compare.
    """
    check_architecture(architecture)
    found = _released(target, architecture) | _own_checkpoints() | _trained_here(target, architecture, seed)
    chosen = [source for source, reason in found.items() if not reason]
    missing = MIN_CANDIDATES - 1 - sum(not source.startswith("torchvision:") for source in chosen)
    untrained = [source for source, reason in found.items() if reason and source.startswith("train:")]
    # With random weights four, of one architecture where no file has another.
    added = untrained[: max(0, missing)]
    if added and progress:
        progress(0.0, f"{len(added)} source(s) are trained here first, once: about {len(added)} min")
    if not chosen + added:
        raise InputError(
            "only random weights can be had here without a download: name sources (--source), or bring some, as "
            "companion fetch imagenet does"
        )
    left_out = {source: reason for source, reason in found.items() if reason and source not in added}
    return [*chosen, *added, "scratch"], left_out


def _released(target: str, architecture: str) -> dict[str, str]:
    """Sources whose files have a place of their own, with the reason where nothing lies there."""
    found, own = {}, [] if architecture.startswith("timm:") else [architecture]
    for name in dict.fromkeys((*own, *ARCHITECTURES)):
        weights, path = imagenet_file(name)
        megabytes = weights.meta.get("_file_size", 0)
        source = "imagenet" if name == architecture else f"torchvision:{name}"
        reason = f"not on this machine: companion fetch brings it ({megabytes:.0f} MB)"
        found[source] = "" if path.is_file() else reason
    for flag in medmnist_flags(single_label=True):
        if flag != target:
            reason = (
                "not on this machine, and without a published checksum: companion fetch weights:NAME --trust"
            )
            found[flag] = "" if medmnist_file(flag).is_file() else reason
    for name, where in BY_HAND.items():
        if name != "medmnist" or target in medmnist_flags():  # its weights are for a target that was left out
            path = by_hand_file(name, target)
            # Without the folders above: a report is sent to others.
            place = path.relative_to(store.data_dir()).as_posix()
            reason = f"fetched by hand from {where}, and saved as {place} in the data directory"
            found[name] = "" if path.is_file() else reason
    return found


def _own_checkpoints() -> dict[str, str]:
    """Checkpoints in the folder of weights; those that do not say what they are must be named."""
    found = {}
    for path in sorted((store.data_dir() / "weights").glob("*.*")):
        released = path.stem in BY_HAND or path.name.startswith("medmnist_")
        if path.suffix in CHECKPOINT_SUFFIXES and not released:
            found[str(path)] = "not saved by this package, so it must be named: --source FILE@ARCHITECTURE"
            with contextlib.suppress(CompanionError):  # a damaged one is reported where it is named
                if path.suffix == ".safetensors" and "companion" in read_state(path)[1]:
                    found[str(path)] = ""
    return found


def _trained_here(target: str, architecture: str, seed: int) -> dict[str, str]:
    """Models trained on MedMNIST sets of this machine, smallest set first, and those still to be trained."""
    samples, found = medmnist_samples(), {}
    for flag in sorted(medmnist_flags(single_label=True), key=lambda flag: samples[flag]["train"]):
        if flag != target and cached_file(flag, 28) is not None:
            found[f"train:{flag}"] = "not trained yet, about a minute each: name it with --source"
            with contextlib.suppress(CompanionError):  # a damaged file is reported where it is named
                # A large set is read only where a model of it may lie.
                if any((store.cache_dir() / "sources").glob(f"{flag}-*.safetensors")):
                    learnt = load_dataset(flag, size=28)
                    if trained_file(learnt, architecture=architecture, seed=seed).is_file():
                        found[f"train:{flag}"] = ""
    return found
