"""Rank many sources for one target: `rank`, and the `Ranking` that it returns."""

from __future__ import annotations

import os
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from companion import store
from companion.datasets import Dataset, load_dataset
from companion.errors import InputError
from companion.models import SourceModel, best_device, check_architecture
from companion.ranking import report
from companion.ranking.candidates import default_sources
from companion.ranking.scoring import DEFAULT_SCORES, Scored, score_source
from companion.ranking.sets import ALWAYS, COMBINED, FEATURE_RANK, CandidateSet, candidate_sets
from companion.ranking.verification import PROTOCOL, RUNS, Verification
from companion.scores import PAPER_SCORE
from companion.scores.registry import check_scores
from companion.sources import Source, by_name, learnt_from, load_source
from companion.training import FINE_TUNING_PROTOCOLS, SEED
from companion.training.loop import Report, part_of

if TYPE_CHECKING:
    from companion.ranking.stability import Stability

# Seconds of training and evaluating over seconds of the pass, an image: from 1.5 at 64 px and more to 4 at 28 px.
STEP_OVER_PASS = 2.5


@dataclass(frozen=True, repr=False)
class Ranking:
    """Source models in order for one target: what `rank` returns, and shows itself as a table.

    Attributes
    ----------
    sets
        Candidate sets, each with its own order.
    dataset, sources
        The target, and all sources named, by their names in the tables.
    scored
        One record a source, in the order in which they were named.
    drawn
        Indices of the training images that were scored, in their order.
    loading, scoring
        The options with which sources were loaded and scored: see `load_source` and `score`.
    seconds, provenance
        What that took, how it came about.
    left_out
        Sources that were trained on the target itself, or are no default candidates -> the reason.
    stability, verification
        As `companion.ranking.stability` and `companion.ranking.verify` return them; None where not asked for.
    """

    sets: Sequence[CandidateSet]
    dataset: Dataset
    sources: Mapping[str, Source]
    scored: Sequence[Scored]
    drawn: np.ndarray
    loading: Mapping[str, Any]
    scoring: Mapping[str, Any]
    seconds: float
    provenance: dict[str, Any]
    left_out: Mapping[str, str] = field(default_factory=dict)
    stability: Stability | None = None
    verification: Verification | None = None

    @property
    def table(self) -> pd.DataFrame:
        """One row per source and candidate set, best first in each.

        ``candidate_set``, ``rank``, ``source``, ``combined`` (what the order goes by: NCA and the scale-invariant
        gradient ratio, among architectures the paper's form), ``gap``, ``order``, ``feature_rank``, ``proposed`` (the
        paper's form), the scores, ``architecture``, ``pretraining``, ``note``.
        """
        parts = [one.table.assign(candidate_set=one.title) for one in self.sets]
        table = pd.concat(parts, ignore_index=True)
        table["note"] = ["; ".join(self.remarks[name]) for name in table["source"]]
        first = ["candidate_set", "rank", "source", COMBINED, "gap", "order", FEATURE_RANK, PAPER_SCORE]
        last = ["architecture", "pretraining", "note"]
        return table[[*first, *table.columns.difference([*first, *last], sort=False), *last]]

    @property
    def best(self) -> CandidateSet:
        """The candidate set that the recommendation is about: the largest, one with an order before all others."""
        return max(self.sets, key=lambda one: (one.ordered, len(one.advised)))

    def first(self, count: int) -> list[str]:
        """Name the first `count` sources of the set that the recommendation is about; see `CandidateSet.advised`."""
        return self.best.advised[:count]

    @property
    def remarks(self) -> dict[str, Sequence[str]]:
        """Source -> what to know of its scores."""
        return {one.name: one.remarks for one in self.scored}

    @property
    def synthetic(self) -> str:
        """What of the ranking rests on synthetic images; empty where nothing does."""
        if self.dataset.synthetic:
            return "synthetic images"
        learnt = sum(bool(one.provenance.get("synthetic")) for one in self.scored)
        return f"{learnt} of {len(self.scored)} sources learnt from synthetic images" if learnt else ""

    def fine_tuning_seconds(self, protocol: str, names: Iterable[str] | None = None) -> float:
        """Seconds, about, that fine-tuning `names` (else all sources) once each takes, by those of the pass.

        `protocol` is ``"quick"``, ``"standard"`` or ``"paper"``.
        """
        plan, dataset = FINE_TUNING_PROTOCOLS[protocol], self.dataset
        train = min(len(dataset.labels["train"]), plan.train_per_class * dataset.n_classes)
        asked = set(self.sources if names is None else names)
        passes = sum(one.seconds["network"] for one in self.scored if one.name in asked)
        return passes / len(self.drawn) * plan.epochs * train * STEP_OVER_PASS

    def stability_seconds(self, repeats: int) -> float:
        """Seconds, about, that `companion.ranking.stability` takes: scoring half of the images, so often."""
        spent = (one.seconds["scoring"] for one in self.scored if one.name in self.best.advised)
        return repeats / 2 * sum(spent)

    def verification_seconds(self, count: int) -> float:
        """Seconds, about, that `companion.ranking.verify` takes."""
        return RUNS * self.fine_tuning_seconds(PROTOCOL, self.first(count))

    def load(self, name: str) -> SourceModel:
        """Load a source again, by its name in the tables."""
        return replace(load_source(self.sources[name], **self.loading), name=name)

    recommendation = cached_property(report.recommendation)
    sections = cached_property(report.sections)
    as_document = report.as_document
    save = report.save
    __str__ = __repr__ = report.as_text
    _repr_html_ = report.as_html


