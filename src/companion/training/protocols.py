"""Protocols: everything that decides how a network is trained, as objects that are checked, compared and shown."""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from dataclasses import replace
from typing import Annotated, Any, Literal, TypeVar

from pydantic import (
    BeforeValidator,
    ConfigDict,
    Field,
    NonNegativeFloat,
    PositiveFloat,
    PositiveInt,
    TypeAdapter,
    ValidationError,
)
from pydantic.dataclasses import dataclass

from companion.datasets.folds import FOLD_SEED, TRAIN_PER_CLASS, VAL_PER_CLASS
from companion.errors import InputError, brief, did_you_mean

SEED = 24  # the paper's
STRICT = ConfigDict(extra="forbid")

Augmenting = Literal["paper", "light", "none"]  # see `companion.training.augmentation`


def _listed(value: Any) -> Any:
    """A single value is a list of one, as people write it in a protocol file."""
    return (value,) if isinstance(value, int | float | str) else value


Grid = TypeVar("Grid")
Several = Annotated[tuple[Grid, ...], BeforeValidator(_listed), Field(min_length=1)]
Fraction = Annotated[float, Field(ge=0, lt=1)]
Seed = Annotated[int, Field(ge=0, lt=2**32)]
# It becomes part of a file's name.
FileName = Annotated[str, Field(pattern=r"^[A-Za-z0-9_][A-Za-z0-9_.-]{0,99}$")]


@dataclass(frozen=True, config=STRICT)
class SourceProtocol:
    """How a network is trained by SGD; a source starts from random weights, and draws every class equally often."""

    name: FileName
    epochs: PositiveInt  # at most
    images_per_epoch: PositiveInt | None = None  # drawn with replacement; None: as many as there are
    batch_size: PositiveInt = 64
    lr: PositiveFloat = 0.02
    momentum: Fraction = 0.9
    nesterov: bool = True  # the authors' source training has plain momentum, their fine-tuning Nesterov
    weight_decay: NonNegativeFloat = 1e-4
    schedule: Literal["cosine", "step"] = "cosine"  # half a cosine to zero, or a tenth every `step_epochs`
    step_epochs: PositiveInt = 15
    # Epochs without a better one on the validation images, for a source one of lower loss; the weights of the best are
    # kept. None: the last are.
    patience: PositiveInt | None = None
    loss: Literal["cross-entropy", "bce"] | None = None  # None: "bce" on multi-hot labels only
    augmentation: Augmenting = "light"


# Real but modest models in well under a minute a dataset on two cores.
QUICK = SourceProtocol("quick", epochs=8, images_per_epoch=768)
STANDARD = SourceProtocol("standard", epochs=15, images_per_epoch=3000, lr=0.05, augmentation="paper")
# The paper's: leave-target-out MedMNIST, and RadImageNet.
PAPER = SourceProtocol(
    "paper",
    epochs=45,
    batch_size=128,
    lr=0.1,
    nesterov=False,
    schedule="step",
    patience=20,
    augmentation="paper",
)
RADIMAGENET = replace(PAPER, name="radimagenet", batch_size=256, patience=10)
SOURCE_PROTOCOLS = {protocol.name: protocol for protocol in (QUICK, STANDARD, PAPER, RADIMAGENET)}


@dataclass(frozen=True, config=STRICT)
class Settings:
    """One point of the fine-tuning grid."""

    lr: float
    momentum: float
    weight_decay: float
    batch_size: int


@dataclass(frozen=True, config=STRICT)
class FineTuning:
    """How a source model is fine-tuned on a target: all layers, SGD, early stopping on validation AUC.

    The grid is `lr`, `momentum`, `weight_decay` and `batch_size`, each a number or a list; every point of it is run on
    each of `folds` with each of `seeds` (of the new head, the order of images, augmentation, dropout and, for random
    weights, the weights).
    """

    name: FileName
    epochs: PositiveInt  # at most, with cosine annealing over them
    patience: PositiveInt  # epochs without a higher validation AUC; the weights of the highest are tested
    lr: Several[PositiveFloat]
    # Or a mapping by target, with "default" for the others.
    batch_size: Several[PositiveInt] | dict[str, Several[PositiveInt]]
    momentum: Several[Fraction] = (0.9,)  # Nesterov, wherever it is not 0
    weight_decay: Several[NonNegativeFloat] = (1e-4,)
    folds: Several[PositiveInt] = (1,)
    seeds: Several[Seed] = (SEED,)
    train_per_class: PositiveInt = TRAIN_PER_CLASS  # of the folds: see `companion.datasets.fold`
    val_per_class: PositiveInt = VAL_PER_CLASS
    fold_seed: Seed = FOLD_SEED
    dropout: Fraction = 0.5  # before the new linear head
    augmentation: Augmenting = "paper"

    def settings(self, target: str) -> list[Settings]:
        """Every point of the grid for one target; an `InputError` where `batch_size` has neither it nor "default"."""
        sizes = self.batch_size
        if isinstance(sizes, dict):
            if target not in sizes and "default" not in sizes:
                raise InputError(
                    f"protocol {self.name!r} gives no batch_size for {target}: name it, or add default"
                )
            sizes = sizes.get(target, sizes.get("default", ()))
        grid = itertools.product(self.lr, self.momentum, self.weight_decay, sizes)
        return [Settings(*point) for point in grid]


_PAPER_BATCHES: dict[str, tuple[int, ...]] = {
    **dict.fromkeys(("breastmnist", "pneumoniamnist"), (32, 64)),
    **dict.fromkeys(("octmnist", "retinamnist"), (64, 128)),
    "chestmnist": (256, 512),
    "default": (128, 256),
}
_FINE_TUNING = (
    FineTuning("quick", epochs=8, patience=8, lr=(0.01,), batch_size=(32,), augmentation="light"),
    FineTuning("standard", epochs=40, patience=12, lr=(0.001, 0.01), batch_size=(32,), folds=(1, 2, 3)),
    FineTuning(
        "paper",
        epochs=200,
        patience=50,
        lr=(1e-5, 1e-4, 1e-3, 1e-2, 1e-1, 1.0),
        momentum=(0.0, 0.9),
        weight_decay=(0.0, 1e-6, 1e-5, 1e-4, 1e-3),
        batch_size=_PAPER_BATCHES,
    ),
)
FINE_TUNING_PROTOCOLS = {protocol.name: protocol for protocol in _FINE_TUNING}

Protocol = TypeVar("Protocol")


def checked(kind: type[Protocol], given: Mapping[str, Any], where: str) -> Protocol:
    """Build a protocol; an `InputError` names every key that is unknown, missing or has an impossible value."""
    try:
        return TypeAdapter(kind).validate_python(given)
    except ValidationError as error:
        known = list(getattr(kind, "__dataclass_fields__", {}))
        said = dict.fromkeys(_explain(item, known) for item in error.errors())
        raise InputError(f"{where}: " + "; ".join(said)) from None


def _explain(item: Mapping[str, Any], known: list[str]) -> str:
    path = ".".join(
        str(part) for part in item["loc"] if not str(part).startswith(("tuple", "dict", "Several"))
    )
    if item["type"] in ("unexpected_keyword_argument", "extra_forbidden"):
        return f"unknown key {path!r}.{did_you_mean(str(item['loc'][-1]), known)}"
    if item["type"] in ("missing", "missing_argument"):
        return f"key {path!r} is missing"
    reason = item["msg"].removeprefix("Value error, ")
    return f"{path} is {brief(item['input'])}: {reason[0].lower()}{reason[1:]}"
