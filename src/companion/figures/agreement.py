"""Scores against the ground truth: the paper's Figs. 4 to 6, its tables as heat maps, tests, intervals, ceilings."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence

import matplotlib as mpl
import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from companion.evaluation.agreement import comparable
from companion.figures.style import (
    BLUE,
    CYCLE,
    GREEN,
    GREY,
    INK,
    ORANGE,
    PROPOSED,
    PURPLE,
    figure_of,
    short,
    title_of,
)
from companion.scores import PAPER_SCORE

# The largest sources of the published tables and of the replication, by their short names -> colour, marker.
LARGE = {
    "imagenet": (ORANGE, "D"),
    "radimagenet": (GREEN, "^"),
    "medmnist": (PURPLE, "s"),
    "inat2017_birds": (GREEN, "^"),
    "inat2017_insects": (PURPLE, "s"),
}


def scores_against_auc(
    table: pd.DataFrame, scores: Sequence[str], targets: Sequence[str], taus: pd.DataFrame
) -> Figure:
    """Draw the paper's Fig. 5: score against AUC, with a regression line and its 95 % band, for every target and score.

    Every panel has a vertical scale of its own, without numbers: only the order counts. The horizontal one is a row's.
    `table` has one row per pair; the τ_w written above the panels are `taus`, targets by scores, and tint the panels.
    """
    import seaborn

    table = table.assign(source=table["source"].map(short))
    looks = {name: look for name, look in LARGE.items() if (table["source"] == name).any()}
    tint = mpl.colormaps["PuOr_r"]

    figure, axes = figure_of(
        1.45 * len(scores), 1.2 * len(targets), len(targets), len(scores), sharex="row", squeeze=False
    )
    figure.set_dpi(110)  # dozens of panels: fewer dots an inch keep the page small
    line = {"color": "black", "line_kws": {"linewidth": 1}, "scatter": False, "n_boot": 200, "seed": 0}
    for row, target in zip(axes, targets, strict=True):
        block = table[table["target"] == target]
        for axis, score in zip(row, scores, strict=True):
            rows = block[["source", score, "auc"]].dropna()
            known, small = rows[[score, "auc"]].to_numpy(), ~rows["source"].isin(list(looks))
            axis.scatter(known[small, 1], known[small, 0], s=11, color=BLUE, linewidths=0)
            for name, (colour, marker) in looks.items():
                one = known[rows["source"] == name]
                axis.scatter(one[:, 1], one[:, 0], s=18, color=colour, marker=marker, linewidths=0)
            if len(known) > 2 and np.ptp(known, axis=0).all():
                seaborn.regplot(x=known[:, 1], y=known[:, 0], ax=axis, **line)
                _thinned(axis.lines[-1], axis.collections[-1])
            axis.margins(0.06, 0.12)  # no mark is cut off
            value = taus.loc[target, score]
            text = "τ undefined" if np.isnan(value) else f"τ = {value:.2f}"
            if not np.isnan(value):
                axis.set_facecolor((*tint((value + 1) / 2)[:3], 0.45))
            axis.set_title(text, fontsize=8, color=INK, pad=2)
            axis.tick_params(labelsize=8, length=2, labelbottom=axis is row[0])
            axis.set_yticks([])
            axis.xaxis.set_major_locator(mpl.ticker.MaxNLocator(2))
        row[0].set_ylabel(short(target), fontsize=9)
    for axis, score in zip(axes[0], scores, strict=True):
        place = {"xycoords": "axes fraction", "ha": "center"}
        axis.annotate(title_of(score), (0.5, 1.32), fontsize=9, fontweight="bold", **place)
    axes[-1][len(scores) // 2].set_xlabel("test AUC after fine-tuning", fontsize=9)
    marks = [
        mpl.lines.Line2D([], [], color=colour, marker=marker, linestyle="", label=name)
        for name, (colour, marker) in looks.items()
    ]
    if marks:
        figure.legend(handles=marks, loc="outside lower center", ncols=len(marks), frameon=False, fontsize=9)
    return figure


def _thinned(line: mpl.lines.Line2D, band: mpl.collections.PolyCollection) -> None:
    """Keep a tenth of the 100 points that seaborn gives each side of a band, and the ends of its straight line."""
    line.set_data(*np.asarray(line.get_xydata())[[0, -1]].T)
    band.set_verts([np.asarray(band.get_paths()[0].vertices)[np.r_[0:101:10, 101:203:10]]])


def tau_table(taus: pd.DataFrame, title: str) -> Figure:
    """Draw τ_w of every score for every target, with the mean in the last row."""
    import seaborn

    shown = pd.concat([taus, taus.mean().to_frame("mean").T])
    figure, axis = figure_of(1.02 * shown.shape[1] + 1.6, 0.36 * shown.shape[0] + 1.6)
    bar = {"label": "weighted Kendall τ"}
    look = {"vmin": -1, "vmax": 1, "cmap": "PuOr_r", "linewidths": 0.5, "cbar_kws": bar}
    seaborn.heatmap(shown, ax=axis, annot=True, fmt=".2f", annot_kws={"fontsize": 8}, **look)
    axis.set_yticks(np.arange(len(shown)) + 0.5, [short(name) for name in shown.index], rotation=0)
    titles = [title_of(name) for name in shown.columns]
    axis.set_xticks(np.arange(shown.shape[1]) + 0.5, titles, rotation=35, ha="right")
    for row, column in np.argwhere(shown.isna().to_numpy()):
        axis.text(column + 0.5, row + 0.5, "–", ha="center", va="center", fontsize=8)
    axis.axhline(len(taus), color="black", linewidth=1.5)
    axis.set_title(title, loc="left", fontsize=10)
    axis.set_ylabel("")
    return figure


def critical_difference(ranks: pd.DataFrame) -> Figure:
    """Draw mean ranks on a line, and join the scores that Nemenyi's test cannot tell apart at 5 %.

    `ranks` are targets by scores, 1 = best, as `companion.evaluation.friedman` returns them.
    """
    import scikit_posthocs

    from companion.evaluation import nemenyi

    figure, axis = figure_of(8, 1.4 + 0.17 * ranks.shape[1])
    names = [title_of(name) for name in ranks.columns]
    differs = nemenyi(ranks).set_axis(names, axis=0).set_axis(names, axis=1)
    means = pd.Series(ranks.mean().to_numpy(), index=names)
    colours = {name: CYCLE[place % len(CYCLE)] for place, name in enumerate(names)}
    colours |= {title_of(PAPER_SCORE): PROPOSED}
    with warnings.catch_warnings():
        # It halves a Series with numpy's array_split, of which pandas below 3 warns.
        warnings.simplefilter("ignore", FutureWarning)
        scikit_posthocs.critical_difference_diagram(means, differs, ax=axis, color_palette=colours)
    title = "mean rank over the targets, 1 = best; joined: not told apart at 5 %"
    axis.set_title(title, fontsize=9, loc="left", pad=18)
    return figure


def benchmark(summary: pd.DataFrame) -> Figure:
    """Draw a benchmark: mean τ_w and interval of every score, baselines as lines, reliability and ceiling as bands.

    `summary` is `companion.evaluation.Benchmark.summary`.
    """
    colours = {"given": ORANGE, "published": BLUE, "computed here": BLUE, "term": GREEN}
    scores = summary[summary["kind"].isin(list(colours))].iloc[::-1]
    simple = summary[(summary["kind"] == "baseline") & summary["mean"].notna()]
    figure, axis = figure_of(8, 1.3 + 0.3 * len(scores) + 0.2 * len(simple))
    for place, (name, row) in enumerate(scores.iterrows()):
        colour = PROPOSED if name == PAPER_SCORE else colours[row["kind"]]
        axis.plot([row["low"], row["high"]], [place, place], color=colour, linewidth=2, alpha=0.6)
        axis.plot(row["mean"], place, "D" if row["kind"] == "given" else "o", color=colour)
    axis.set_yticks(range(len(scores)), [title_of(name) for name in scores.index])
    bands = (
        ("reliability", "reliability of the ground truth", None),
        ("ceiling", "attainable maximum", "///"),
    )
    for kind, label, hatch in bands:
        band = summary.loc[summary["kind"] == kind, "mean"]
        if len(band):
            fill = "none" if hatch else mpl.colors.to_rgba(GREY, 0.25)
            look = {"hatch": hatch, "edgecolor": GREY, "facecolor": fill, "linewidth": 0, "label": label}
            axis.axvspan(band.min(), band.max(), **look)
    for (name, row), line in zip(simple.iterrows(), ("--", ":", "-."), strict=False):
        axis.axvline(row["mean"], color=PURPLE, linestyle=line, label=title_of(str(name)).replace("_", " "))
    axis.axvline(0, color=INK, linewidth=0.8)
    axis.set_xlabel("mean weighted Kendall τ over the targets, with its 95 % interval over sources")
    if axis.get_legend_handles_labels()[1]:
        figure.legend(loc="outside upper center", ncols=2, frameon=False, fontsize=8)
    return figure


def transfer(table: pd.DataFrame, sizes: Mapping[str, float], title: str, *, columns: int = 4) -> Figure:
    """Draw the paper's Fig. 4: test AUC of every source on every target, sources sorted by size, best marked.

    Parameters
    ----------
    table
        Columns ``source``, ``target``, ``auc`` and, where there is an interval, ``auc_low`` and ``auc_high``.
    sizes
        Source -> number of training images; sources without any (random weights) have 0 and come first.
    title
        Where the numbers are from; written above the figure.
    """
    table = comparable(table)
    order = sorted(table["source"].unique(), key=lambda source: (sizes.get(source, np.inf), source))
    targets = sorted(table["target"].unique())
    width = min(columns, len(targets))
    height = -(-len(targets) // width)
    inches = 1.75 * width + 1.2, (0.19 * len(order) + 0.9) * height
    figure, axes = figure_of(*inches, height, width, squeeze=False, sharey=True)
    for axis, target in zip(axes.flat, targets, strict=False):
        block = table[table["target"] == target].set_index("source")
        auc = block["auc"]
        # Names would be numbered anew, in the order of the first panel, which may lack one of them.
        rows = [order.index(source) for source in auc.index]
        axis.axvline(auc.max(), color=INK, linestyle="--", linewidth=0.8)
        if "auc_low" in block:
            axis.hlines(rows, block["auc_low"], block["auc_high"], color=GREY, linewidth=1)
        colours = [ORANGE if source == auc.idxmax() else BLUE for source in auc.index]
        axis.scatter(auc, rows, s=14, color=colours, zorder=3)
        axis.set_yticks(range(len(order)), [short(source) for source in order], fontsize=8)
        axis.set_title(short(target), fontsize=9)
        axis.tick_params(axis="x", labelsize=8)
        axis.xaxis.set_major_locator(mpl.ticker.MaxNLocator(3))
        axis.grid(axis="y", color="#dddddd", linewidth=0.5)
    for axis in axes.flat[len(targets) :]:
        axis.set_visible(False)
    figure.suptitle(title, fontsize=10)
    figure.supxlabel("test AUC after fine-tuning", fontsize=9)
    return figure


def inversion(not_inverted: pd.Series, inverted: pd.Series) -> Figure:
    """Draw the mean τ_w of every score among architectures, not inverted and inverted."""
    order = inverted.sort_values().index
    figure, axis = figure_of(8, 0.36 * len(order) + 1.2)
    places = np.arange(len(order))
    axis.hlines(places, not_inverted[order], inverted[order], color="#bbbbbb", linewidth=2, zorder=1)
    axis.scatter(not_inverted[order], places, color=ORANGE, marker="s", s=40, label="not inverted", zorder=2)
    axis.scatter(inverted[order], places, color=BLUE, s=40, label="as in the paper", zorder=3)
    axis.set_yticks(places, [title_of(str(name)) for name in order])
    axis.axvline(0, color=INK, linewidth=0.8)
    axis.set_xlabel("mean weighted Kendall τ, architectures")
    figure.legend(loc="outside upper center", ncols=2, frameon=False, fontsize=9)
    return figure
