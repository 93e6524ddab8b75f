"""How sure is an order? Rank again on parts of the images, drawn without replacement, and count."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd

from companion import store
from companion.datasets import Dataset
from companion.errors import InputError
from companion.ranking.pooling import rank_pool
from companion.ranking.scoring import card_of
from companion.ranking.table import Progress, Source, load, source_name
from companion.scores import COMBINED, TERMS
from companion.training import SEED

PART = 0.8
FEWEST = 5  # repeats, under which even unanimity says nothing
LEVEL = 0.05


def repeat_cost(table: pd.DataFrame, repeats: int) -> float:
    """Seconds that `repeat` will take, about: from what the ranking itself took."""
    return repeats * PART * sum(spent["scoring"] for spent in table.attrs["cost"]["by_source"].values())


def repeat(
    table: pd.DataFrame,
    dataset: Dataset,
    sources: Sequence[Source],
    repeats: int = 10,
    *,
    per_class: int = 100,
    variant: str = "corrected",
    architecture: str = "resnet18",
    seed: int = SEED,
    device: str | None = None,
    data_dir: Any = None,
    trust: bool = False,
    progress: Progress | None = None,
) -> pd.DataFrame:
    """Rank again and again on four fifths of the images of every class, drawn without replacement.

    Parameters
    ----------
    table
        What `companion.rank` returned for `dataset` and `sources`, with the same options.
    repeats
        At least 5; each costs four fifths of a ranking by the two terms alone.
    per_class, variant, architecture, seed, device, data_dir, trust, progress
        As for `companion.rank`.

    Returns
    -------
    pandas.DataFrame
        One row per source of every pool that has an order: ``pool``, ``source``, ``rank``, ``lowest`` and ``highest``
        (the worst and best rank over the repeats), ``first`` (share of repeats in which it came first), ``ahead``
        (share in which it stood ahead of the next one), all of the repeats in which the pool had an order.
        ``attrs["verdicts"]`` says of each pool whether its first two can be told apart. The parts share images, so a
        new sample of patients would vary more than this.

    Raises
    ------
    InputError
        If there are fewer than 5 repeats.
    """
    if repeats < FEWEST:
        raise InputError(f"{repeats} repeats say too little: give at least {FEWEST}")
    began = time.perf_counter()
    report = progress or (lambda fraction, text: None)
    pools = [pool for pool in table.attrs["pools"] if pool["order"] == "determined"]
    blocks = {pool["pool"]: table[table["pool"] == pool["pool"]] for pool in pools}
    wanted = {name for block in blocks.values() for name in block["source"]}
    images, labels = dataset.draw(per_class, seed=seed)
    parts = _parts(labels, repeats, seed)
    terms: dict[str, np.ndarray] = {}
    with store.data_directory(data_dir):
        chosen = [source for source in sources if source_name(source) in wanted]
        for index, source in enumerate(chosen):
            name = source_name(source)
            model = load(source, dataset, architecture=architecture, seed=seed, device=device, trust=trust)
            terms[name] = np.empty((repeats, len(TERMS)))
            for number, part in enumerate(parts):
                report((index + number / repeats) / len(chosen), f"{name}: repeat {number + 1} of {repeats}")
                card = card_of(
                    model,
                    dataset,
                    (images[part], labels[part]),
                    scores=TERMS,
                    variant=variant,
                    seed=seed,
                    device=device,
                )
                terms[name][number] = [card[term] for term in TERMS]
    rows, verdicts = [], {}
    for pool in pools:
        block = blocks[pool["pool"]]
        combined = _combined(list(block["source"]), terms, repeats, kind=pool["kind"])
        without = repeats - len(combined)
        if len(combined):
            rows += _rows(block, combined)
            verdicts[pool["pool"]] = _verdict(list(block["source"]), combined)
            if without:
                verdicts[pool["pool"]] += f"; {without} of {repeats} repeats had no order and are left out"
        else:
            verdicts[pool["pool"]] = (
                f"none of {repeats} repeats had an order: a term is not defined on so few images"
            )
    found = pd.DataFrame(rows, columns=["pool", "source", "rank", "lowest", "highest", "first", "ahead"])
    found.attrs |= {
        "repeats": repeats,
        "part": PART,
        "verdicts": verdicts,
        "seconds": time.perf_counter() - began,
    }
    return found


def _parts(labels: np.ndarray, repeats: int, seed: int) -> list[np.ndarray]:
    """Four fifths of every class in random order, of a rare one at least two images."""
    parts = []
    for number in range(repeats):
        rng = np.random.default_rng([seed, number])
        chosen = []
        for label in np.unique(labels):
            members = rng.permutation(np.flatnonzero(labels == label))
            chosen.append(members[: max(2, round(PART * len(members)))])
        parts.append(rng.permutation(np.concatenate(chosen)))
    return parts


def _combined(names: list[str], terms: dict[str, np.ndarray], repeats: int, *, kind: str) -> np.ndarray:
    """(repeats with an order, sources) combined scores, each repeat put on a scale in its pool as in a ranking."""
    found = []
    for number in range(repeats):
        cards = pd.DataFrame([terms[name][number] for name in names], columns=list(TERMS), index=names)
        ranked, _ = rank_pool(cards, kind=kind)
        if ranked["rank"].notna().any():
            found.append(ranked.loc[names, COMBINED].to_numpy(dtype=float))
    return np.array(found).reshape(-1, len(names))


def _rows(block: pd.DataFrame, combined: np.ndarray) -> list[dict[str, Any]]:
    ranks = pd.DataFrame(-combined).rank(axis=1, method="min").to_numpy()
    ahead = np.append((combined[:, :-1] > combined[:, 1:]).mean(0), np.nan)
    return [
        {
            "pool": row["pool"],
            "source": row["source"],
            "rank": row["rank"],
            "lowest": int(ranks[:, place].max()),
            "highest": int(ranks[:, place].min()),
            "first": float((ranks[:, place] == 1).mean()),
            "ahead": float(ahead[place]),
        }
        for place, (_, row) in enumerate(block.iterrows())
    ]


def _verdict(names: list[str], combined: np.ndarray) -> str:
    """Say whether the first two can be told apart: a sign test at 5 % on who stands ahead."""
    from scipy.stats import binomtest

    repeats, won = len(combined), int((combined[:, 0] > combined[:, 1]).sum())
    line = f"{names[0]} stood ahead of {names[1]} in {won} of {repeats} repeats"
    apart = binomtest(won, repeats, alternative="greater").pvalue < LEVEL
    return f"{line}: {'they can' if apart else 'the top two cannot'} be told apart on these images"
