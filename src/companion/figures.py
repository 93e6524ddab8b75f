"""One function a figure. Each takes data, returns a matplotlib figure, and never shows it.

Colours are Okabe and Ito's, which colour-blind readers can tell apart; backgrounds are transparent-safe, with
text in a mid grey that reads on a light and on a dark page.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib as mpl
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

BLUE, ORANGE, GREEN, PURPLE, GREY = "#0072B2", "#E69F00", "#009E73", "#CC79A7", "#7f7f7f"
INK = "#6b6b6b"

TITLES = {
    "logme": "LogME",
    "parc": "PARC",
    "sfda": "SFDA",
    "ncti": "NCTI",
    "leep": "LEEP",
    "nleep": "NLEEP",
    "proposed": "proposed (NCA × gradients)",
    "nca": "NCA alone",
    "gradient_ratio": "gradients alone",
}

_STYLE: Any = {
    "font.size": 10,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "figure.facecolor": "white",
    "axes.facecolor": "white",
    "savefig.facecolor": "white",
    "figure.dpi": 100,
}


def _figure(
    width: float, height: float, rows: int = 1, columns: int = 1, **options: Any
) -> tuple[Figure, Any]:
    """Return a figure that pyplot does not know of, so that a notebook shows it once and memory is given back."""
    with mpl.rc_context(_STYLE):
        figure = Figure(figsize=(width, height), layout="constrained")
        axes = figure.subplots(rows, columns, **options)
    return figure, axes


def short(name: str) -> str:
    """Dataset name without MedMNIST's ending, a source without its prefix, a path without its folders."""
    name = name.replace("\\", "/").rsplit("/", 1)[-1]
    name = name.removeprefix("train:").removeprefix("procedural:")
    return name.removesuffix("mnist") if name not in ("medmnist", "mnist") else name


def mark_synthetic(figure: Figure, synthetic: bool | str) -> None:
    """Write across the top that images behind the figure are synthetic; a text says which."""
    if synthetic:
        text = synthetic if isinstance(synthetic, str) else "synthetic images"
        figure.suptitle(text.upper(), color="#B34700", fontsize=9, fontweight="bold")


def ranking(table: pd.DataFrame) -> Figure:
    """Draw a ranking: the two terms of every source, one panel a pool, best on top.

    Parameters
    ----------
    table
        As `companion.rank` returns it.
    """
    parts = [(title, block) for title, block in table.groupby("pool", sort=False)]
    height = sum(0.42 * len(block) + 1.0 for _, block in parts)
    figure, axes = _figure(
        8,
        max(2.4, height),
        len(parts),
        3,
        squeeze=False,
        gridspec_kw={"height_ratios": [len(b) + 1 for _, b in parts]},
    )
    columns = (
        ("proposed", "combined score", BLUE),
        ("nca", "NCA", GREEN),
        ("gradient_ratio", "gradient ratio", ORANGE),
    )
    for row, (title, block) in zip(axes, parts, strict=True):
        names = [short(name) for name in block["source"]][::-1]
        for axis, (column, label, colour) in zip(row, columns, strict=True):
            values = block[column].to_numpy(dtype=float)[::-1]
            if np.isfinite(values).any():
                axis.barh(names, np.nan_to_num(values), color=colour)
            else:
                axis.set_yticks([])
                axis.text(
                    0.5,
                    0.5,
                    "order undetermined",
                    ha="center",
                    va="center",
                    transform=axis.transAxes,
                    color=INK,
                )
            axis.set_xlabel(label)
            if axis is not row[0]:
                axis.set_yticklabels([]) if np.isfinite(values).any() else None
        if not np.isfinite(block["proposed"].to_numpy(dtype=float)).any():
            row[1].set_yticks(range(len(names)), names)
        row[0].set_title(title, loc="left", fontsize=10)
    mark_synthetic(figure, table.attrs.get("synthetic", ""))
    return figure


