"""What was computed on images at hand: rankings, gradients, training curves, the images themselves."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import matplotlib as mpl
import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from companion.figures.style import (
    BLUE,
    CYCLE,
    GREEN,
    GREY,
    INK,
    ORANGE,
    PURPLE,
    figure_of,
    literal,
    mark_synthetic,
    short,
)

if TYPE_CHECKING:
    from companion.ranking import Ranking


def ranking(found: Ranking) -> Figure:
    """Draw a ranking: the combined score and the two terms of every source, one row a candidate set, best on top.

    Parameters
    ----------
    found
        As `companion.rank` returns it.
    """
    sets = found.sets
    heights = [len(one.table) + 1 for one in sets]
    height = max(2.4, sum(0.42 * rows + 0.58 for rows in heights))
    figure, axes = figure_of(8, height, len(sets), 3, squeeze=False, gridspec_kw={"height_ratios": heights})
    columns = (
        ("proposed", "combined score", BLUE),
        ("nca", "NCA", GREEN),
        ("gradient_ratio", "gradient ratio", ORANGE),
    )
    for row, one in zip(axes, sets, strict=True):
        # As the table calls them, but for the folders of a path.
        names = [literal(name.rsplit("/", 1)[-1]) for name in one.table["source"]][::-1]
        for axis, (column, label, colour) in zip(row, columns, strict=True):
            values = one.table[column].to_numpy(dtype=float)[::-1]
            known = np.isfinite(values)
            axis.barh(np.flatnonzero(known), values[known], color=colour)
            for place in np.flatnonzero(~known) if known.any() else ():
                at = ("axes fraction", "data")
                axis.annotate("missing", (0, place), xycoords=at, color=INK, va="center")
            if not known.any():
                axis.set_xticks([])
                axis.text(0.5, 0.5, "order undetermined", ha="center", transform=axis.transAxes, color=INK)
            axis.set_xlabel(label)
            axis.set_yticks(range(len(names)), names if axis is row[0] else [""] * len(names))
            axis.set_ylim(-0.6, len(names) - 0.4)
        row[0].set_title(one.title, loc="left", fontsize=10)
    mark_synthetic(figure, found.synthetic)
    return figure


def gradient_norms(passes: Mapping[str, Any], *, synthetic: bool = False) -> Figure:
    """Draw the two convolutions' gradient norms, batch by batch, for several sources.

    Parameters
    ----------
    passes
        Source -> `companion.scores.forward_pass.ForwardPass`.
    """
    figure, axis = figure_of(6.4, 4.2)
    markers = "osD^vPX"
    for index, (name, done) in enumerate(passes.items()):
        counted = done.triplets > 0
        axis.scatter(
            done.first[counted],
            done.second[counted],
            s=34,
            label=f"{literal(short(name))}: {done.ratio():.2f}",
            color=CYCLE[index % len(CYCLE)],
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
    figure, axes = figure_of(
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
        row[0].set_ylabel(literal(dataset.classes[label]), rotation=0, ha="right", va="center", fontsize=8)
    mark_synthetic(figure, dataset.synthetic)
    return figure


def augmentations(
    images: np.ndarray, rows: Mapping[str, np.ndarray], *, synthetic: bool | str = False
) -> Figure:
    """Draw images as they are (first row) and augmented (one more row each).

    Parameters
    ----------
    images
        uint8, (m, height, width[, 3]).
    rows
        Label of a row -> the same images augmented, (m, channels, height, width) from 0 to 1.
    """
    figure, axes = figure_of(
        1.0 * len(images) + 1, 1.1 * (len(rows) + 1), len(rows) + 1, len(images), squeeze=False
    )
    plain = images / 255.0
    stacks = {"as they are": plain} | {
        label: np.moveaxis(batch, 1, -1).squeeze(-1) if batch.shape[1] == 1 else np.moveaxis(batch, 1, -1)
        for label, batch in rows.items()
    }
    for row, (label, stack) in zip(axes, stacks.items(), strict=True):
        for axis, image in zip(row, stack, strict=True):
            axis.imshow(image, cmap="gray", vmin=0, vmax=1)
            axis.set_xticks([])
            axis.set_yticks([])
        row[0].set_ylabel(label, fontsize=8, rotation=0, ha="right", va="center")
    mark_synthetic(figure, synthetic)
    return figure


_LINES = (
    (BLUE, "-"),
    (ORANGE, "--"),
    (GREEN, "-."),
    (PURPLE, ":"),
    ("#56B4E9", "-"),
    ("#D55E00", "--"),
    (GREY, "-."),
)


def curves(
    panels: Mapping[str, Mapping[str, Sequence[float]]],
    marked: Mapping[str, int] | None = None,
    *,
    synthetic: bool | str = False,
) -> Figure:
    """Draw what was measured epoch by epoch.

    Parameters
    ----------
    panels
        What is measured -> name of a model -> one value an epoch.
    marked
        Name of a model -> the epoch (from 1) whose weights are kept, drawn as a dot.
    """
    figure, axes = figure_of(4.4 * len(panels) + 1.8, 3.4, 1, len(panels), squeeze=False)
    names = list(dict.fromkeys(name for lines in panels.values() for name in lines))
    looks = {name: _LINES[place % len(_LINES)] for place, name in enumerate(names)}
    shown = {}
    for axis, (what, lines) in zip(axes[0], panels.items(), strict=True):
        for name, values in lines.items():
            colour, dash = looks[name]
            epochs = np.arange(1, len(values) + 1)
            (shown[name],) = axis.plot(epochs, values, color=colour, linestyle=dash)
            if marked and name in marked:
                axis.plot(marked[name], values[marked[name] - 1], "o", color=colour)
        axis.set_xlabel("epoch")
        axis.set_ylabel(what)
        axis.xaxis.set_major_locator(mpl.ticker.MaxNLocator(integer=True))
    axes[0][-1].legend(
        [shown[name] for name in names],
        [literal(short(name)) for name in names],
        loc="upper left",
        bbox_to_anchor=(1.0, 1.0),
        frameon=False,
        fontsize=8,
    )
    mark_synthetic(figure, synthetic)
    return figure


def projections(
    panels: Mapping[str, np.ndarray],
    labels: np.ndarray,
    classes: Sequence[str],
    *,
    synthetic: bool | str = False,
) -> Figure:
    """Draw the paper's Fig. 3: two-dimensional maps of the same points in several representations.

    Parameters
    ----------
    panels
        Title -> (n, 2) coordinates.
    labels, classes
        (n,) class indices, and the names of the classes.
    """
    figure, axes = figure_of(2.6 * len(panels), 3.2, 1, len(panels), squeeze=False)
    for axis, (heading, points) in zip(axes[0], panels.items(), strict=True):
        for label, name in enumerate(classes):
            own = points[labels == label]
            if len(own):
                axis.scatter(
                    own[:, 0],
                    own[:, 1],
                    s=13,
                    color=CYCLE[label % len(CYCLE)],
                    marker="o^sDvPX*<"[label % 9],
                    alpha=0.75,
                    label=literal(name) if axis is axes[0][0] else None,
                )
        axis.set_title(heading, fontsize=9, loc="left")
        axis.set_xticks([])
        axis.set_yticks([])
    figure.legend(loc="outside lower center", ncols=min(len(classes), 6), frameon=False, fontsize=9)
    mark_synthetic(figure, synthetic)
    return figure


def similarity(table: pd.DataFrame, measures: Mapping[str, str]) -> Figure:
    """Draw how close each representation comes to the fine-tuned one: points are sources, bars their mean.

    Parameters
    ----------
    table
        Columns ``source``, ``representation`` and the measures; folds are averaged.
    measures
        Column -> what it is.
    """
    looks = {
        "before": ("before", GREY),
        "nca": ("NCA", GREEN),
        "lda": ("LDA", ORANGE),
        "after": ("fine-tuned", BLUE),
    }
    order = [name for name in looks if name in set(table["representation"])]
    figure, axes = figure_of(3.1 * len(measures), 3.0, 1, len(measures), squeeze=False)
    means = table.groupby(["source", "representation"])[list(measures)].mean()
    rng = np.random.default_rng(0)  # spreads the points sideways, no more
    for axis, (measure, what) in zip(axes[0], measures.items(), strict=True):
        # Against itself every measure but the separation is 1.
        shown = order if measure == "separation" else [name for name in order if name != "after"]
        for place, name in enumerate(shown):
            colour = looks[name][1]
            values = means.xs(name, level="representation")[measure].to_numpy()
            axis.bar(place, values.mean(), color=colour, alpha=0.45, width=0.7)
            axis.scatter(place + rng.uniform(-0.15, 0.15, len(values)), values, s=14, color=colour)
        axis.set_xticks(range(len(shown)), [looks[name][0] for name in shown], fontsize=9)
        axis.set_title("\n".join(textwrap.wrap(what, 38)), fontsize=8, loc="left")
        axis.set_ylim(0, 1)
    return figure
