"""Would other images have given another order? The ranking again on random halves of the images."""

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

PART = 0.5
MIN_REPEATS = 5
# The combined score bends where another source becomes the highest or lowest in a term, which a spread does not see: in
# the simulation of the tests Student's interval covers 91 to 93 %, and so much wider 94 to 97 %.
WIDER = 1.2


def stability_cost(table: pd.DataFrame, repeats: int) -> float:
    """Seconds that `stability` will take, about: from what the ranking itself took."""
    return repeats * PART * sum(spent["scoring"] for spent in table.attrs["cost"]["by_source"].values())


def stability(
    table: pd.DataFrame,
    dataset: Dataset,
    sources: Sequence[Source],
    repeats: int = 20,
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
    """Rank again on random halves of the images, and say how far other images could move the order.

    Parameters
    ----------
    table
        What `companion.rank` returned for `dataset` and `sources`, with the same options.
    repeats
        At least 5; each costs half a ranking by the two terms alone.
    per_class, variant, architecture, seed, device, data_dir, trust, progress
        As for `companion.rank`.

    Returns
    -------
    pandas.DataFrame
        One row per source of every candidate set that has an order: ``pool``, ``source``, ``rank``, ``lowest`` and
        ``highest`` (the 97.5 % and 2.5 % quantiles of its rank), ``first`` (share of halves in which it came first),
        ``gap`` (lead over the next in the combined score), ``gap_low`` and ``gap_high`` (95 % interval over images).
        ``attrs["summaries"]`` says it in a sentence for each set.

    Raises
    ------
    InputError
        If there are fewer than 5 repeats.

    Notes
    -----
    The spread of a statistic over random halves, drawn without replacement, estimates the spread that it has over
    samples of the whole size (a delete-half jackknife). Images are not drawn with replacement, as a bootstrap would: a
    copy of an image is its own nearest neighbour, and the feature term would count that as separation. Where patients
    are known a half holds whole patients. The interval is that of Student's t, widened by a fifth; it says what other
    images from the same place could have given, not another hospital, and not another training of a source.
    """
    if repeats < MIN_REPEATS:
        raise InputError(f"{repeats} repeats say too little: give at least {MIN_REPEATS}")
    began = time.perf_counter()
    report = progress or (lambda fraction, text: None)
    pools = [pool for pool in table.attrs["pools"] if pool["order"] == "determined"]
    blocks = {pool["pool"]: table[table["pool"] == pool["pool"]] for pool in pools}
    wanted = {name for block in blocks.values() for name in block["source"]}
    images, labels = dataset.draw(per_class, seed=seed)
    patients = dataset.patients.get("train")
    whose = None if patients is None else patients[dataset.drawn(per_class, seed=seed)]
    parts = halves(labels, repeats, seed=seed, patients=whose)
    terms: dict[str, np.ndarray] = {}
    with store.data_directory(data_dir):
        chosen = [source for source in sources if source_name(source) in wanted]
        for index, source in enumerate(chosen):
            name = source_name(source)
            model = load(source, dataset, architecture=architecture, seed=seed, device=device, trust=trust)
            terms[name] = np.empty((repeats, len(TERMS)))
            for number, part in enumerate(parts):
                report((index + number / repeats) / len(chosen), f"{name}: half {number + 1} of {repeats}")
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
    rows, summaries = [], {}
    of = "images" if whose is None else "patients"
    for pool in pools:
        block = blocks[pool["pool"]]
        combined = _combined(list(block["source"]), terms, repeats, kind=pool["kind"])
        if len(combined) < MIN_REPEATS:
            summaries[pool["pool"]] = (
                f"only {len(combined)} of {repeats} halves of the {of} had an order: nothing can be said"
            )
            continue
        found = _rows(block, combined)
        rows += found
        summaries[pool["pool"]] = _summary(found, len(combined), repeats, of)
    result = pd.DataFrame(
        rows,
        columns=["pool", "source", "rank", "lowest", "highest", "first", "gap", "gap_low", "gap_high"],
    )
    result.attrs |= {
        "repeats": repeats,
        "part": PART,
        "of": of,
        "summaries": summaries,
        "seconds": time.perf_counter() - began,
    }
    return result


def halves(
    labels: np.ndarray, repeats: int, *, seed: int, patients: np.ndarray | None = None
) -> list[np.ndarray]:
    """Random halves of every class, at least two images of each, in random order; patients stay whole."""
    whose = np.arange(len(labels)) if patients is None else np.unique(patients, return_inverse=True)[1]
    # A patient counts in the class that the patient's first image has.
    first = np.unique(whose, return_index=True)[1]
    parts = []
    for number in range(repeats):
        rng = np.random.default_rng([seed, number])
        kept: list[np.ndarray] = []
        for label in np.unique(labels):
            members = rng.permutation(np.flatnonzero(labels[first] == label))
            # Of an odd number the larger or the smaller half, in turn, so that half are kept on average.
            count = (len(members) + (number + int(label)) % 2) // 2
            kept.append(members[: max(2, count)])
        parts.append(rng.permutation(np.flatnonzero(np.isin(whose, np.concatenate(kept)))))
    return parts


def lead(value: float, in_halves: np.ndarray) -> tuple[float, float]:
    """95 % interval of a statistic from its values in random halves; see the notes of `stability`."""
    from scipy.stats import t

    half_width = WIDER * t.ppf(0.975, len(in_halves) - 1) * in_halves.std(ddof=1)
    return float(value - half_width), float(value + half_width)


def _combined(names: list[str], terms: dict[str, np.ndarray], repeats: int, *, kind: str) -> np.ndarray:
    """(halves with an order, sources) combined scores, each rescaled within its candidate set as in a ranking."""
    found = []
    for number in range(repeats):
        cards = pd.DataFrame([terms[name][number] for name in names], columns=list(TERMS), index=names)
        ranked, _ = rank_pool(cards, kind=kind)
        if ranked["rank"].notna().any():
            found.append(ranked.loc[names, COMBINED].to_numpy(dtype=float))
    return np.array(found).reshape(-1, len(names))


def _rows(block: pd.DataFrame, combined: np.ndarray) -> list[dict[str, Any]]:
    ranks = pd.DataFrame(-combined).rank(axis=1, method="min").to_numpy()
    gaps = combined[:, :-1] - combined[:, 1:]
    rows = []
    for place, (_, row) in enumerate(block.iterrows()):
        last = place == len(block) - 1
        low, high = (np.nan, np.nan) if last else lead(row["gap"], gaps[:, place])
        best, worst = np.quantile(ranks[:, place], [0.025, 0.975], method="nearest")
        rows.append(
            {
                "pool": row["pool"],
                "source": row["source"],
                "rank": row["rank"],
                "lowest": int(worst),
                "highest": int(best),
                "first": float((ranks[:, place] == 1).mean()),
                "gap": row["gap"],
                "gap_low": low,
                "gap_high": high,
            }
        )
    return rows


def _summary(rows: list[dict[str, Any]], ordered: int, repeats: int, of: str) -> str:
    first, second = rows[0], rows[1]
    apart = first["gap_low"] > 0
    line = (
        f"{first['source']} leads {second['source']} by {first['gap']:.2f} of the combined score, 95 % interval over "
        f"{of} {first['gap_low']:.2f} to {first['gap_high']:.2f}: other {of} like these would "
        f"{'hardly' if apart else 'easily'} change which of the two is ahead; {first['source']} came first in "
        f"{first['first']:.0%} of {ordered} halves"
    )
    return line if ordered == repeats else f"{line}; {repeats - ordered} more had no order"
