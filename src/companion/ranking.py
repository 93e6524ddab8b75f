"""Score sources for one target, combine, and say what the order is worth.

The combined score is relative to its pool. Sources of one architecture and different pre-training form one
pool; different architectures with one pre-training form another, in which the paper turns both terms round.
The two are never merged.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from companion import scores as score_room
from companion import store
from companion.datasets import Dataset, Fold, load_dataset
from companion.errors import InputError, did_you_mean
from companion.models import SourceModel, best_device
from companion.scores import COMBINED, TERMS, combine, min_max
from companion.scores._gradient import single_pass
from companion.sources import check_name, load_source
from companion.training import SEED

PAPER_SCORES = ("nca", "gradient_ratio", "logme", "parc", "sfda", "ncti", "leep", "nleep")
SMALLEST_POOL = 4

Progress = Callable[[float, str], None]


class Card(Mapping[str, float]):
    """Scores of one source for one target, by name.

    Attributes
    ----------
    reasons
        Why a score is NaN, by name.
    ncti_terms
        The three terms of NCTI, which become a score only within a pool; None where not computed.
    features, labels
        (n, d) penultimate features and (n,) labels they were computed from.
    provenance
        Versions, seed, device, data hash and what the source is.
    """

    def __init__(self, values: dict[str, float], reasons: dict[str, str], **about: Any) -> None:
        self._values = values
        self.reasons = reasons
        self.ncti_terms = about.get("ncti_terms")
        self.features: np.ndarray = about["features"]
        self.labels: np.ndarray = about["labels"]
        self.provenance: dict[str, Any] = about["provenance"]

    def __getitem__(self, name: str) -> float:
        return self._values[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._values)

    def __len__(self) -> int:
        return len(self._values)

    def __repr__(self) -> str:
        return "Card(" + ", ".join(f"{name}={value:.4g}" for name, value in self._values.items()) + ")"


def score(
    model: SourceModel | str,
    dataset: Dataset | str,
    *,
    scores: Sequence[str] = PAPER_SCORES,
    variant: str = "corrected",
    per_class: int = 100,
    seed: int = SEED,
    device: str | None = None,
    fold: Fold | None = None,
) -> Card:
    """Score one source for one target, everything from one pass over the images.

    Parameters
    ----------
    model, dataset
        As `load_source` and `load_dataset` return them, or names for these.
    scores
        Names from `companion.scores.REGISTRY`.
    variant
        ``"corrected"`` or ``"published"``, for the scores that have both.
    per_class
        At most this many times the number of classes training images are scored, drawn with `seed`.
    device
        Where the network runs; the fastest there is by default.
    fold
        Score the training images of this fold, in its order, as the paper does; `per_class` is then without effect.

    Returns
    -------
    Card
        Mapping from score to value; NaN where one is not applicable, with the reason in ``reasons``.

    Raises
    ------
    InputError
        If a score is unknown, or the dataset cannot be scored (several labels an image, too few images).
    """
    unknown = [name for name in scores if name not in score_room.REGISTRY]
    if unknown:
        raise InputError(f"no score {unknown[0]!r}.{did_you_mean(unknown[0], score_room.REGISTRY)}")
    dataset = load_dataset(dataset) if isinstance(dataset, str) else dataset
    model = load_source(model, seed=seed) if isinstance(model, str) else model
    chosen = best_device(device)
    if fold is None:
        images, labels = dataset.draw(per_class, seed=seed)
    else:
        images, labels = dataset.images["train"][fold.train], dataset.labels["train"][fold.train]
    passed = single_pass(model, images, labels, device=chosen)
    values: dict[str, float] = {}
    reasons: dict[str, str] = {}
    terms = None
    arrays = [name for name in scores if name != "gradient_ratio"]
    if arrays:
        try:
            result = score_room.suite(
                passed.features, labels, passed.logits, names=arrays, variant=variant, random_state=seed
            )
        except ValueError as error:
            raise InputError(f"{model.name} on {dataset.name}: {error}") from error
        values |= dict(result)
        reasons |= result.reasons
        terms = result.terms
    if "gradient_ratio" in scores:
        try:
            if model.first_conv is None:
                raise ValueError(f"{model.architecture} has no two convolutions")
            values["gradient_ratio"] = passed.ratio(variant)
        except ValueError as error:
            values["gradient_ratio"], reasons["gradient_ratio"] = float("nan"), str(error)
    for name in scores:
        if name not in values and not score_room.REGISTRY[name].pooled:
            values[name] = float("nan")
            reasons.setdefault(name, "not applicable")
    record = store.provenance(
        seed=seed,
        device=str(chosen),
        data={dataset.name: dataset.content_hash},
        images=len(labels),
        variant=variant,
        source=model.name,
        source_provenance=model.provenance,
    )
    ordered = {name: values[name] for name in scores if name in values}
    return Card(
        ordered, reasons, ncti_terms=terms, features=passed.features, labels=labels, provenance=record
    )


@dataclass(frozen=True)
class Pool:
    """Sources that can be ranked against each other."""

    kind: str
    """``"source_datasets"`` (one architecture) or ``"architectures"`` (one pre-training)."""
    of: str
    """The architecture or the pre-training they share."""
    members: tuple[int, ...]
    """Positions in the list of sources."""

    @property
    def title(self) -> str:
        """One line for people."""
        if self.kind == "architectures":
            return f"architectures pre-trained on {self.of}"
        return f"{self.of}, different pre-training"


def pools(models: Sequence[SourceModel]) -> list[Pool]:
    """Group models into pools; one that shares nothing with another is a pool of its own."""
    found: list[Pool] = []
    for kind, same, other in (
        ("source_datasets", "architecture", "pretraining"),
        ("architectures", "pretraining", "architecture"),
    ):
        for shared in dict.fromkeys(getattr(model, same) for model in models):
            members = tuple(i for i, model in enumerate(models) if getattr(model, same) == shared)
            if len({getattr(models[i], other) for i in members}) > 1:
                found.append(Pool(kind, shared, members))
    pooled = {index for pool in found for index in pool.members}
    alone = [i for i in range(len(models)) if i not in pooled]
    for architecture in dict.fromkeys(models[i].architecture for i in alone):
        members = tuple(i for i in alone if models[i].architecture == architecture)
        found.append(Pool("source_datasets", architecture, members))
    return found


def pooled_ncti(terms: np.ndarray, *, variant: str = "corrected") -> np.ndarray:
    """NCTI of the sources of one pool from their three terms.

    Parameters
    ----------
    terms
        (sources, 3); NaN rows where a source has none.
    variant
        ``"corrected"`` subtracts the third term, as its authors define it; ``"published"`` adds it, as the
        paper's release does.

    Returns
    -------
    numpy.ndarray
        (sources,); NaN where a term is constant over the pool.
    """
    first, second, third = (min_max(column) for column in np.asarray(terms, dtype=float).T)
    return first + second + (third if variant == "published" else -third)


def rank_pool(cards: pd.DataFrame, *, kind: str) -> tuple[pd.DataFrame, str]:
    """Combine one pool's terms and order its rows, or say why there is no order.

    Parameters
    ----------
    cards
        One row per source with the columns ``nca`` and ``gradient_ratio``.
    kind
        ``"source_datasets"`` or ``"architectures"`` (both terms turned round).

    Returns
    -------
    table : pandas.DataFrame
        The rows, best first, with ``rank``, ``proposed``, ``gap`` (lead over the next) and ``order``. Where
        the order is undetermined ``rank`` is missing and the rows stay as they were given.
    reason : str
        Why the order is undetermined, or what of it is; empty where all of it is determined.
    """
    table = cards.copy()
    table[COMBINED] = combine(table["nca"], table["gradient_ratio"], invert=kind == "architectures")
    table["rank"] = pd.array([pd.NA] * len(table), dtype="Int64")
    table["gap"], table["order"] = np.nan, "undetermined"
    missing = [term for term in TERMS if table[term].isna().any()]
    constant = [term for term in TERMS if not missing and table[term].nunique() < 2]
    if len(table) < SMALLEST_POOL:
        return (
            table,
            f"{len(table)} source(s) in the pool, and the combined score needs {SMALLEST_POOL} to mean anything",
        )
    if missing:
        return table, f"{missing[0]} is not defined for every source"
    if constant:
        return table, f"{constant[0]} is the same for every source"
    table = table.sort_values(COMBINED, ascending=False, kind="stable")
    values = table[COMBINED].to_numpy()
    tied = pd.Series(values).duplicated(keep=False).to_numpy()
    table["rank"] = pd.Series(-values).rank(method="min").astype("Int64").to_numpy()
    table["order"] = np.where(tied, "undetermined", "determined")
    table["gap"] = np.append(values[:-1] - values[1:], np.nan)
    if (tied & (values > 0)).any():
        names = ", ".join(table["source"][tied & (values > 0)]) if "source" in table else "sources"
        table["rank"] = pd.array([pd.NA] * len(table), dtype="Int64")
        table["order"] = "undetermined"
        return table, f"{names} have the same combined score"
    if tied.any():
        # The lowest source in either term has 0, so two at 0 are the rule and say nothing about each other.
        return table, "the last ones are tied at 0: each is the lowest of the pool in one of the two terms"
    return table, ""


def _same_data(model: SourceModel, dataset: Dataset) -> bool:
    known = model.provenance.get("data_hash")
    return known == dataset.content_hash if known else model.pretraining == dataset.name


def rank(
    target: str | os.PathLike | Dataset,
    sources: Sequence[str | os.PathLike | SourceModel],
    *,
    size: int | None = None,
    seed: int = SEED,
    per_class: int = 100,
    scores: Sequence[str] = PAPER_SCORES,
    variant: str = "corrected",
    architecture: str = "resnet18",
    device: str | None = None,
    data_dir: str | os.PathLike | None = None,
    trust: bool = False,
    progress: Progress | None = None,
) -> pd.DataFrame:
    """Rank source models for a target dataset without fine-tuning any of them.

    Parameters
    ----------
    target, size, data_dir, trust
        As for `load_dataset`.
    sources
        As for `load_source`, at least two.
    seed
        Seed of the draw of images, of random weights and of training.
    per_class, scores, variant, device
        As for `score`; the proposed score's two terms are always computed.
    architecture
        Of ``"imagenet"``, ``"scratch"``, ``"train:…"`` and checkpoints that do not say theirs.
    progress
        Called with the fraction done and a line of text.

    Returns
    -------
    pandas.DataFrame
        One row per source and pool, best first in each pool: ``pool``, ``rank``, ``source``, ``proposed``,
        ``gap``, ``order``, the scores, ``architecture``, ``pretraining``, ``note``. ``attrs["pools"]`` says of
        each pool what it is and what its order is worth; ``attrs["provenance"]`` how it was made.

    Raises
    ------
    InputError
        If target or sources cannot be used.
    SurroundingsError
        If data or weights cannot be had.
    """
    began = time.perf_counter()
    names = [source.name if isinstance(source, SourceModel) else os.fspath(source) for source in sources]
    if len(names) < 2:
        raise InputError(f"a ranking needs at least two sources: got {len(names)}")
    doubled = next((name for name in names if names.count(name) > 1), None)
    if doubled:
        raise InputError(f"source {doubled!r} is named twice")
    report = progress or (lambda fraction, text: None)
    report(0.0, f"loading {target if not isinstance(target, Dataset) else target.name}")
    dataset = (
        target
        if isinstance(target, Dataset)
        else load_dataset(target, size=size, data_dir=data_dir, trust=trust)
    )
    # An unusable target, or a source that does not exist, is told before any model is loaded or trained.
    dataset.draw(per_class, seed=seed)
    with store.data_directory(data_dir):
        for name in (source for source in sources if not isinstance(source, SourceModel)):
            check_name(name)
    wanted = list(dict.fromkeys([*TERMS, *scores]))
    rows, terms, models = [], [], []
    for index, source in enumerate(sources):
        base = index / len(names)

        def step(fraction: float, text: str, base: float = base) -> None:
            report(base + 0.8 * fraction / len(names), text)

        step(0.0, f"{names[index]}: loading")
        model = (
            source
            if isinstance(source, SourceModel)
            else load_source(
                source,
                target=dataset.name,
                architecture=architecture,
                size=dataset.size if dataset.size <= 64 else 64,
                seed=seed,
                device=device,
                data_dir=data_dir,
                trust=trust,
                progress=step,
            )
        )
        report(base + 0.8 / len(names), f"{names[index]}: scoring")
        card = score(
            model, dataset, scores=wanted, variant=variant, per_class=per_class, seed=seed, device=device
        )
        models.append(model)
        terms.append(card.ncti_terms if card.ncti_terms is not None else (np.nan,) * 3)
        notes = [f"{name}: {reason.removeprefix(f'{name}: ')}" for name, reason in card.reasons.items()]
        rows.append(
            {
                "source": names[index],
                **card,
                "architecture": model.architecture,
                "pretraining": model.pretraining,
                "note": "; ".join(notes),
            }
        )
    report(1.0, "done")
    table = _assemble(pd.DataFrame(rows), models, np.array(terms, dtype=float), dataset, variant=variant)
    table.attrs["target"] = repr(dataset)
    table.attrs["synthetic"] = _synthetic_note(dataset, models)
    table.attrs["provenance"] = store.provenance(
        seed=seed,
        device=str(best_device(device)),
        data={dataset.name: dataset.content_hash},
        variant=variant,
        images=min(per_class * dataset.n_classes, len(dataset.labels["train"])),
        sources={name: model.provenance for name, model in zip(names, models, strict=True)},
        seconds=round(time.perf_counter() - began, 2),
    )
    return table


def _synthetic_note(dataset: Dataset, models: Sequence[SourceModel]) -> str:
    """Say what of a ranking rests on synthetic images; the empty string where nothing does."""
    learnt = sum(bool(model.provenance.get("synthetic")) for model in models)
    if dataset.synthetic:
        return "synthetic images"
    return f"{learnt} of {len(models)} sources learnt from synthetic images" if learnt else ""


def _assemble(
    cards: pd.DataFrame, models: list[SourceModel], terms: np.ndarray, dataset: Dataset, *, variant: str
) -> pd.DataFrame:
    itself = [index for index, model in enumerate(models) if _same_data(model, dataset)]
    candidates = [index for index in range(len(models)) if index not in itself]
    parts, described = [], []
    for pool in pools([models[index] for index in candidates]):
        members = [candidates[position] for position in pool.members]
        block = cards.iloc[members].copy()
        if np.isfinite(terms[members]).any():
            block["ncti"] = pooled_ncti(terms[members], variant=variant)
        ranked, reason = rank_pool(block, kind=pool.kind)
        ranked.insert(0, "pool", pool.title)
        parts.append(ranked)
        determined = bool(ranked["rank"].notna().any())
        described.append(
            {
                "pool": pool.title,
                "kind": pool.kind,
                "sources": len(members),
                "order": "determined" if determined else "undetermined",
                "reason": reason,
            }
        )
    if itself:
        left_out = cards.iloc[itself].copy()
        left_out.insert(0, "pool", "left out: trained on the target itself")
        left_out["order"] = "undetermined"
        parts.append(left_out)
        described.append(
            {
                "pool": "left out: trained on the target itself",
                "kind": "left_out",
                "sources": len(itself),
                "order": "undetermined",
                "reason": "features learnt from the target's own images flatter every score",
            }
        )
    table = pd.concat(parts, ignore_index=True)
    table["rank"] = table["rank"].astype("Int64")
    first = ["pool", "rank", "source", COMBINED, "gap", "order", *TERMS]
    last = ["architecture", "pretraining", "note"]
    middle = [column for column in table.columns if column not in (*first, *last)]
    table = table.reindex(columns=[*first, *middle, *last])
    table.attrs["pools"] = described
    return table
