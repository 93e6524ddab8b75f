"""Rank many sources for one target: `rank`, and the `Ranking` that it returns."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from companion import store
from companion.datasets import Dataset, in_several_splits, load_dataset, too_few
from companion.errors import InputError
from companion.models import best_device, check_architecture
from companion.ranking import report
from companion.ranking.candidates import Candidate, default_sources
from companion.ranking.scoring import DEFAULT_SCORES, Scored, score_source
from companion.ranking.sets import ALWAYS, COMBINED, LEFT_OUT, CandidateSet, candidate_sets, order
from companion.scores import PAPER_SCORE, combine_ncti
from companion.scores.registry import check_scores
from companion.sources import Source, by_name, load_source
from companion.training import FINE_TUNING_PROTOCOLS, SEED
from companion.training.loop import Report
from companion.tuning import part_of

if TYPE_CHECKING:
    from companion.ranking.stability import Stability
    from companion.ranking.verification import Verification

# Seconds of training over seconds of the pass, an image; evaluation costs a quarter of that. Measured with one thread
# of a processor: ResNet-18 1.6 to 1.8 from 64 to 224 px, ResNet-50 1.6 and MobileNetV2 1.2 at 64 px; at 28 px 3.4, 2.3
# and 2.7, where the pass shrinks and the optimiser's step over the weights does not.
STEP_OVER_PASS, STEP_OVER_PASS_SMALL = 1.7, 3.0


@dataclass(frozen=True, repr=False)
class Ranking:
    """Source models in order for one target: what `rank` returns, and shows itself as a table.

    Attributes
    ----------
    sets
        Candidate sets, each with its own order; the last holds the sources that were trained on the target itself.
    dataset, sources
        The target, and the sources by their names in the tables.
    scored
        One record a source, in the order in which they were named.
    per_class, loading, scoring
        As for `rank`, and the options with which sources were loaded and scored: see `load_source` and `score`.
    notes
        What to know of the target.
    images, seconds, peak_memory_gb, provenance
        How many images were scored, what that took (memory: None where the system does not say), how it came about.
    left_out
        Sources that are no default candidates, with the reasons; empty where sources were named.
    stability, verification
        As `companion.ranking.stability` and `companion.ranking.verify` return them; None where not asked for.
    """

    sets: Sequence[CandidateSet]
    dataset: Dataset
    sources: Mapping[str, Source]
    scored: Sequence[Scored]
    per_class: int
    loading: Mapping[str, Any]
    scoring: Mapping[str, Any]
    notes: list[str]
    images: int
    seconds: float
    peak_memory_gb: float | None
    provenance: dict[str, Any]
    left_out: Sequence[Candidate] = ()
    stability: Stability | None = None
    verification: Verification | None = None

    @property
    def table(self) -> pd.DataFrame:
        """One row per source and candidate set, best first in each.

        ``candidate_set``, ``rank``, ``source``, ``combined`` (what the order goes by: NCA and the scale-invariant
        gradient ratio, among architectures the paper's form), ``gap``, ``order``, ``feature_rank``, ``proposed`` (the
        paper's form), the scores, ``architecture``, ``pretraining``,
        ``note``.
        """
        parts = [one.table.assign(candidate_set=one.title) for one in self.sets]
        table = pd.concat(parts, ignore_index=True)
        table["note"] = ["; ".join(self.remarks[name]) for name in table["source"]]
        first = ["candidate_set", "rank", "source", COMBINED, "gap", "order", "feature_rank", PAPER_SCORE]
        last = ["architecture", "pretraining", "note"]
        return table[[*first, *table.columns.difference([*first, *last], sort=False), *last]]

    @property
    def best(self) -> CandidateSet | None:
        """The candidate set that the recommendation is about: the largest, one with an order before all others."""
        advised = (one for one in self.sets if one.advised)
        return max(advised, key=lambda one: (one.ordered, len(one.table)), default=None)

    def first(self, count: int) -> list[str]:
        """Name the first `count` sources of the set that the recommendation is about; see `CandidateSet.advised`.

        Raises
        ------
        InputError
            If there is none.
        """
        if self.best is None:
            raise InputError("every source was trained on the target itself: name others to compare")
        return self.best.advised[:count]

    @property
    def remarks(self) -> dict[str, list[str]]:
        """Source -> what to know of its scores."""
        return {one.name: list(one.remarks) for one in self.scored}

    @property
    def synthetic(self) -> str:
        """What of the ranking rests on synthetic images; empty where nothing does."""
        if self.dataset.synthetic:
            return "synthetic images"
        learnt = sum(bool(one.provenance.get("synthetic")) for one in self.scored)
        return f"{learnt} of {len(self.scored)} sources learnt from synthetic images" if learnt else ""

    @property
    def cost(self) -> dict[str, Any]:
        """``seconds`` and ``peak_memory_gb`` of the whole, ``images`` scored, ``by_source`` as `Scored.seconds`."""
        whole = {"seconds": self.seconds, "peak_memory_gb": self.peak_memory_gb, "images": self.images}
        return whole | {"by_source": {one.name: one.seconds for one in self.scored}}

    def fine_tuning_seconds(self, protocol: str, names: Iterable[str] | None = None) -> float:
        """Seconds that fine-tuning sources once each will take, estimated from the ranking's own pass.

        Parameters
        ----------
        protocol
            ``"quick"``, ``"standard"`` or ``"paper"``.
        names
            Sources; all of them by default.
        """
        plan, dataset = FINE_TUNING_PROTOCOLS[protocol], self.dataset
        n_train, n_val, n_test = (len(dataset.labels.get(split, ())) for split in ("train", "val", "test"))
        train = min(n_train, plan.train_per_class * dataset.n_classes)
        val = min(n_val, plan.val_per_class * dataset.n_classes)
        factor = STEP_OVER_PASS if dataset.size >= 64 else STEP_OVER_PASS_SMALL
        images = (plan.epochs * (train + val / 4) + n_test / 4) * factor
        asked = set(self.sources if names is None else names)
        passes = sum(one.seconds["network"] for one in self.scored if one.name in asked)
        return passes / self.images * images

    as_document = report.as_document
    save = report.save
    __str__ = __repr__ = report.as_text
    _repr_html_ = report.as_html


def rank(
    target: str | os.PathLike | Dataset,
    sources: Source | Sequence[Source] | None = None,
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
        As for `load_source`; at least two. None takes those that can be had here without a download, see
        `companion.ranking.default_sources`.
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
    left_out: list[Candidate] = []
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
        step, left = part_of(tell, index, len(named)), len(named) - index - 1
        step(0.0, f"{name}: loading ({index + 1} of {len(named)})")
        model = partial(load_source, source, progress=step, **loading)
        scored.append(score_source(name, model, images, labels, scores=wanted, progress=step, **scoring))
        to_go = (time.perf_counter() - began) / (index + 1) * left
        took = scored[-1].seconds["loading"] + scored[-1].seconds["scoring"]
        step(1.0, f"{name}: scored in {took:.1f} s, about {to_go:.0f} s to go")
    sets, notes = _sets(scored, target, variant), _notes(target)
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
    spent = len(labels), seconds, _peak_memory()
    return Ranking(sets, target, named, scored, per_class, loading, scoring, notes, *spent, record, left_out)


def _sets(scored: Sequence[Scored], dataset: Dataset, variant: str) -> list[CandidateSet]:
    """Put the sources of each candidate set in order; those trained on the target itself stand apart."""
    own = [one for one in scored if one.learnt_from(dataset)]
    others = [one for one in scored if not one.learnt_from(dataset)]
    sets = []
    for kind, title, places in candidate_sets(others):
        members = [others[place] for place in places]
        block = _block(members)
        terms = np.array([one.scores.ncti_terms or (np.nan,) * 3 for one in members])
        if kind != "mixed" and np.isfinite(terms).any():
            block["ncti"] = combine_ncti(terms, variant=variant)
        table, reason = order(block, kind=kind)
        sets.append(CandidateSet(kind, title, table, reason, tuple(_warnings(members))))
    if own:
        blank = dict.fromkeys((COMBINED, PAPER_SCORE, "feature_rank", "gap"), np.nan)
        table = _block(own).assign(order="undetermined", rank=pd.array([pd.NA] * len(own), "Int64"), **blank)
        reason = "features learnt from the target's own images flatter every score"
        sets.append(CandidateSet("left_out", LEFT_OUT, table, reason))
    return sets


def _block(members: Sequence[Scored]) -> pd.DataFrame:
    rows = [
        {"source": one.name, **one.scores, "architecture": one.architecture, "pretraining": one.pretraining}
        for one in members
    ]
    return pd.DataFrame(rows)


def _warnings(members: Sequence[Scored]) -> list[str]:
    """Warn where the gradient ratio as published cannot be compared, since it depends on how a network is written."""
    warnings = []
    for what, key in (
        ("images normalised otherwise", "normalisation"),
        ("networks without batch norm beside networks with it", "batch_norm"),
    ):
        groups: dict[Any, list[str]] = {}
        for one in members:
            groups.setdefault(getattr(one, key), []).append(one.name)
        if len(groups) > 1:
            rarest = min(groups.values(), key=len)
            warnings.append(
                f"{what} ({', '.join(rarest)}): the gradient ratio in the paper's form depends on that, the "
                "scale-invariant one does not"
            )
    return warnings


def _notes(dataset: Dataset) -> list[str]:
    notes = [*dataset.notes, *too_few({split: dataset.class_counts(split) for split in dataset.labels})]
    if shared := in_several_splits(dataset):
        notes.append(
            f"{shared} image(s) lie in more than one split: the scores use training images only, but what fine-tuning "
            "is tested on has been seen; companion inspect lists them"
        )
    return notes


def _peak_memory() -> float | None:
    """Largest memory this process has held so far, in GB; None where the system does not say (Windows)."""
    try:
        import resource
    except ImportError:
        return None
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / 1e9 if sys.platform == "darwin" else peak / 1e6  # bytes there, kilobytes elsewhere