def scores_against_auc(
    table: pd.DataFrame, scores: Sequence[str], targets: Sequence[str], taus: pd.DataFrame
) -> Figure:
    """Draw the paper's Fig. 5: score against AUC for every target (rows) and score (columns).

    Parameters
    ----------
    table
        Columns ``source``, ``target``, ``auc`` and the scores; one row per pair.
    scores, targets
        Columns and rows of the grid.
    taus
        Targets by scores, written into the panels.
    """
    figure, axes = _figure(1.75 * len(scores), 1.45 * len(targets), len(targets), len(scores), sharex="row")
    for row, target in zip(axes, targets, strict=True):
        block = table[table["target"] == target]
        for axis, score in zip(row, scores, strict=True):
            known = block[[score, "auc"]].dropna().to_numpy()
            axis.scatter(known[:, 1], known[:, 0], s=11, color=BLUE, linewidths=0)
            _regression(axis, known[:, 1], known[:, 0])
            value = taus.loc[target, score]
            text = "τ undefined" if np.isnan(value) else f"τ = {value:.2f}"
            axis.set_title(text, fontsize=8, color=INK, pad=2)
            axis.tick_params(labelsize=6, length=2)
            axis.yaxis.get_offset_text().set_fontsize(5)
            axis.xaxis.set_major_locator(mpl.ticker.MaxNLocator(2))
            axis.yaxis.set_major_locator(mpl.ticker.MaxNLocator(3))
        row[0].set_ylabel(short(target), fontsize=9)
    for axis, score in zip(axes[0], scores, strict=True):
        axis.annotate(
            TITLES.get(score, score).split(" (")[0],
            (0.5, 1.28),
            xycoords="axes fraction",
            ha="center",
            fontsize=9,
            fontweight="bold",
        )
    figure.supxlabel("test AUC after fine-tuning", fontsize=9)
    return figure


def _regression(axis: Axes, x: np.ndarray, y: np.ndarray) -> None:
    """Least-squares line with the 95 % confidence band of the mean."""
    from scipy import stats

    if len(x) < 3 or np.ptp(x) == 0 or np.ptp(y) == 0:
        return
    fit = stats.linregress(x, y)
    grid = np.linspace(x.min(), x.max(), 50)
    centre = fit.intercept + fit.slope * grid
    residual = np.sqrt(((y - fit.intercept - fit.slope * x) ** 2).sum() / (len(x) - 2))
    spread = np.sqrt(1 / len(x) + (grid - x.mean()) ** 2 / ((x - x.mean()) ** 2).sum())
    half = stats.t.ppf(0.975, len(x) - 2) * residual * spread
    axis.plot(grid, centre, color="black", linewidth=1)
    axis.fill_between(grid, centre - half, centre + half, color=GREY, alpha=0.25, linewidth=0)


def tau_table(taus: pd.DataFrame, title: str) -> Figure:
    """Draw τ_w of every score for every target, with the mean in the last row."""
    import seaborn

    shown = pd.concat([taus, taus.mean().to_frame("mean").T])
    figure, axis = _figure(1.02 * shown.shape[1] + 1.6, 0.36 * shown.shape[0] + 1.6)
    labels = shown.map(lambda value: "–" if np.isnan(value) else f"{value:.2f}")
    seaborn.heatmap(
        shown,
        ax=axis,
        vmin=-1,
        vmax=1,
        cmap="PuOr_r",
        annot=labels,
        fmt="",
        annot_kws={"fontsize": 8},
        cbar_kws={"label": "weighted Kendall τ"},
        linewidths=0.5,
    )
    axis.set_yticks(np.arange(len(shown)) + 0.5, [short(name) for name in shown.index], rotation=0)
    axis.set_xticks(
        np.arange(shown.shape[1]) + 0.5,
        [TITLES.get(c, c).replace(" (NCA × gradients)", "") for c in shown.columns],
        rotation=35,
        ha="right",
    )
    for row, column in np.argwhere(shown.isna().to_numpy()):
        axis.text(column + 0.5, row + 0.5, "–", ha="center", va="center", fontsize=8)
    axis.axhline(len(taus), color="black", linewidth=1.5)
    axis.set_title(title, loc="left", fontsize=10)
    axis.set_ylabel("")
    return figure


def ablation(means: Mapping[str, pd.DataFrame]) -> Figure:
    """Draw the ablation: τ_w of the combined score and of each term alone, per setting, over the targets.

    Parameters
    ----------
    means
        Setting -> τ_w table (targets by scores).
    """
    figure, axes = _figure(8, 3.2, 1, len(means), sharey=True, squeeze=False)
    rng = np.random.default_rng(0)  # spreads the points sideways, no more
    for axis, (setting, taus) in zip(axes[0], means.items(), strict=True):
        for place, (column, colour) in enumerate(
            (("proposed", BLUE), ("nca", GREEN), ("gradient_ratio", ORANGE))
        ):
            values = taus[column].to_numpy()
            axis.bar(place, values.mean(), color=colour, alpha=0.45, width=0.7)
            axis.scatter(place + rng.uniform(-0.18, 0.18, len(values)), values, s=14, color=colour)
            axis.annotate(
                f"mean {values.mean():.3f}",
                (place, 0.96),
                xycoords=("data", "axes fraction"),
                ha="center",
                fontsize=9,
            )
        axis.axhline(0, color=INK, linewidth=0.8)
        axis.set_xticks(range(3), ["NCA × gradients", "NCA alone", "gradients alone"], fontsize=9)
        axis.set_title(setting.replace("_", " "), loc="left", fontsize=10)
    axes[0][0].set_ylabel("weighted Kendall τ")
    return figure


