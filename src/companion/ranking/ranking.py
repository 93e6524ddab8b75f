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
from companion.datasets import (
    SIZES,
    Dataset,
    cached_file,
    in_several_splits,
    load_dataset,
    medmnist_flags,
    too_few,
)
from companion.errors import InputError
from companion.models import SourceModel, best_device, check_architecture
from companion.ranking.scoring import DEFAULT_SCORES
from companion.ranking.sets import LEFT_OUT, CandidateSet, candidate_sets, order
from companion.scores import COMBINED, TERMS, Scores, combine_ncti
from companion.scores.from_images import score_images
from companion.scores.registry import check_scores
from companion.sources import check_name, load_source, trained_on
from companion.training import FINE_TUNING_PROTOCOLS, SEED

if TYPE_CHECKING:
    from companion.ranking.candidates import Candidate
    from companion.ranking.stability import Stability
    from companion.ranking.verification import Verification

Progress = Callable[[float, str], None]
Source = str | os.PathLike | SourceModel
TRAINED_AT = 64  # largest side in pixels at which "train:" sources are trained for a target
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
        name = os.fspath(source)
        return load_source(
            source,
            target=dataset.name,
            architecture=self.architecture,
            size=training_size(name, dataset.size) if name.startswith("train:") else None,
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
    left_out
        Sources that are no default candidates, with the reasons; empty where sources were named.
    origins
        Where each source comes from: ``source``, ``origin``, ``licence``, ``input_size`` (pixels, or None).
    remarks
        Source -> what to know of its scores.
    notes
        What to know of the target.
    synthetic
        What of the ranking rests on synthetic images; empty where nothing does.
    cost
        ``seconds`` and ``peak_memory_gb`` of the whole, ``images`` scored, ``by_source`` the seconds of ``loading``,
        ``scoring`` and, of these, in the ``network``.
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

        ``candidate_set``, ``rank``, ``source``, ``proposed``, ``gap``, ``order``, the scores, ``architecture``,
        ``pretraining``, ``note``.
        """
        parts = [one.table.assign(candidate_set=one.title) for one in self.sets]
        table = pd.concat(parts, ignore_index=True)
        table["note"] = ["; ".join(self.remarks[name]) for name in table["source"]]
        first = ["candidate_set", "rank", "source", COMBINED, "gap", "order", *TERMS]
        last = ["architecture", "pretraining", "note"]
        return table[[*first, *table.columns.difference([*first, *last], sort=False), *last]]

    @property
    def ordered(self) -> CandidateSet | None:
        """The largest candidate set that has an order."""
        return max((one for one in self.sets if one.ordered), key=lambda one: len(one.table), default=None)

    def first(self, count: int) -> list[str]:
        """Name the first `count` sources of the largest candidate set that has an order.

        Raises
        ------
        InputError
            If none has.
        """
        if self.ordered is None:
            raise InputError(
                "no candidate set has an order, so there is none to verify: name four or more sources of one kind"
            )
        return list(self.ordered.table["source"][:count])

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
        """Show the tables in a notebook."""
        from companion.ranking.report import as_html

        return as_html(self)


def rank(
    target: str | os.PathLike | Dataset,
    sources: Sequence[Source] | None = None,
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
        As for `load_source`, at least two; None takes those that can be had here without a download, see
        `companion.ranking.candidates`. ``"train:…"`` is trained at the target's size, 64 px at most.
    seed
        Seed of the draw of images, of random weights and of training.
    per_class, scores, variant, device
        As for `score`; the proposed score's two terms are always computed.
    architecture
        Of ``"imagenet"``, ``"scratch"``, ``"train:…"`` and checkpoints that do not say theirs.
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
    if sources is not None:
        check_sources(sources)
    wanted = list(dict.fromkeys([*TERMS, *scores]))
    check_scores(wanted)
    check_architecture(architecture)
    options = Options(per_class, variant, architecture, seed, str(best_device(device)), trust)
    if not isinstance(target, Dataset):
        report(0.0, f"loading {os.fspath(target)}")
        target = load_dataset(target, size=size, trust=trust, progress=lambda line: report(0.0, line))
    left_out: Sequence[Candidate] = ()
    if sources is None:
        from companion.ranking.candidates import default_sources

        sources, left_out = default_sources(target, architecture=architecture, seed=seed)
    by_name = {source_name(source): source for source in sources}
    # Drawn, and so decoded, once for all sources; an unusable target is reported before any is loaded or trained.
    images, labels = target.draw(per_class, seed=seed)
    found, models, seconds = [], [], {}
    for index, (name, source) in enumerate(by_name.items()):
        start, base, share = time.perf_counter(), index / len(by_name), 0.8 / len(by_name)

        def step(fraction: float, text: str, base: float = base, share: float = share) -> None:
            report(base + share * fraction, text)

        step(0.0, f"{name}: loading")
        model = options.load(source, target, step)
        step(1.0, f"{name}: scoring")
        loaded = time.perf_counter()
        found.append(options.score(model, images, labels, wanted))
        seconds[name] = {
            "loading": loaded - start,
            "scoring": time.perf_counter() - loaded,
            "network": found[-1].provenance["seconds_in_the_network"],
        }
        # The weights are not needed any more: nine networks need no more memory than one.
        models.append(replace(model, backbone=nn.Identity(), head=None))
    report(1.0, "done")
    total = time.perf_counter() - began
    return Ranking(
        sets=_sets(list(by_name), found, models, target, variant),
        dataset=target,
        sources=by_name,
        options=options,
        origins=[_origin(name, model) for name, model in zip(by_name, models, strict=True)],
        remarks={
            name: _remarks(own, model, target)
            for name, own, model in zip(by_name, found, models, strict=True)
        },
        notes=_notes(target),
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
            data={target.name: target.content_hash},
            variant=variant,
            images=len(labels),
            sources={name: model.provenance for name, model in zip(by_name, models, strict=True)},
            seconds=round(total, 2),
        ),
        left_out=left_out,
    )


def check_sources(sources: Sequence[Source]) -> None:
    """Refuse sources that cannot be ranked, before any work.

    Raises
    ------
    InputError
        If there are fewer than two, one is named twice, or one does not exist.
    """
    if isinstance(sources, str | os.PathLike | SourceModel):
        raise InputError(f"sources: a list is needed, got {source_name(sources)!r} alone")
    for source in sources:
        if not isinstance(source, SourceModel):
            check_name(source)
    names = [source_name(source) for source in sources]
    if len(names) < 2:
        raise InputError(f"a ranking needs at least two sources: got {len(names)}")
    doubled = next((name for name in names if names.count(name) > 1), None)
    if doubled:
        raise InputError(f"source {doubled!r} is named twice")


def source_name(source: Source) -> str:
    """Return what a source is called in a table."""
    return source.name if isinstance(source, SourceModel) else os.fspath(source)


def training_size(name: str, size: int) -> int:
    """Side of the images that a ``train:`` source is trained on, for a target of `size` pixels.

    At most `TRAINED_AT`; and 28 where that is the only size of a MedMNIST set on this machine.
    """
    wanted = _offered(size)
    flags = [part for part in trained_on(name) if part in medmnist_flags()]
    if any(cached_file(flag, wanted) is None for flag in flags) and all(
        cached_file(flag, 28) for flag in flags
    ):
        return 28
    return wanted


def _offered(size: int) -> int:
    return max((offered for offered in SIZES if offered <= min(size, TRAINED_AT)), default=SIZES[0])


def _sets(
    names: list[str], found: list[Scores], models: list[SourceModel], dataset: Dataset, variant: str
) -> list[CandidateSet]:
    """Put the sources of each candidate set in order; those trained on the target itself stand apart."""
    scores = pd.DataFrame([dict(own) for own in found])
    scores.insert(0, "source", names)
    scores["architecture"] = [model.architecture for model in models]
    scores["pretraining"] = [model.pretraining for model in models]
    terms = np.array([own.ncti_terms or (np.nan,) * 3 for own in found])
    own_data = [index for index, model in enumerate(models) if _same_data(model, dataset)]
    others = [index for index in range(len(models)) if index not in own_data]
    sets = []
    for kind, title, places in candidate_sets([models[index] for index in others]):
        members = [others[place] for place in places]
        block = scores.iloc[members].copy()
        if np.isfinite(terms[members]).any():
            block["ncti"] = combine_ncti(terms[members], variant=variant)
        table, reason = order(block, kind=kind)
        warnings = _warnings([names[i] for i in members], [found[i] for i in members])
        sets.append(CandidateSet(kind, title, table, reason, tuple(warnings)))
    if own_data:
        table = scores.iloc[own_data].assign(order="undetermined", gap=np.nan, **{COMBINED: np.nan})
        table["rank"] = pd.array([pd.NA] * len(table), dtype="Int64")
        reason = "features learnt from the target's own images flatter every score"
        sets.append(CandidateSet("left_out", LEFT_OUT, table, reason))
    return sets


def _same_data(model: SourceModel, dataset: Dataset) -> bool:
    """Whether a source learnt from the target's images, at whatever size and in whatever pool of datasets."""
    learnt = {*model.provenance.get("lineage", ()), model.pretraining, model.provenance.get("data_hash")}
    return bool(learnt & {*dataset.lineage, dataset.content_hash})


def _warnings(names: list[str], found: list[Scores]) -> list[str]:
    """Warn where the gradient ratio as published cannot be compared, since it depends on how a network is written."""
    warnings = []
    for what, key in (
        ("images normalised otherwise", "normalisation"),
        ("networks without batch norm beside networks with it", "batch_norm"),
    ):
        groups: dict[Any, list[str]] = {}
        for name, own in zip(names, found, strict=True):
            groups.setdefault(own.provenance[key], []).append(name)
        if len(groups) > 1:
            rarest = min(groups.values(), key=len)
            warnings.append(
                f"{what} ({', '.join(rarest)}): gradient_ratio, and with it the proposed score, depends on that; "
                "gradient_ratio_scale_invariant does not"
            )
    return warnings


def _origin(name: str, model: SourceModel) -> dict[str, Any]:
    known = model.provenance
    return {
        "source": name,
        "origin": str(known.get("origin") or f"trained on {model.pretraining}"),
        "licence": known.get("licence"),
        "input_size": known.get("input_size"),
    }


def _remarks(own: Scores, model: SourceModel, dataset: Dataset) -> list[str]:
    remarks = [f"{name}: {reason.removeprefix(f'{name}: ')}" for name, reason in own.reasons.items()]
    side = model.provenance.get("input_size")
    if side and model.name.startswith("train:") and side < _offered(dataset.size):
        remarks.append(f"trained at {side} px, the size of its data on this machine")
    return remarks


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
