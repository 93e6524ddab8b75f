"""Would other images have given another order? The ranking again on random halves of the images."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from companion.errors import InputError
from companion.ranking.sets import ALWAYS, CandidateSet, merits, order
from companion.scores.from_images import score_images
from companion.training.loop import Report, part_of

if TYPE_CHECKING:
    from companion.ranking.ranking import Ranking

MIN_REPEATS = 5
# The combined score bends where another source becomes the highest or lowest in a term, which a spread does not see: in
# the simulation of the tests Student's interval covers 91 to 93 %, and so much wider 94 to 97 %.
WIDER = 1.2


@dataclass(frozen=True)
class Stability:
    """How far other images could move the order that the recommendation is about."""

    table: pd.DataFrame
    """One row per source, best first: ``source``, ``highest`` and ``lowest`` (the 2.5 % and 97.5 % quantiles of its
    place), ``first`` (share of halves in which it came first), ``gap`` (lead over the next in the combined score, or in
    mean rank by the scores of features where there is none), ``gap_low`` and ``gap_high`` (95 % interval over images).
    Empty where too few halves had an order."""
    summary: str
    """A sentence on the first two."""
    repeats: int
    of: str
    """What the halves are of: ``"images"``, or ``"patients"`` where they are known."""


def stability(ranking: Ranking, repeats: int = 20, *, progress: Report | None = None) -> Stability:
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
    dataset, drawn = ranking.dataset, ranking.drawn
    images, labels = dataset.images["train"][drawn], dataset.labels["train"][drawn]
    patients = dataset.patients.get("train")
    whose, of = (None, "images") if patients is None else (patients[drawn], "patients")
    parts = halves(labels, repeats, seed=ranking.scoring["seed"], patients=whose)
    best, rows = ranking.best, []
    for index, name in enumerate(best.advised):
        model = ranking.load(name)
        tell = part_of(progress, index, len(best.advised))
        for number, part in enumerate(parts):
            tell(number / repeats, f"{name}: half {number + 1} of {repeats}")
            scores = score_images(model, images[part], labels[part], scores=ALWAYS, **ranking.scoring)
            rows.append({"source": name, "half": number, **scores})
    values = values_in_halves(best, pd.DataFrame(rows))
    if len(values) < MIN_REPEATS:
        few = f"Only {len(values)} of {repeats} halves of the {of} had an order: nothing can be said"
        return Stability(pd.DataFrame(), few, repeats, of)
    table = spread(best, values)
    return Stability(table, summary(best, table, len(values), repeats, of), repeats, of)


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


def values_in_halves(candidates: CandidateSet, scores: pd.DataFrame) -> pd.DataFrame:
    """(halves with an order, sources, best first): what the order goes by, within the set as in a ranking."""
    of_set = scores[scores["source"].isin(candidates.advised)]
    orders = [order(half, kind=candidates.kind)[0] for _, half in of_set.groupby("half")]
    return pd.DataFrame([merits(table, candidates.by) for table in orders])[candidates.advised].dropna()


def spread(candidates: CandidateSet, values: pd.DataFrame) -> pd.DataFrame:
    """Rows of `Stability.table` for a candidate set, from what `values_in_halves` gives."""
    ranks = values.rank(axis=1, ascending=False, method="min").astype(int)
    whole = merits(candidates.table, candidates.by)[candidates.advised]
    gaps, gap = values.diff(-1, axis=1), whole.diff(-1)
    most = 1 if candidates.ordered else len(whole) - 1  # what a lead can be
    limits = [lead(gap[name], gaps[name].to_numpy()) for name in candidates.advised[:-1]]
    limits = np.clip(limits, -most, most).tolist()
    low, high = zip(*limits, (np.nan, np.nan), strict=True)
    highest, lowest = ranks.quantile([0.025, 0.975], interpolation="nearest").to_numpy()
    columns = {"source": candidates.advised, "highest": highest, "lowest": lowest}
    columns |= {"first": (ranks == 1).mean().to_numpy(), "gap": gap.to_numpy()}
    return pd.DataFrame(columns | {"gap_low": low, "gap_high": high})


def summary(candidates: CandidateSet, table: pd.DataFrame, ordered: int, repeats: int, of: str) -> str:
    """Sentence on the first two of a candidate set, from its rows of `Stability.table`."""
    first, second = table["source"][:2]
    gap, low, high, share = table.loc[0, ["gap", "gap_low", "gap_high", "first"]]
    what = "of the combined score" if candidates.ordered else "places on average over the scores of features"
    line = (
        f"{first} leads {second} by {gap:.2f} {what}, 95 % interval over {of} {low:.2f} to {high:.2f}: other {of} like "
        f"these would {'hardly' if low > 0 else 'easily'} change which of the two is ahead ({first} came first in "
        f"{share * ordered:.0f} of {ordered} overlapping halves)"
    )
    return line if ordered == repeats else f"{line}; {repeats - ordered} more had no order"