def friedman_ranks(ranks: pd.DataFrame) -> Figure:
    """Draw the critical-difference diagram of the scores' ranks over the targets (Nemenyi, α = 0.05)."""
    import scikit_posthocs

    figure, axis = _figure(8, 2.6)
    differs = scikit_posthocs.posthoc_nemenyi_friedman(ranks.to_numpy())
    differs.index = differs.columns = [TITLES.get(c, c).split(" (")[0] for c in ranks.columns]
    mean = pd.Series(ranks.mean().to_numpy(), index=differs.columns)
    scikit_posthocs.critical_difference_diagram(mean, differs, ax=axis)
    axis.set_title(
        "mean rank over the targets, 1 = best; joined: not told apart at 5 %", fontsize=9, loc="left", pad=18
    )
    return figure


def gradient_norms(passes: Mapping[str, Any], *, synthetic: bool = False) -> Figure:
    """Draw the two convolutions' gradient norms, batch by batch, for several sources.

    Parameters
    ----------
    passes
        Source -> `companion.scores._gradient.Pass`.
    """
    figure, axis = _figure(6.4, 4.2)
    colours = [BLUE, ORANGE, GREEN, PURPLE, "#D55E00", "#56B4E9", "#000000"]
    markers = "osD^vPX"
    for index, (name, done) in enumerate(passes.items()):
        counted = done.triplets > 0
        axis.scatter(
            done.first[counted],
            done.second[counted],
            s=34,
            label=f"{short(name)}: {done.ratio():.2f}",
            color=colours[index % len(colours)],
            marker=markers[index % len(markers)],
            alpha=0.85,
        )
    axis.set_xscale("log")
    axis.set_yscale("log")
    low = min(axis.get_xlim()[0], axis.get_ylim()[0])
    high = max(axis.get_xlim()[1], axis.get_ylim()[1])
    axis.plot([low, high], [low, high], color=INK, linewidth=0.8, linestyle="--")
    axis.set_xlabel("gradient norm of the first convolution")
    axis.set_ylabel("gradient norm of the second")
    axis.legend(title="source: ratio of the means", fontsize=8, title_fontsize=8, frameon=False)
    mark_synthetic(figure, synthetic)
    return figure


def examples(dataset: Any, per_class: int = 6, seed: int = 0) -> Figure:
    """Draw a few training images of every class."""
    rng = np.random.default_rng(seed)
    figure, axes = _figure(
        1.0 * per_class + 1.6, 1.05 * dataset.n_classes + 0.3, dataset.n_classes, per_class, squeeze=False
    )
    images, labels = dataset.images["train"], dataset.labels["train"]
    for label, row in enumerate(axes):
        members = np.flatnonzero(labels == label)
        chosen = rng.permutation(members)[:per_class]
        for axis in row:
            axis.set_axis_off()
        for axis, index in zip(row, chosen, strict=False):
            axis.imshow(images[index], cmap="gray", vmin=0, vmax=255)
        row[0].set_axis_on()
        row[0].set_xticks([])
        row[0].set_yticks([])
        row[0].set_ylabel(dataset.classes[label], rotation=0, ha="right", va="center", fontsize=8)
    mark_synthetic(figure, dataset.synthetic)
    return figure


def regrets(table: pd.DataFrame, choices: Mapping[str, str]) -> Figure:
    """Draw, per target, how much AUC each way of choosing a source gives away.

    Parameters
    ----------
    table
        Targets (index) by ways of choosing: AUC of the best source less AUC of the chosen one.
    choices
        Column -> label, in the order drawn.
    """
    figure, axis = _figure(8, 3.6)
    width = 0.8 / len(choices)
    for place, ((column, label), colour) in enumerate(
        zip(choices.items(), (BLUE, ORANGE, GREEN, GREY), strict=False)
    ):
        axis.bar(
            np.arange(len(table)) + (place - (len(choices) - 1) / 2) * width,
            table[column],
            width,
            color=colour,
            label=f"{label}: mean {table[column].mean():.4f}",
        )
    axis.set_xticks(range(len(table)), [short(name) for name in table.index], rotation=30, ha="right")
    axis.set_ylabel("AUC given away")
    axis.legend(frameon=False, fontsize=8)
    return figure
