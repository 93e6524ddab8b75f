"""Rank many sources for one target: the table the practitioner wants."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd
from torch import nn

from companion import store
from companion.datasets import (
    SIZES,
    Dataset,
    at_hand,
    in_several_splits,
    load_dataset,
    medmnist_flags,
    too_few,
)
from companion.errors import InputError
from companion.models import SourceModel, best_device, check_architecture
from companion.ranking.cost import fine_tuning_seconds, peak_memory
from companion.ranking.pooling import pools, rank_pool
from companion.ranking.scoring import DEFAULT_SCORES, card_of, check_scores
from companion.scores import COMBINED, TERMS, Scores, combine_ncti
from companion.sources import check_name, load_source, trained_on
from companion.training import FINE_TUNING_PROTOCOLS, SEED

Progress = Callable[[float, str], None]
Source = str | os.PathLike | SourceModel
TRAINED_AT = 64  # largest side in pixels at which "train:" sources are trained for a target


def _same_data(model: SourceModel, dataset: Dataset) -> bool:
    """Tell whether a source learnt from the target's images, at whatever size and in whatever pool."""
    learnt = {*model.provenance.get("lineage", ()), model.pretraining, model.provenance.get("data_hash")}
    return bool(learnt & {*dataset.lineage, dataset.content_hash})


def source_name(source: Source) -> str:
    """Return what a source is called in a table."""
    return source.name if isinstance(source, SourceModel) else os.fspath(source)


def training_size(name: str, size: int) -> int:
    """Side of the images that a ``train:`` source is trained on, for a target of `size` pixels.

    At most `TRAINED_AT`; and 28 where that is the only size of a MedMNIST set on this machine.
    """
    wanted = _offered(size)
    flags = [part for part in trained_on(name) if part in medmnist_flags()]
    if any(at_hand(flag, wanted) is None for flag in flags) and all(at_hand(flag, 28) for flag in flags):
        return 28
    return wanted


def _offered(size: int) -> int:
    return max((offered for offered in SIZES if offered <= min(size, TRAINED_AT)), default=SIZES[0])


