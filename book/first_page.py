"""The figure of the first page: how well every score orders sources, published beside replicated.

The tables are the package's; this module takes means and intervals over the targets, and draws them.
"""

from __future__ import annotations

from itertools import combinations

import numpy as np
import pandas as pd
from IPython.display import HTML
from matplotlib.figure import Figure

from companion import evaluation, published, replication
from companion.errors import EnvironmentFailure
from companion.evaluation.hypotheses import PROPOSED_INVARIANT, interval, with_combinations
from companion.figures.style import BLUE, GREY, INK, PROPOSED, figure_of, title_of
from companion.scores import PAPER_SCORE, TERMS
from vector import beside

ALSO = "scale-invariant form"
TITLES = {PAPER_SCORE: "proposed", PROPOSED_INVARIANT: ALSO}


def by_target(rows: pd.DataFrame) -> pd.DataFrame:
    """τ_w of every score, term and baseline that has a column, targets by scores; `rows` are as for `means`."""
    scores = [*published.METRICS, PAPER_SCORE, PROPOSED_INVARIANT, *TERMS]
    names = [name for name in (*scores, *evaluation.BASELINES) if name in rows]
    return evaluation.weighted_tau(rows[["source", "target", "auc", *names]])


def means(rows: pd.DataFrame) -> pd.DataFrame:
    """Mean τ_w over the targets with Student's interval, of every score, term and baseline that has a column.

    Parameters
    ----------
    rows
        One row per (source, target) with ``auc``, the scores and the baselines; without source == target.

    Returns
    -------
    pandas.DataFrame
        By score, best first within each ``kind`` (``score``, ``baseline``): ``mean``, ``low``, ``high``, ``targets`` on
        which it is defined. NaN where these are fewer than two.
    """
    taus = by_target(rows)
    names = list(taus)
    found = pd.DataFrame(index=pd.Index(names, name="score"), columns=["mean", "low", "high"], dtype=float)
    for name in names:
        values = taus[name].dropna().to_numpy()
        if len(values) > 1:
            found.loc[name] = [values.mean(), *map(float, interval(values))]
    found["targets"] = taus.notna().sum()
    found["kind"] = np.where(found.index.isin(list(evaluation.BASELINES)), "baseline", "score")
    return found.sort_values(["kind", "mean"], ascending=[False, False])


def published_means() -> pd.DataFrame:
    """Means over the eleven published targets of the setting with source datasets."""
    rows = evaluation.published_pairs("source_datasets")
    simple = evaluation.baselines(rows).drop(columns=["source", "target", "auc"])
    return means(rows.join(simple))


def replicated() -> pd.DataFrame:
    """Rows of the second replication, with baselines and combinations, on its complete folds."""
    truth = replication.ground_truth().groupby(["target", "source"])["auc"].mean().unstack("source")
    return with_combinations(replication.pair_scores(), truth)


def replicated_means() -> pd.DataFrame:
    """Means over the targets of the second replication."""
    return means(replicated())


def replicated_taus() -> pd.DataFrame:
    """τ_w on every target of the second replication."""
    return by_target(replicated())


def fold_taus() -> pd.DataFrame:
    """τ_w between the orders of the sources on every two folds of the second replication, targets by pairs of folds."""
    truth = replication.ground_truth().query("source != 'scratch'")
    wide = truth.pivot(index=["target", "source"], columns="fold", values="auc")
    by_target = wide.groupby("target")
    return pd.DataFrame(
        {
            pair: by_target[list(pair)].apply(lambda rows: evaluation.tau(*rows.to_numpy().T))
            for pair in combinations(wide.columns, 2)
        }
    )


def ceiling() -> tuple[float, float] | None:
    """Noise ceiling of the published ground truth, from its two estimates; None where the runs are missing."""
    try:
        found = evaluation.noise_ceiling(published.runs(download=False)).mean["mean"]
    except EnvironmentFailure:
        return None
    ways = found[[name for name in found.index if name.startswith("attainable")]]
    return float(ways.min()), float(ways.max())


