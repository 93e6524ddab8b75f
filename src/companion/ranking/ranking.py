"""Rank many sources for one target: `rank`, and the `Ranking` that it returns."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from torch import nn

from companion import store
from companion.datasets import Dataset, in_several_splits, load_dataset, too_few
from companion.errors import InputError
from companion.models import SourceModel, best_device, check_architecture, extended, from_module
from companion.ranking.scoring import DEFAULT_SCORES
from companion.ranking.sets import (
    FEATURE_SCORES,
    LEFT_OUT,
    RECOMMENDED,
    SCALE_INVARIANT,
    CandidateSet,
    candidate_sets,
    order,
)
from companion.scores import COMBINED, TERMS, Scores, combine_ncti
from companion.scores.from_images import score_images
from companion.scores.registry import check_scores
from companion.sources import called, check_name, load_source, read_sources
from companion.training import FINE_TUNING_PROTOCOLS, SEED

if TYPE_CHECKING:
    from companion.ranking.candidates import Candidate
    from companion.ranking.stability import Stability
    from companion.ranking.verification import Verification

Progress = Callable[[float, str], None]
Source = str | os.PathLike | SourceModel | nn.Module
ALWAYS = tuple(dict.fromkeys((*TERMS, SCALE_INVARIANT, *FEATURE_SCORES)))
# Seconds of training over seconds of the pass, an image; evaluation costs a quarter of that. Measured with one thread
# of a processor: ResNet-18 1.6 to 1.8 from 64 to 224 px, ResNet-50 1.6 and MobileNetV2 1.2 at 64 px; at 28 px 3.4, 2.3
# and 2.7, where the pass shrinks and the optimiser's step over the weights does not.
STEP_OVER_PASS, STEP_OVER_PASS_SMALL = 1.7, 3.0


@dataclass(frozen=True)
class Options:
    """How a ranking was made, so that it can be made again on parts of the images."""

    per_class: int
    variant: str
    architecture: str
    seed: int
    device: str
    trust: bool

    def load(self, source: Source, dataset: Dataset, progress: Progress | None = None) -> SourceModel:
        """Load a source as it is ranked for `dataset`: see `companion.load_source`."""
        if isinstance(source, SourceModel):
            return source
        if isinstance(source, nn.Module):
            return from_module(source)
        return load_source(
            source,
            target=dataset.name,
            architecture=self.architecture,
            seed=self.seed,
            device=self.device,
            trust=self.trust,
            progress=progress,
        )

    def score(
        self, model: SourceModel, images: np.ndarray, labels: np.ndarray, scores: Sequence[str]
    ) -> Scores:
        """Score a source on some of the target's images."""
        return score_images(
            model, images, labels, scores=scores, variant=self.variant, seed=self.seed, device=self.device
        )