def load(
    source: Source,
    dataset: Dataset,
    *,
    architecture: str = "resnet18",
    seed: int = SEED,
    device: str | None = None,
    trust: bool = False,
    progress: Progress | None = None,
) -> SourceModel:
    """Load a source as it is ranked for `dataset`: see `companion.load_source`."""
    if isinstance(source, SourceModel):
        return source
    name = os.fspath(source)
    return load_source(
        source,
        target=dataset.name,
        architecture=architecture,
        size=training_size(name, dataset.size) if name.startswith("train:") else None,
        seed=seed,
        device=device,
        trust=trust,
        progress=progress,
    )


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

    Returns
    -------
    pandas.DataFrame
        One row per source and pool, best first in each pool: ``pool``, ``rank``, ``source``, ``proposed``,
        ``gap``, ``order``, the scores, ``architecture``, ``pretraining``, ``note``. ``attrs["pools"]`` says of
        each pool what it is and what its order is worth; ``attrs["provenance"]`` how it was made;
        ``attrs["cost"]`` the seconds and the memory it took, and what fine-tuning every source once would take;
        ``attrs["sources"]`` where each source comes from; ``attrs["notes"]`` what to know of the target.

    Raises
    ------
    InputError
        If target or sources cannot be used.
    EnvironmentFailure
        If data or weights cannot be had.
    """
    began = time.perf_counter()
    if sources is not None:
        check_sources(sources, data_dir=data_dir)
    wanted = list(dict.fromkeys([*TERMS, *scores]))
    check_scores(wanted)
    check_architecture(architecture)
    chosen = str(best_device(device))
    report = progress or (lambda fraction, text: None)
    with store.data_directory(data_dir):
        if not isinstance(target, Dataset):
            report(0.0, f"loading {os.fspath(target)}")
            target = load_dataset(target, size=size, trust=trust, progress=lambda line: report(0.0, line))
        if sources is None:
            from companion.ranking.at_hand import default_sources

            sources, _ = default_sources(target, architecture=architecture, seed=seed)
        names = [source_name(source) for source in sources]
        # Drawn, and so decoded, once for all sources; an unusable target is told before any is loaded or trained.
        drawn = target.draw(per_class, seed=seed)
        cards, models, seconds = [], [], {}
        for index, (name, source) in enumerate(zip(names, sources, strict=True)):
            start, base = time.perf_counter(), index / len(names)

            def step(fraction: float, text: str, base: float = base) -> None:
                report(base + 0.8 * fraction / len(names), text)

            step(0.0, f"{name}: loading")
            model = load(
                source,
                target,
                architecture=architecture,
                seed=seed,
                device=device,
                trust=trust,
                progress=step,
            )
            report(base + 0.8 / len(names), f"{name}: scoring")
            loaded = time.perf_counter()
            card = card_of(model, target, drawn, scores=wanted, variant=variant, seed=seed, device=device)
            seconds[name] = {
                "loading": loaded - start,
                "scoring": time.perf_counter() - loaded,
                "network": card.provenance["seconds_in_the_network"],
            }
            cards.append(card)
            # The weights are not needed any more: nine networks need no more memory than one.
            models.append(replace(model, backbone=nn.Identity(), head=None))
    report(1.0, "done")
    counts = {split: target.class_counts(split) for split in target.labels}
    table = _assemble(names, cards, models, target, variant=variant)
    cost: dict[str, Any] = {"by_source": seconds, "images": len(drawn[1]), "peak_memory_gb": peak_memory()}
    cost["fine_tuning"] = {
        name: fine_tuning_seconds(cost, target, FINE_TUNING_PROTOCOLS[name]) for name in ("quick", "standard")
    }
    table.attrs |= {
        "target": repr(target),
        "synthetic": _synthetic_note(target, models),
        "notes": [*target.notes, *_leaks(target), *too_few(counts)],
        "sources": [about(name, model) for name, model in zip(names, models, strict=True)],
        "cost": cost | {"seconds": time.perf_counter() - began},
        "provenance": store.provenance(
            seed=seed,
            device=chosen,
            data={target.name: target.content_hash},
            variant=variant,
            images=len(drawn[1]),
            sources={name: model.provenance for name, model in zip(names, models, strict=True)},
            seconds=round(time.perf_counter() - began, 2),
        ),
    }
    return table


def check_sources(sources: Sequence[Source], *, data_dir: str | os.PathLike | None = None) -> None:
    """Refuse sources that cannot be ranked, before any work.

    Raises
    ------
    InputError
        If there are fewer than two, one is named twice, or one does not exist.
    """
    with store.data_directory(data_dir):
        for source in sources:
            if not isinstance(source, SourceModel):
                check_name(source)
    names = [source_name(source) for source in sources]
    if len(names) < 2:
        raise InputError(f"a ranking needs at least two sources: got {len(names)}")
    doubled = next((name for name in names if names.count(name) > 1), None)
    if doubled:
        raise InputError(f"source {doubled!r} is named twice")


def about(name: str, model: SourceModel) -> dict[str, Any]:
    """Where a source comes from: source, origin, licence and input_size (pixels), None where it does not say."""
    known = model.provenance
    origin = known.get("origin") or f"trained on {model.pretraining}"
    return {
        "source": name,
        "origin": str(origin),
        "licence": known.get("licence"),
        "input_size": known.get("input_size"),
    }


def _synthetic_note(dataset: Dataset, models: Sequence[SourceModel]) -> str:
    """Say what of a ranking rests on synthetic images; the empty string where nothing does."""
    learnt = sum(bool(model.provenance.get("synthetic")) for model in models)
    if dataset.synthetic:
        return "synthetic images"
    return f"{learnt} of {len(models)} sources learnt from synthetic images" if learnt else ""


def _leaks(dataset: Dataset) -> list[str]:
    shared = in_several_splits(dataset)
    if not shared:
        return []
    return [
        f"{shared} image(s) lie in more than one split: the scores use training images only, but what fine-tuning "
        "is tested on has been seen; companion inspect lists them"
    ]


def _note(card: Scores, model: SourceModel, dataset: Dataset) -> str:
    notes = [f"{name}: {reason.removeprefix(f'{name}: ')}" for name, reason in card.reasons.items()]
    side = model.provenance.get("input_size")
    if side and model.name.startswith("train:") and side < _offered(dataset.size):
        notes.append(f"trained at {side} px, the size of its data on this machine")
    return "; ".join(notes)


def _written_otherwise(cards: Sequence[Scores]) -> list[str]:
    """Warn where the gradient ratio as published cannot be compared, since it depends on how a network is written."""
    found = []
    for what, of in (
        ("images normalised otherwise", lambda card: card.provenance["normalisation"]),
        ("networks without batch norm beside networks with it", lambda card: card.provenance["batch_norm"]),
    ):
        groups: dict[Any, list[str]] = {}
        for card in cards:
            groups.setdefault(of(card), []).append(card.provenance["source"])
        if len(groups) > 1:
            rarest = min(groups.values(), key=len)
            found.append(
                f"{what} ({', '.join(rarest)}): gradient_ratio, and with it the proposed score, depends on that; "
                "gradient_ratio_scale_invariant does not"
            )
    return found


def _assemble(
    names: list[str], scored: list[Scores], models: list[SourceModel], dataset: Dataset, *, variant: str
) -> pd.DataFrame:
    cards = pd.DataFrame(
        [
            {
                "source": name,
                **card,
                "architecture": model.architecture,
                "pretraining": model.pretraining,
                "note": _note(card, model, dataset),
            }
            for name, card, model in zip(names, scored, models, strict=True)
        ]
    )
    terms = np.array([card.ncti_terms if card.ncti_terms is not None else (np.nan,) * 3 for card in scored])
    itself = [index for index, model in enumerate(models) if _same_data(model, dataset)]
    candidates = [index for index in range(len(models)) if index not in itself]
    parts, described = [], []
    for pool in pools([models[index] for index in candidates]):
        members = [candidates[position] for position in pool.members]
        block = cards.iloc[members].copy()
        if np.isfinite(terms[members]).any():
            block["ncti"] = combine_ncti(terms[members], variant=variant)
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
                "warnings": _written_otherwise([scored[index] for index in members]),
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
                "warnings": [],
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
