"""Would other images have given another order? The ranking again on random halves of the images."""

from __future__ import annotations

import time
from dataclasses import dataclass

import numpy as np
import pandas as pd

from companion.errors import InputError
from companion.ranking.ranking import Progress, Ranking
from companion.ranking.sets import FEATURE_SCORES, RECOMMENDED, SCALE_INVARIANT, CandidateSet, order
from companion.scores import TERMS

PART = 0.5
MIN_REPEATS = 5
# The combined score bends where another source becomes the highest or lowest in a term, which a spread does not see: in
# the simulation of the tests Student's interval covers 91 to 93 %, and so much wider 94 to 97 %.
WIDER = 1.2


@dataclass(frozen=True)
class Stability:
    """How far other images could move the order of a ranking."""

    table: pd.DataFrame
    """One row per source of every candidate set: ``candidate_set``, ``source``, ``highest`` and ``lowest`` (the 2.5 %
    and 97.5 % quantiles of its place), ``first`` (share of halves in which it came first), ``gap`` (lead over the next
    in the combined score, or in mean rank by the scores of features where there is none), ``gap_low`` and ``gap_high``
    (95 % interval over images)."""
    summaries: dict[str, str]
    """Candidate set -> a sentence."""
    repeats: int
    of: str
    """What the halves are of: ``"images"``, or ``"patients"`` where they are known."""
    seconds: float


def stability_cost(ranking: Ranking, repeats: int) -> float:
    """Seconds that `stability` will take, about: from what the ranking itself took."""
    return repeats * PART * sum(spent["scoring"] for spent in ranking.cost["by_source"].values())


def stability(ranking: Ranking, repeats: int = 20, *, progress: Progress | None = None) -> Stability:
    """Rank again on random halves of the images, and say how far other images could move the order.

    Parameters
    ----------
    ranking
        What `companion.rank` returned.
    repeats
        At least 5; each costs half a ranking by the scores that the order rests on.
    progress
        Called with the fraction done and a line of text.

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
    dataset, options = ranking.dataset, ranking.options
    sets = [one for one in ranking.sets if len(one.advised) > 1]
    images, labels = dataset.draw(options.per_class, seed=options.seed)
    patients = dataset.patients.get("train")
    whose = None if patients is None else patients[dataset.drawn(options.per_class, seed=options.seed)]
    parts = halves(labels, repeats, seed=options.seed, patients=whose)
    rows = []
    names = list(dict.fromkeys(name for one in sets for name in one.table["source"]))
    for index, name in enumerate(names):
        model = options.load(ranking.sources[name], dataset)
        mine = [one for one in sets if name in set(one.table["source"])]
        wanted = [*TERMS, *((SCALE_INVARIANT,) if any(one.ordered for one in mine) else ())]
        wanted += FEATURE_SCORES if not all(one.ordered for one in mine) else ()
        for number, part in enumerate(parts):
            report((index + number / repeats) / len(names), f"{name}: half {number + 1} of {repeats}")
            scores = options.score(model, images[part], labels[part], list(dict.fromkeys(wanted)))
            rows.append({"source": name, "half": number, **scores})
    found, of = pd.DataFrame(rows), "images" if whose is None else "patients"
    tables, summaries = [], {}
    for one in sets:
        values = _values(one, found)
        if len(values) < MIN_REPEATS:
            summaries[one.title] = (
                f"only {len(values)} of {repeats} halves of the {of} had an order: nothing can be said"
            )
            continue
        tables.append(_spread(one, values))
        summaries[one.title] = _summary(one, tables[-1], len(values), repeats, of)
    table = pd.concat(tables, ignore_index=True) if tables else pd.DataFrame()
    return Stability(table, summaries, repeats, of, time.perf_counter() - began)


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


def _merit(table: pd.DataFrame, names: list[str], by_rank: bool) -> np.ndarray:
    """What the order goes by, higher is better: the combined score, else the mean rank turned round."""
    block = table.set_index("source").loc[names]
    return (block[RECOMMENDED] if by_rank else -block["feature_rank"]).to_numpy(dtype=float)


def _values(candidates: CandidateSet, found: pd.DataFrame) -> np.ndarray:
    """(halves with an order, sources): what the order goes by, within its candidate set as in a ranking."""
    names, values = candidates.advised, []
    for _, half in found[found["source"].isin(candidates.table["source"])].groupby("half"):
        table, _ = order(half, kind=candidates.kind)
        if table["rank" if candidates.ordered else "feature_rank"].notna().any():
            values.append(_merit(table, names, candidates.ordered))
    return np.array(values).reshape(-1, len(names))


def _spread(candidates: CandidateSet, values: np.ndarray) -> pd.DataFrame:
    table = pd.DataFrame({"candidate_set": candidates.title, "source": candidates.advised})
    ranks = pd.DataFrame(-values).rank(axis=1, method="min").to_numpy()
    table["highest"], table["lowest"] = np.quantile(ranks, [0.025, 0.975], axis=0, method="nearest").astype(
        int
    )
    table["first"] = (ranks == 1).mean(axis=0)
    whole = _merit(candidates.table, candidates.advised, candidates.ordered)
    table["gap"] = [*(whole[:-1] - whole[1:]), np.nan]
    gaps = values[:, :-1] - values[:, 1:]
    limits = [lead(gap, own) for gap, own in zip(table["gap"], gaps.T, strict=False)]
    table[["gap_low", "gap_high"]] = [*limits, (np.nan, np.nan)]
    return table


def _summary(candidates: CandidateSet, table: pd.DataFrame, ordered: int, repeats: int, of: str) -> str:
    first, second = table.iloc[0], table.iloc[1]
    changes = "hardly" if first["gap_low"] > 0 else "easily"
    what = "of the combined score" if candidates.ordered else "places on average over the scores of features"
    line = (
        f"{first['source']} leads {second['source']} by {first['gap']:.2f} {what}, 95 % interval over "
        f"{of} {first['gap_low']:.2f} to {first['gap_high']:.2f}: other {of} like these would {changes} change which "
        f"of the two is ahead ({first['source']} came first in {first['first'] * ordered:.0f} of {ordered} overlapping "
        "halves)"
    )
    return line if ordered == repeats else f"{line}; {repeats - ordered} more had no order"
