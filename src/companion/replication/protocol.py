"""A replication protocol: which sources on which targets, trained how. Read from a file, expanded into runs."""

from __future__ import annotations

import itertools
import os
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict
from dataclasses import dataclass as plain_dataclass
from importlib import resources
from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import BeforeValidator, Field
from pydantic.dataclasses import dataclass

from companion import store
from companion.datasets import Dataset, Fold, fold
from companion.errors import InputError, did_you_mean
from companion.sources import parse
from companion.training import FINE_TUNING_PROTOCOLS, SOURCE_PROTOCOLS, FineTuning, Settings, SourceProtocol
from companion.training.protocols import STRICT, FileName, checked

LEAVE_TARGET_OUT, MATCHED = "leave-target-out", "leave-target-out-matched"
Name = Annotated[str, Field(min_length=1)]
Names = Annotated[tuple[Name, ...], Field(min_length=1)]
# What of a fine-tuning protocol decides the result of one run, beside the point of the grid.
DECIDING = tuple("epochs patience train_per_class val_per_class fold_seed dropout augmentation".split())


def _built_in(known: Mapping[str, Any]) -> Callable[[Any], Any]:
    """Put the protocol of that name in place of a text."""

    def look_up(given: Any) -> Any:
        if isinstance(given, str) and given not in known:
            raise ValueError(f"there are {', '.join(known)}.{did_you_mean(given, known)}")
        return known[given] if isinstance(given, str) else given

    return look_up


@dataclass(frozen=True, config=STRICT)
class Replication:
    """A grid of fine-tunings.

    Attributes
    ----------
    sources
        Names as `companion.load_source` takes them; ``"leave-target-out"``: trained on all of `pool` but the target;
        and ``"leave-target-out-matched"``: on as many images of that pool as `matched_images` says.
    targets, pool
        Names as `companion.load_dataset` takes them.
    size
        Image side in pixels.
    source_training
        Of ``train:`` sources and ``leave-target-out``.
    """

    name: FileName
    size: Literal[28, 64, 128, 224]
    sources: Names
    targets: Names
    source_training: Annotated[SourceProtocol, BeforeValidator(_built_in(SOURCE_PROTOCOLS))]
    fine_tuning: Annotated[FineTuning, BeforeValidator(_built_in(FINE_TUNING_PROTOCOLS))]
    architecture: str = "resnet18"
    pool: tuple[Name, ...] = ()
    matched_images: Annotated[int, Field(ge=1)] | None = None

    def spec(self, source: str, target: str) -> str:
        """Name under which `load_source` finds a source for a target."""
        if source not in (LEAVE_TARGET_OUT, MATCHED):
            return source
        pooled = "train:" + "+".join(name for name in self.pool if name != target)
        return f"{pooled}@{self.matched_images}" if source == MATCHED else pooled

    def pairs(self, *, itself: bool = False) -> Iterator[tuple[str, str]]:
        """Every source with every target; a target as its own source only where `itself` asks for it."""
        for target in self.targets:
            for source in self.sources:
                if itself or label(source) != label(target):
                    yield source, target

    def fold(self, dataset: Dataset, number: int) -> Fold:
        """Fold of a target as this protocol draws it."""
        tuning = self.fine_tuning
        sizes = {"train_per_class": tuning.train_per_class, "val_per_class": tuning.val_per_class}
        return fold(dataset, number, seed=tuning.fold_seed, **sizes)


def label(source: str) -> str:
    """Name of a source in result tables: the dataset it was trained on, or the file it is read from."""
    return source.removeprefix("train:").removesuffix(".npz").removesuffix(".safetensors")


@plain_dataclass(frozen=True)
class Run:
    """One fine-tuning of the grid: plain values, so that any process can be handed it."""

    source: str
    spec: str
    target: str
    fold: int
    seed: int
    settings: Settings
    key: str
    protocol: Replication
    data_hash: str  # of the target


def expand(protocol: Replication, hashes: Mapping[str, str], *, itself: bool = False) -> list[Run]:
    """Expand a protocol into runs, ordered so that every pair has its first fold early.

    `hashes` are the content hashes of every dataset that is a target or that a source is trained on, and of every
    checkpoint; they are part of the keys. `itself`: also with every target as its own source, which is scored and not
    fine-tuned.
    """
    tuning = protocol.fine_tuning
    common = {name: value for name, value in asdict(tuning).items() if name in DECIDING}
    found = []
    for number in tuning.folds:
        for source, target in protocol.pairs(itself=itself):
            spec = protocol.spec(source, target)
            made_of = {part: hashes[part] for part in parse(spec).parts}
            training = asdict(protocol.source_training) if made_of else None
            if spec in hashes:  # a checkpoint
                made_of[spec] = hashes[spec]
            decides = {
                "spec": [spec, made_of, training],
                "target": [target, hashes[target]],
                "size": protocol.size,
                "architecture": protocol.architecture,
                "fold": number,
                "fine_tuning": common,
                "results_version": store.RESULTS_VERSION,
            }
            for seed, settings in itertools.product(tuning.seeds, tuning.settings(target)):
                key = store.digest(decides | {"seed": seed, "settings": asdict(settings)})
                about = (label(source), spec, target, number, seed, settings, key)
                found.append(Run(*about, protocol, hashes[target]))
    return found


def read(protocol: str | os.PathLike) -> Replication:
    """Read a protocol by name (``paper``, ``standard``, ``quick``) or from a YAML file.

    In the file ``source_training`` and ``fine_tuning`` are the name of a built-in protocol or a mapping of its keys.

    Raises
    ------
    InputError
        If there is none of that name, or keys are unknown, missing or impossible.
    """
    name, path = os.fspath(protocol), Path(protocol).expanduser()
    files = resources.files(__package__).iterdir()
    packaged = {Path(file.name).stem: file for file in files if file.name.endswith(".yaml")}
    if name not in packaged and not path.is_file():
        there = f"there are {', '.join(sorted(packaged))}, or give a YAML file."
        raise InputError(f"no protocol {name!r}: {there}{did_you_mean(name, packaged)}")
    where = f"protocol {name}" if name in packaged else str(path)
    try:
        given = yaml.safe_load(packaged.get(name, path).read_bytes())
    except (yaml.YAMLError, UnicodeDecodeError, RecursionError) as error:
        mark = getattr(error, "problem_mark", None)
        raise InputError(f"{where} is not YAML{f' (line {mark.line + 1})' if mark else ''}") from error
    if not isinstance(given, dict):
        raise InputError(f"{where}: wanted are keys like name, size, sources, targets")
    found = checked(Replication, given, where)
    if problem := _problem(found):
        raise InputError(f"{where}: {problem}")
    return found


def _problem(found: Replication) -> str | None:
    """What the keys of a protocol cannot say one by one."""
    if MATCHED in found.sources and not found.matched_images:
        return f"{MATCHED} needs matched_images, the number of images it is trained on"
    for target in found.targets:
        found.fine_tuning.settings(target)
        if {LEAVE_TARGET_OUT, MATCHED} & set(found.sources) and len(set(found.pool) - {target}) < 2:
            return f"leave-target-out needs a pool of two or more datasets beside the target {target}"
    for name in (*found.sources, *found.targets):
        if max(found.sources.count(name), found.targets.count(name)) > 1:
            return f"{name} is named twice"
    return None