def panel(
    found: pd.DataFrame,
    title: str,
    band: tuple[float, float] | None = None,
    limits: tuple[float, float] = (-1, 1),
) -> Figure:
    """Draw one table of `means`: a dot and its interval a row, the proposed score in its colour, baselines below.

    Parameters
    ----------
    found
        As `means` returns it.
    title
        Written above.
    band
        Noise ceiling, drawn as a grey band.
    limits
        Of τ, the same for panels that are compared.
    """
    height = 0.26 * len(found) + 1.3
    figure, axis = figure_of(3.9, height)
    figure.set_layout_engine(None)  # the axes of panels that are compared begin and end alike
    figure.subplots_adjust(left=0.42, right=0.97, bottom=0.55 / height, top=1 - 0.6 / height)
    most = found["targets"].max()
    gap = 0.6 * (found["kind"] == "baseline")
    places = -(np.arange(len(found)) + gap.to_numpy())
    for place, (name, row) in zip(places, found.iterrows(), strict=True):
        own = name in (PAPER_SCORE, PROPOSED_INVARIANT)
        colour = PROPOSED if own else BLUE if row["kind"] == "score" else INK
        if np.isnan(row["mean"]):
            axis.annotate("undefined", (0.03, place), va="center", fontsize=8, color=INK)
            continue
        axis.plot([row["low"], row["high"]], [place, place], color=colour, linewidth=3 if own else 1.6)
        marker = {"score": "o", "baseline": "s"}[row["kind"]]
        axis.plot(row["mean"], place, marker, color=colour, markersize=7 if own else 5)
    labels = []
    for name, row in found.iterrows():
        some = 0 < row["targets"] < most
        labels.append(TITLES.get(name, title_of(name)) + (f" ({row['targets']} targets)" if some else ""))
    axis.set_yticks(places, labels)
    for text, name in zip(axis.get_yticklabels(), found.index, strict=True):
        if name in (PAPER_SCORE, PROPOSED_INVARIANT):
            text.set(color=PROPOSED, fontweight="bold")
    if band:
        axis.axvspan(*band, color=GREY, alpha=0.3, linewidth=0)
        middle = (float(np.mean(band)), 1.01)
        where = {"xycoords": ("data", "axes fraction"), "ha": "center", "va": "bottom"}
        axis.annotate("noise ceiling", middle, **where, fontsize=8)
    axis.axvline(0, color=INK, linewidth=0.8)
    axis.set_xlim(*limits)
    axis.set_ylim(places[-1] - 0.7, 0.7)
    axis.tick_params(axis="y", length=0)
    axis.spines["left"].set_visible(False)
    axis.set_xlabel("mean weighted Kendall τ")
    figure.suptitle(title, fontsize=11, fontweight="bold", x=0.02, ha="left")
    return figure


def described(found: pd.DataFrame, title: str) -> str:
    """Alternative text of a panel: its rows in order, in words."""
    rows = [
        f"{TITLES.get(name, title_of(str(name)))} " + ("undefined" if np.isnan(mean) else f"{mean:.2f}")
        for name, mean in found["mean"].items()
    ]
    return f"{title}. Mean weighted Kendall tau, scores then baselines: {', '.join(rows)}."


def result() -> HTML:
    """Show the figure of the first page: published tables, and the second replication."""
    ours, theirs = replicated_means(), published_means()
    ends = np.concatenate([ours[["low", "high"]], theirs[["low", "high"]]])
    limits = float(np.nanmin(ends)) - 0.05, max(float(np.nanmax(ends)) + 0.05, 0.9)
    titles = ("Published tables", "Our replication")
    return beside(
        {
            described(theirs, titles[0]): panel(theirs, titles[0], ceiling(), limits),
            described(ours, titles[1]): panel(ours, titles[1], None, limits),
        }
    )