def rank(
    target: str | os.PathLike | Dataset,
    sources: Source | Sequence[Source] | Mapping[str, Source] | None = None,
    *,
    size: int | None = None,
    seed: int = SEED,
    per_class: int = 100,
    scores: Sequence[str] = DEFAULT_SCORES,
    variant: str = "corrected",
    architecture: str = "resnet18",
    device: str | None = None,
    trust: bool = False,
    progress: Report | None = None,
) -> Ranking:
    """Rank source models for a target dataset without fine-tuning any of them.

    Parameters
    ----------
    target, size
        A dataset, or its name and one of the options of `load_dataset`, which has more.
    sources, trust
        As for `load_source`; at least two, or a mapping of names to them. None takes those that can be had here without
        a download, see `companion.ranking.default_sources`.
    seed
        Seed of the draw of images, of random weights and of training.
    per_class, scores, variant, device
        As for `score`; the terms of the combined score and the scores of features are always computed.
    architecture
        Of ``"imagenet"``, ``"scratch"``, ``"train:…"`` and checkpoints that fit it and do not say theirs.
    progress
        Called with the fraction done and a line of text.

    Raises
    ------
    InputError
        If target or sources cannot be used.
    EnvironmentFailure
        If data or weights cannot be had.
    """
    began = time.perf_counter()
    tell = progress or (lambda fraction, text: None)
    wanted = list(dict.fromkeys([*ALWAYS, *scores]))
    check_scores(wanted)
    check_architecture(architecture)
    named = None if sources is None else by_name(sources)
    device = str(best_device(device))
    if not isinstance(target, Dataset):
        tell(0.0, f"loading {os.fspath(target)}")
        target = load_dataset(target, size=size, progress=lambda line: tell(0.0, line))
    left_out: dict[str, str] = {}
    if named is None:
        chosen, left_out = default_sources(target.name, architecture=architecture, seed=seed, progress=tell)
        named = by_name(chosen)
    # Drawn once for all sources; an unusable target is reported before any is loaded or trained.
    images, labels = target.draw(per_class, seed=seed)
    how: dict[str, Any] = {"seed": seed, "device": device}
    loading = how | {"target": target.name, "architecture": architecture, "trust": trust}
    scoring = how | {"variant": variant}
    scored: list[Scored] = []
    for index, (name, source) in enumerate(named.items()):
        step, started = part_of(tell, index, len(named)), time.perf_counter()
        step(0.0, f"{name}: loading ({index + 1} of {len(named)})")
        model = replace(load_source(source, progress=part_of(step, 0, 2), **loading), name=name)
        if learnt_from(model, target):
            left_out[name] = "trained on the target itself, which flatters every score"
            continue
        step(0.5, f"{name}: scoring")
        scored.append(score_source(model, images, labels, scores=wanted, **scoring))
        took = time.perf_counter() - started
        to_go = (time.perf_counter() - began) / (index + 1) * (len(named) - index - 1)
        step(1.0, f"{name}: scored in {took:.1f} s, about {to_go:.0f} s to go")
    if len(scored) < 2:
        few = f"only {len(scored)} of {len(named)} sources did not learn from {target.name} itself"
        raise InputError(f"{few}, and a ranking needs at least two: name others")
    seconds = time.perf_counter() - began
    record = store.provenance(
        seed=seed,
        device=device,
        data={target.name: target.content_hash},
        variant=variant,
        images=len(labels),
        sources={one.name: one.provenance for one in scored},
        seconds=round(seconds, 2),
    )
    return Ranking(
        sets=candidate_sets(scored, variant=variant),
        dataset=target,
        sources=named,
        scored=scored,
        drawn=target.drawn(per_class, seed=seed),
        loading=loading,
        scoring=scoring,
        seconds=seconds,
        provenance=record,
        left_out=left_out,
    )