@dataclass(frozen=True, repr=False)
class Ranking:
    """Source models in order for one target: what `rank` returns, and shows itself as a table.

    Attributes
    ----------
    sets
        Candidate sets, each with its own order; the last holds the sources that were trained on the target itself.
    dataset, sources, options
        The target, the sources by their names in the tables, and how they were ranked.
    origins
        Where each source comes from: ``source``, ``origin``, ``licence``, ``input_size`` (pixels, or None),
        ``normalisation`` (mean and standard deviation a channel, and who says so).
    remarks
        Source -> what to know of its scores.
    notes
        What to know of the target.
    synthetic
        What of the ranking rests on synthetic images; empty where nothing does.
    cost
        ``seconds`` and ``peak_memory_gb`` of the whole, ``images`` scored, ``by_source`` the seconds of ``loading``,
        ``scoring`` and, of these, in the ``network``.
    left_out
        Sources that are no default candidates, with the reasons; empty where sources were named.
    stability, verification
        As `companion.ranking.stability` and `companion.ranking.verify` return them; None where not asked for.
    """

    sets: Sequence[CandidateSet]
    dataset: Dataset
    sources: Mapping[str, Source]
    options: Options
    origins: list[dict[str, Any]]
    remarks: dict[str, list[str]]
    notes: list[str]
    synthetic: str
    cost: dict[str, Any]
    provenance: dict[str, Any]
    left_out: Sequence[Candidate] = ()
    stability: Stability | None = field(default=None)
    verification: Verification | None = field(default=None)

    @property
    def table(self) -> pd.DataFrame:
        """One row per source and candidate set, best first in each.

        ``candidate_set``, ``rank``, ``source``, ``combined`` (NCA and the scale-invariant gradient ratio), ``gap``,
        ``order``, ``feature_rank``, ``proposed`` (the paper's form), the scores, ``architecture``, ``pretraining``,
        ``note``.
        """
        parts = [one.table.assign(candidate_set=one.title) for one in self.sets]
        table = pd.concat(parts, ignore_index=True)
        table["note"] = ["; ".join(self.remarks[name]) for name in table["source"]]
        first = ["candidate_set", "rank", "source", RECOMMENDED, "gap", "order", "feature_rank", COMBINED]
        last = ["architecture", "pretraining", "note"]
        return table[[*first, *table.columns.difference([*first, *last], sort=False), *last]]

    @property
    def best(self) -> CandidateSet | None:
        """The candidate set that the recommendation is about: the largest, one with an order before all others."""
        return max(
            (one for one in self.sets if one.advised),
            key=lambda one: (one.ordered, len(one.table)),
            default=None,
        )

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

    def fine_tuning_seconds(self, protocol: str, names: Iterable[str] | None = None) -> float:
        """Seconds that fine-tuning sources once each will take, estimated from the ranking's own pass.

        Parameters
        ----------
        protocol
            ``"quick"``, ``"standard"`` or ``"paper"``.
        names
            Sources; all of them by default.
        """
        plan, dataset, spent = FINE_TUNING_PROTOCOLS[protocol], self.dataset, self.cost["by_source"]
        n_train, n_val, n_test = (len(dataset.labels.get(split, ())) for split in ("train", "val", "test"))
        train = min(n_train, plan.train_per_class * dataset.n_classes)
        val = min(n_val, plan.val_per_class * dataset.n_classes)
        factor = STEP_OVER_PASS if dataset.size >= 64 else STEP_OVER_PASS_SMALL
        images = (plan.epochs * (train + val / 4) + n_test / 4) * factor
        return sum(spent[name]["network"] for name in names or spent) / self.cost["images"] * images

    def as_document(self) -> dict[str, Any]:
        """Everything as JSON-able values: what ``companion rank --json`` prints."""
        from companion.ranking.report import as_document

        return as_document(self)

    def save(self, folder: str | os.PathLike, *, force: bool = False, images: bool = True) -> list[Path]:
        """Write table (CSV), document (JSON), figure (PNG) and report (HTML) to a folder; all of them or none.

        Parameters
        ----------
        folder
            Made where it is missing.
        force
            Whether an earlier report there may be replaced.
        images
            Whether the report shows a few of the target's images.

        Raises
        ------
        InputError
            If the folder is a file, cannot be written or holds a report.
        """
        from companion.ranking.report import save

        return save(self, Path(folder), force=force, images=images)

    def __str__(self) -> str:
        """The ranking as text for a terminal."""
        from companion.ranking.report import as_text

        return as_text(self)

    __repr__ = __str__

    def _repr_html_(self) -> str:
        """Show the recommendation and the tables in a notebook."""
        from companion.ranking.report import as_html

        return as_html(self)


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
    progress: Progress | None = None,
) -> Ranking:
    """Rank source models for a target dataset without fine-tuning any of them.

    Parameters
    ----------
    target, size, trust
        As for `load_dataset`.
    sources
        As for `load_source`, or networks; at least two. None takes those that can be had here without a download, see
        `companion.ranking.candidates`.
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
    report = progress or (lambda fraction, text: None)
    wanted = list(dict.fromkeys([*ALWAYS, *scores]))
    check_scores(wanted)
    check_architecture(architecture)
    named = None if sources is None else by_name(sources)
    options = Options(per_class, variant, architecture, seed, str(best_device(device)), trust)
    if not isinstance(target, Dataset):
        report(0.0, f"loading {os.fspath(target)}")
        target = load_dataset(target, size=size, progress=lambda line: report(0.0, line))
    left_out: Sequence[Candidate] = ()
    if named is None:
        from companion.ranking.candidates import default_sources

        chosen, left_out = default_sources(target.name, architecture=architecture, seed=seed, progress=report)
        named = by_name(chosen)
    # Drawn, and so decoded, once for all sources; an unusable target is reported before any is loaded or trained.
    images, labels = target.draw(per_class, seed=seed)
    found, models, seconds, remarks = [], [], {}, {}
    for index, (name, source) in enumerate(named.items()):
        start, base, share = time.perf_counter(), index / len(named), 0.8 / len(named)

        def step(fraction: float, text: str, base: float = base, share: float = share) -> None:
            report(base + share * fraction, text)

        step(0.0, f"{name}: loading ({index + 1} of {len(named)})")
        model = replace(options.load(source, target, step), name=name)
        step(1.0, f"{name}: scoring")
        loaded = time.perf_counter()
        found.append(options.score(model, images, labels, wanted))
        remarks[name] = _remarks(found[-1], model)
        done = time.perf_counter()
        seconds[name] = {
            "loading": loaded - start,
            "scoring": done - loaded,
            "network": found[-1].provenance["seconds_in_the_network"],
        }
        # The weights are not needed any more: nine networks need no more memory than one.
        models.append(replace(model, backbone=nn.Identity(), head=None))
        left = (done - began) / (index + 1) * (len(named) - index - 1)
        report((index + 1) / len(named), f"{name}: scored in {done - start:.1f} s, about {left:.0f} s to go")
    sets, notes = _sets(found, models, target, variant), _notes(target)
    data = {target.name: target.content_hash}
    total = time.perf_counter() - began
    return Ranking(
        sets=sets,
        dataset=target,
        sources=named,
        options=options,
        origins=[_origin(model) for model in models],
        remarks=remarks,
        notes=notes,
        synthetic=_synthetic(target, models),
        cost={
            "seconds": total,
            "by_source": seconds,
            "images": len(labels),
            "peak_memory_gb": _peak_memory(),
        },
        provenance=store.provenance(
            seed=seed,
            device=options.device,
            data=data,
            variant=variant,
            images=len(labels),
            sources={model.name: model.provenance for model in models},
            seconds=round(total, 2),
        ),
        left_out=left_out,
    )


def by_name(sources: Source | Sequence[Source]) -> dict[str, Source]:
    """Sources by what they are called in a table; those that cannot be ranked are refused before any work.

    A checkpoint is called by its file's name, and a ``.csv`` stands for the checkpoints that it lists.

    Raises
    ------
    InputError
        If there are fewer than two, one is named twice, or one does not exist.
    """
    given = [sources] if isinstance(sources, str | os.PathLike | SourceModel | nn.Module) else list(sources)
    listed: list[Source] = []
    names = []
    for one in given:
        if isinstance(one, str | os.PathLike) and os.fspath(one).endswith(".csv"):
            listed += read_sources(one)
        else:
            listed.append(one)
    for source in listed:
        if isinstance(source, SourceModel):
            names.append(source.name)
        elif isinstance(source, nn.Module):
            names.append(f"{type(source).__name__} {len(names) + 1}")
        else:
            check_name(source)
            names.append(called(source))
    if len(names) < 2:
        raise InputError(f"a ranking needs at least two sources: got {', '.join(names) or 'none'}")
    doubled = next((name for name in names if names.count(name) > 1), None)
    if doubled:
        raise InputError(f"source {doubled!r} is named twice")
    return dict(zip(names, listed, strict=True))


def _sets(
    found: list[Scores], models: list[SourceModel], dataset: Dataset, variant: str
) -> list[CandidateSet]:
    """Put the sources of each candidate set in order; those trained on the target itself stand apart."""
    scores = pd.DataFrame([dict(own) for own in found])
    scores.insert(0, "source", [model.name for model in models])
    scores["architecture"] = [model.architecture for model in models]
    scores["pretraining"] = [model.pretraining for model in models]
    terms = np.array([own.ncti_terms or (np.nan,) * 3 for own in found])
    own_data = [index for index, model in enumerate(models) if _same_data(model, dataset)]
    others = [index for index in range(len(models)) if index not in own_data]
    sets = []
    for kind, title, places in candidate_sets([models[index] for index in others]):
        members = [others[place] for place in places]
        block = scores.iloc[members].copy()
        if kind != "mixed" and np.isfinite(terms[members]).any():
            block["ncti"] = combine_ncti(terms[members], variant=variant)
        table, reason = order(block, kind=kind)
        sets.append(CandidateSet(kind, title, table, reason, tuple(_warnings([found[i] for i in members]))))
    if own_data:
        table = scores.iloc[own_data].assign(order="undetermined", gap=np.nan, feature_rank=np.nan)
        table = table.assign(**{COMBINED: np.nan, RECOMMENDED: np.nan})
        table["rank"] = pd.array([pd.NA] * len(table), dtype="Int64")
        reason = "features learnt from the target's own images flatter every score"
        sets.append(CandidateSet("left_out", LEFT_OUT, table, reason))
    return sets


def _same_data(model: SourceModel, dataset: Dataset) -> bool:
    """Whether a source learnt from the target's images, at whatever size and in whatever pool of datasets."""
    learnt = {*model.provenance.get("lineage", ()), model.pretraining, model.provenance.get("data_hash")}
    return bool(learnt & {*dataset.lineage, dataset.content_hash})


