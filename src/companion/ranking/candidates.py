"""Which sources can be had on this machine without a download, and which cannot: the default candidates."""

from __future__ import annotations

from dataclasses import dataclass

from companion import store
from companion.datasets import (
    Dataset,
    cached_file,
    load_dataset,
    medmnist_flags,
    medmnist_origin,
    medmnist_samples,
)
from companion.errors import CompanionError, InputError
from companion.models import ARCHITECTURES, check_architecture, read_state
from companion.ranking.ranking import training_size
from companion.ranking.sets import MIN_CANDIDATES
from companion.sources import (
    BY_HAND,
    CHECKPOINT_SUFFIXES,
    LICENCES,
    by_hand_file,
    imagenet_file,
    medmnist_file,
    trained_file,
)
from companion.training import SEED


@dataclass(frozen=True)
class Candidate:
    """A source that is, or is not, among the default candidates.

    Attributes
    ----------
    source
        Name, as `companion.load_source` takes it.
    origin, licence
        Where it comes from and under what terms.
    input_size
        Side in pixels of the images it learnt from; None where nobody says.
    reason
        Why it was left out and what brings it in; empty where it is a candidate.
    megabytes
        Size of the download, where it is known.
    """

    source: str
    origin: str
    licence: str
    input_size: int | None
    reason: str = ""
    megabytes: int | None = None


def candidates(
    target: str, size: int, *, architecture: str = "resnet18", seed: int = SEED
) -> tuple[list[Candidate], list[Candidate]]:
    """Sources that can be had without a download, and those left out with the reason.

    ImageNet weights, MedMNIST's released weights and RadImageNet's are candidates where their files are here; so are
    this package's own checkpoints in the folder ``weights`` of the data directory, models trained here earlier, and
    random weights. If that is too few for an order, models are trained on the smallest MedMNIST sets on this machine.

    Parameters
    ----------
    target
        Name of the target; a source trained on it is no candidate.
    size
        Side of the target's images in pixels, which decides what ``train:`` sources are trained on.
    architecture, seed
        As for `companion.rank`.

    Returns
    -------
    chosen, left_out : list of Candidate
        In the order in which they are ranked.
    """
    found = [*_imagenet(architecture), *_medmnist(target), *_by_hand(target), *_own(architecture)]
    trained = _trained(target, size, architecture, seed)
    scratch = Candidate("scratch", "random weights", LICENCES["scratch"], None)
    chosen = [candidate for candidate in [*found, *trained, scratch] if not candidate.reason]
    left_out = [candidate for candidate in found if candidate.reason]
    of_one_kind = sum(not candidate.source.startswith("torchvision:") for candidate in chosen)
    for candidate in (c for c in trained if c.reason):
        if of_one_kind < MIN_CANDIDATES:
            taken = Candidate(candidate.source, candidate.origin, candidate.licence, candidate.input_size)
            chosen.insert(-1, taken)
            of_one_kind += 1
        else:
            left_out.append(candidate)
    return chosen, left_out


def default_sources(
    dataset: Dataset, *, architecture: str = "resnet18", seed: int = SEED
) -> tuple[list[str], list[Candidate]]:
    """Names of the candidates for a target, and those left out.

    Raises
    ------
    InputError
        If there is nothing to compare.
    """
    check_architecture(architecture)
    chosen, left_out = candidates(dataset.name, dataset.size, architecture=architecture, seed=seed)
    if len(chosen) < 2:
        raise InputError(
            "only random weights can be had here without a download: name sources (--source), or bring some, as "
            "companion fetch imagenet does"
        )
    return [candidate.source for candidate in chosen], left_out


def _imagenet(architecture: str) -> list[Candidate]:
    found = []
    for name in dict.fromkeys((architecture, *ARCHITECTURES)):
        weights, path = imagenet_file(name)
        source = "imagenet" if name == architecture else f"torchvision:{name}"
        reason = "" if path.is_file() else "not on this machine: companion fetch NAME brings it"
        size = weights.meta.get("_file_size")
        found.append(
            Candidate(
                source, weights.url, LICENCES["imagenet"], 224, reason, None if size is None else round(size)
            )
        )
    return found


def _medmnist(target: str) -> list[Candidate]:
    return [
        Candidate(
            flag,
            "MedMNIST's released weights (Zenodo record 7782113)",
            LICENCES["medmnist weights"],
            224,
            ""
            if medmnist_file(flag).is_file()
            else "not on this machine, and without a published checksum: companion fetch weights:NAME --trust",
        )
        for flag in medmnist_flags(single_label=True)
        if flag != target
    ]


def _by_hand(target: str) -> list[Candidate]:
    found = []
    for name, where in BY_HAND.items():
        if name == "medmnist" and target not in medmnist_flags():
            continue  # its weights are for a target that was left out
        path = by_hand_file(name, target)
        # Without the folders above: a report is sent to others.
        place = path.relative_to(store.data_dir()).as_posix()
        reason = (
            ""
            if path.is_file()
            else f"fetched by hand from {where}, and saved as {place} in the data directory"
        )
        found.append(Candidate(name, where, "as its authors say", 224, reason))
    return found


def _own(architecture: str) -> list[Candidate]:
    """Checkpoints in the folder of weights; those that do not say their architecture must be named."""
    folder = store.data_dir() / "weights"
    known = {by_hand_file(name, "").name for name in BY_HAND}
    files = sorted(path for path in folder.glob("*") if path.suffix in CHECKPOINT_SUFFIXES)
    found = []
    for path in files:
        if path.name.startswith("medmnist_") or path.name in known:
            continue
        reason = "it does not say its architecture: name it with --source to say that you mean it"
        if path.suffix == ".safetensors":
            try:
                reason = "" if "companion" in read_state(path)[1] else reason
            except CompanionError as error:
                reason = str(error)
        found.append(Candidate(str(path), "your own checkpoint", "your own", None, reason))
    return found


def _trained(target: str, size: int, architecture: str, seed: int) -> list[Candidate]:
    """Sources trained on MedMNIST sets of this machine, smallest first; with a reason where that is still to do."""
    samples = medmnist_samples()
    found = []
    for flag in sorted(medmnist_flags(single_label=True), key=lambda flag: samples[flag]["train"]):
        source = f"train:{flag}"
        side = training_size(source, size)
        if flag == target or cached_file(flag, side) is None:
            continue
        made = _is_trained(flag, side, architecture, seed)
        reason = "" if made else "not trained yet, about a minute each: name it with --source"
        origin = medmnist_origin(flag)
        found.append(Candidate(source, f"trained here on {origin}", f"of its data: {origin}", side, reason))
    return found


def _is_trained(flag: str, size: int, architecture: str, seed: int) -> bool:
    """Tell whether a model trained on a MedMNIST set lies in the cache; large sets are read only where one may."""
    if not any((store.cache_dir() / "sources").glob(f"{flag}-*.safetensors")):
        return False
    try:
        return trained_file(load_dataset(flag, size=size), architecture=architecture, seed=seed).is_file()
    except CompanionError:
        return False  # a damaged file is told where it is named
