"""Figures of the reproduction notes: one a caveat, from published tables or from synthetic features that say so."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from companion.figures.style import (
    BLUE,
    GREEN,
    GREY,
    INK,
    ORANGE,
    PROPOSED,
    PURPLE,
    figure_of,
    mark_synthetic,
    short,
    title_of,
)
from companion.scores import PAPER_SCORE

if TYPE_CHECKING:
    from companion.datasets import Dataset


def by_width(values: Mapping[str, Mapping[int, float]], points: int) -> Figure:
    """Draw LogME of synthetic noise against the number of features, as published and corrected.

    Parameters
    ----------
    values
        Variant -> width -> LogME.
    points
        Number of points; right of it the released formula leaves terms out.
    """
    figure, axis = figure_of(7, 3.4)
    for (variant, found), colour, marker in zip(values.items(), (ORANGE, BLUE), "so", strict=False):
        axis.plot(
            list(found), list(found.values()), color=colour, marker=marker, clip_on=False, label=variant
        )
    axis.axvline(points, color=INK, linestyle="--", linewidth=0.9)
    axis.annotate(
        "as many features as points",
        (points, 0.97),
        xycoords=("data", "axes fraction"),
        xytext=(-4, 0),
        textcoords="offset points",
        rotation=90,
        ha="right",
        va="top",
        fontsize=8,
        color=INK,
    )
    axis.set_xscale("log", base=2)
    axis.set_yscale("symlog", linthresh=1)
    axis.set_xlabel("features")
    axis.set_ylabel("LogME of pure noise")
    axis.legend(frameon=False, fontsize=9)
    mark_synthetic(figure, "synthetic features")
    return figure


def saturation(shares: pd.DataFrame) -> Figure:
    """Draw, per target, the share of sources to which SFDA gives exactly 1.

    Parameters
    ----------
    shares
        Targets by settings, 0 to 1.
    """
    figure, axis = figure_of(8, 3.2)
    width = 0.8 / shares.shape[1]
    for place, (setting, colour) in enumerate(zip(shares.columns, (BLUE, ORANGE), strict=False)):
        axis.bar(
            np.arange(len(shares)) + (place - (shares.shape[1] - 1) / 2) * width,
            shares[setting],
            width,
            color=colour,
            label=str(setting).replace("_", " "),
        )
    axis.set_xticks(range(len(shares)), [short(str(name)) for name in shares.index], rotation=30, ha="right")
    axis.set_ylabel("share of sources with SFDA = 1")
    figure.legend(loc="outside upper center", ncols=shares.shape[1], frameon=False, fontsize=9)
    return figure


def other_ground_truths(means: pd.DataFrame, highlighted: Sequence[str]) -> Figure:
    """Draw the mean τ_w of every score against several summaries of the same fine-tuning runs, one row a summary.

    Parameters
    ----------
    means
        Scores by summaries.
    highlighted
        Scores drawn in colour, at most three, the proposed one among them or not; the others are grey.
    """
    figure, axis = figure_of(6, 0.5 * means.shape[1] + 1.1)
    places = -np.arange(means.shape[1])
    axis.hlines(places, means.min(), means.max(), color="#c4c4c4", linewidth=1, zorder=1)
    markers = dict(zip(highlighted, "D^s", strict=False))
    colours = dict(
        zip((name for name in highlighted if name != PAPER_SCORE), (BLUE, GREEN, PURPLE), strict=False)
    )
    for name, row in means.iterrows():
        lit = name in markers
        axis.scatter(
            row,
            places,
            color=PROPOSED if name == PAPER_SCORE else colours.get(name, GREY),
            marker=markers.get(name, "o"),
            s=48 if lit else 16,
            zorder=3 if lit else 2,
            label=title_of(str(name)) if lit else None,
        )
    axis.set_yticks(places, [str(name).replace(" validation", "\nvalidation") for name in means.columns])
    axis.set_ylim(places[-1] - 0.5, 0.5)
    axis.set_xlabel("mean weighted Kendall τ (grey: the other scores)")
    figure.legend(loc="outside upper center", ncols=len(highlighted), frameon=False, fontsize=9)
    return figure


def size_and_auc(taus: pd.DataFrame) -> Figure:
    """Draw, per target, the τ_w of training-set size against AUC, with all sources and without the large ones.

    Parameters
    ----------
    taus
        Targets by ``"all sources"`` and ``"without the three large"``.
    """
    order = taus.iloc[:, 0].sort_values().index
    figure, axis = figure_of(8, 0.3 * len(order) + 1.2)
    places = np.arange(len(order))
    for column, colour, marker in zip(taus.columns, (BLUE, GREEN), "o^", strict=False):
        axis.scatter(taus.loc[order, column], places, color=colour, marker=marker, s=34, label=str(column))
        axis.axvline(taus[column].mean(), color=colour, linewidth=1, linestyle=":")
    axis.axvline(0, color=INK, linewidth=0.8)
    axis.set_yticks(places, [short(str(name)) for name in order])
    axis.set_xlabel("weighted Kendall τ of training images against AUC; dotted: mean")
    figure.legend(loc="outside upper center", ncols=2, frameon=False, fontsize=9)
    return figure


def samples(sets: Mapping[str, Dataset], columns: int = 6) -> Figure:
    """Draw a few training images of every dataset, one of each class where there are as many, and its class balance.

    `sets` is name -> dataset. The bar on the right has a part a class, as long as its share of the training images.
    """
    figure, axes = figure_of(
        8, 1.05 * len(sets) + 0.3, len(sets), columns + 1, squeeze=False, width_ratios=[1] * columns + [3]
    )
    for row, (name, dataset) in zip(axes, sets.items(), strict=True):
        images, labels = dataset.images["train"], dataset.labels["train"]
        counts = np.bincount(labels, minlength=dataset.n_classes)
        for place, axis in enumerate(row[:columns]):
            # Classes in turn; the second image of a class where there are fewer classes than columns.
            label, again = place % dataset.n_classes, place // dataset.n_classes
            axis.imshow(images[np.flatnonzero(labels == label)[again]], cmap="gray", vmin=0, vmax=255)
            axis.set(xticks=[], yticks=[])
        row[0].set_ylabel(name, rotation=0, ha="right", va="center", fontsize=9)
        ends = np.concatenate([[0], counts.cumsum()]) / counts.sum()
        for label, (low, high) in enumerate(pairwise(ends)):
            row[-1].barh(0, high - low, left=low, color=BLUE, alpha=1 - 0.75 * (label % 2), height=0.6)
        row[-1].set(xlim=(0, 1), ylim=(-1, 1), xticks=[], yticks=[])
        row[-1].set_title(f"{dataset.n_classes} classes, {counts.sum():,} images", fontsize=8, loc="left")
        for side in row[-1].spines.values():
            side.set_visible(False)
    return figure