def _warnings(found: list[Scores]) -> list[str]:
    """Warn where the gradient ratio as published cannot be compared, since it depends on how a network is written."""
    warnings = []
    for what, key in (
        ("images normalised otherwise", "normalisation"),
        ("networks without batch norm beside networks with it", "batch_norm"),
    ):
        groups: dict[Any, list[str]] = {}
        for own in found:
            groups.setdefault(own.provenance[key], []).append(own.provenance["source"])
        if len(groups) > 1:
            rarest = min(groups.values(), key=len)
            warnings.append(
                f"{what} ({', '.join(rarest)}): the gradient ratio in the paper's form depends on that, the "
                "scale-invariant one does not"
            )
    return warnings


def _origin(model: SourceModel) -> dict[str, Any]:
    known = model.provenance
    return {
        "source": model.name,
        "origin": str(known.get("origin") or f"trained on {model.pretraining}"),
        "licence": known.get("licence"),
        "input_size": known.get("input_size"),
        "normalisation": model.normalisation,
        "normalisation_from": known.get("normalisation_from", "its own"),
    }


def _remarks(own: Scores, model: SourceModel) -> list[str]:
    scores = [f"{name}: {reason.removeprefix(f'{name}: ')}" for name, reason in own.reasons.items()]
    if extended(model):
        scores.append(
            f"gradient ratio of {model.first_conv} and {model.second_conv}: an extension to networks without two "
            "convolutions, which nobody has validated"
        )
    return [*scores, *model.provenance.get("remarks", ())]


def _notes(dataset: Dataset) -> list[str]:
    notes = [*dataset.notes, *too_few({split: dataset.class_counts(split) for split in dataset.labels})]
    shared = in_several_splits(dataset)
    if shared:
        notes.append(
            f"{shared} image(s) lie in more than one split: the scores use training images only, but what fine-tuning "
            "is tested on has been seen; companion inspect lists them"
        )
    return notes


def _synthetic(dataset: Dataset, models: Sequence[SourceModel]) -> str:
    if dataset.synthetic:
        return "synthetic images"
    learnt = sum(bool(model.provenance.get("synthetic")) for model in models)
    return f"{learnt} of {len(models)} sources learnt from synthetic images" if learnt else ""


def _peak_memory() -> float | None:
    """Largest memory this process has held so far, in GB; None where the system does not say (Windows)."""
    try:
        import resource
    except ImportError:
        return None
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / 1e9 if sys.platform == "darwin" else peak / 1e6  # bytes there, kilobytes elsewhere
