"""What was computed on images: rankings, training curves, the images themselves."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.figure import Figure

from companion.figures.style import (
    CYCLE,
    GREEN,
    INK,
    ORANGE,
    PROPOSED,
    figure_of,
    literal,
    mark_synthetic,
    short,
)

MAX_CLASSES = 12


def ranking(found: Any) -> Figure:
    """Draw a ranking: what the order of each candidate set goes by and its two terms, one below the other.

    Parameters
    ----------
    found
        `companion.ranking.Ranking`, as `companion.rank` returns it.
    """
    panels = []
    for one in found.sets:
        by = "combined score" if one.ordered else "mean rank by features (1 is best)"
        terms = (("nca", "NCA", GREEN), (one.ratio, "gradient ratio", ORANGE))
        panels += [(one, *panel) for panel in ((one.by, by, PROPOSED), *terms)]
    heights = [len(one.table) + 1.8 for one, *_ in panels]
    figure, axes = figure_of(
        5, 0.3 * sum(heights), len(panels), 1, squeeze=False, gridspec_kw={"height_ratios": heights}
    )
    for place, (axis, (one, column, label, colour)) in enumerate(zip(axes[:, 0], panels, strict=True)):
        values = one.table[column].to_numpy(dtype=float)[::-1]
        known = np.isfinite(values)
        axis.barh(np.flatnonzero(known), values[known], color=colour)
        for missing in np.flatnonzero(~known):
            axis.annotate("missing", (0, missing), xycoords=("axes fraction", "data"), color=INK, va="center")
        if not known.any():
            axis.set_xticks([])
        axis.set_xlabel(label)
        axis.set_yticks(range(len(values)), [literal(name) for name in one.table["source"]][::-1])
        axis.set_ylim(-0.6, len(values) - 0.4)
        if place % 3 == 0:
            axis.set_title(literal(one.title), loc="left", fontsize=10)
    mark_synthetic(figure, found.synthetic)
    return figure


def examples(dataset: Any, per_class: int = 6, seed: int = 0) -> Figure:
    """Draw a few training images of every class, or finding, of a dozen at most."""
    rng = np.random.default_rng(seed)
    rows = min(dataset.n_classes, MAX_CLASSES)
    figure, axes = figure_of(per_class + 1.6, 1.05 * rows + 0.3, rows, per_class, squeeze=False)
    images, labels = dataset.images["train"], dataset.labels["train"]
    for label, row in enumerate(axes):
        members = np.flatnonzero(labels == label if labels.ndim == 1 else labels[:, label])
        chosen = rng.permutation(members)[:per_class]
        for axis in row:
            axis.set_axis_off()
        for axis, index in zip(row, chosen, strict=False):
            axis.imshow(images[index], cmap="gray", vmin=0, vmax=255)
        row[0].set_axis_on()
        row[0].set(xticks=[], yticks=[])
        row[0].set_ylabel(literal(dataset.classes[label]), rotation=0, ha="right", va="center", fontsize=8)
    mark_synthetic(figure, dataset.synthetic)
    return figure


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
    dashes = ("-", "--", "-.", ":")
    looks = {
        name: (CYCLE[place % len(CYCLE)], dashes[place % len(dashes)]) for place, name in enumerate(names)
    }
    shown = {}
    for axis, (what, lines) in zip(axes[0], panels.items(), strict=True):
        for name, values in lines.items():
            colour, dash = looks[name]
            epochs = np.arange(1, len(values) + 1)
            (shown[name],) = axis.plot(epochs, values, color=colour, linestyle=dash)
            if marked and name in marked:
                axis.plot(marked[name], values[marked[name] - 1], "o", color=colour)
        axis.set(xlabel="epoch", ylabel=what)
        axis.xaxis.set_major_locator(mpl.ticker.MaxNLocator(integer=True))
    labels = [literal(short(name)) for name in names]
    place = {"loc": "upper left", "bbox_to_anchor": (1.0, 1.0)}
    axes[0][-1].legend([shown[name] for name in names], labels, frameon=False, fontsize=8, **place)
    mark_synthetic(figure, synthetic)
    return figure
