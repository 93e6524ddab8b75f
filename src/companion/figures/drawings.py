"""Drawings that hold no data: the problem (the paper's Fig. 1), the method (its Fig. 2), the rooms of the package."""

from __future__ import annotations

from collections.abc import Sequence

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import FancyArrowPatch, FancyBboxPatch

from companion.figures.style import BLUE, GREEN, GREY, INK, ORANGE, PURPLE, figure_of

_PALE = {BLUE: "#d9e8f3", GREEN: "#d9efe8", ORANGE: "#fbeccc", PURPLE: "#f5e4ee", GREY: "#ececec"}


def _canvas(width: float, height: float) -> tuple[Figure, Axes]:
    """An empty figure in units of one inch."""
    figure, axis = figure_of(width, height)
    axis.set_xlim(0, width)
    axis.set_ylim(0, height)
    axis.set_axis_off()
    axis.set_aspect("equal")
    return figure, axis


def _box(
    axis: Axes, x: float, y: float, width: float, height: float, text: str, colour: str, size: float = 9
) -> None:
    """A rounded box with centred text; x and y are its middle."""
    axis.add_patch(
        FancyBboxPatch(
            (x - width / 2, y - height / 2),
            width,
            height,
            boxstyle="round,pad=0,rounding_size=0.08",
            facecolor=_PALE[colour],
            edgecolor=colour,
            linewidth=1.2,
        )
    )
    axis.text(x, y, text, ha="center", va="center", fontsize=size)


def _arrow(
    axis: Axes, start: tuple[float, float], end: tuple[float, float], colour: str = INK, curve: float = 0.0
) -> None:
    axis.add_patch(
        FancyArrowPatch(
            start,
            end,
            arrowstyle="-|>",
            mutation_scale=11,
            color=colour,
            linewidth=1.3,
            shrinkA=2,
            shrinkB=2,
            connectionstyle=f"arc3,rad={curve}",
        )
    )


def problem(models: Sequence[str] = ("ImageNet", "RadImageNet", "chest X-rays", "skin", "retina")) -> Figure:
    """Draw the question: a zoo of models and a small labelled target; which model first, before any fine-tuning?

    Parameters
    ----------
    models
        Names written on the models of the zoo.
    """
    figure, axis = _canvas(8.4, 3.6)
    axis.text(1.1, 3.42, "pre-trained models", ha="center", fontsize=10, fontweight="bold")
    for place, name in enumerate(models):
        _box(axis, 1.1, 2.95 - 0.56 * place, 1.8, 0.42, name, BLUE)
    axis.text(3.75, 3.42, "target: a few labelled images", ha="center", fontsize=10, fontweight="bold")
    for row in range(3):
        for column in range(4):
            sick = (row + column) % 3 == 0
            _box(
                axis,
                3.0 + 0.5 * column,
                2.85 - 0.5 * row,
                0.42,
                0.42,
                "+" if sick else "–",
                ORANGE if sick else GREY,
            )
    _box(axis, 3.75, 0.75, 2.3, 0.6, "transferability score\n(minutes, no fine-tuning)", GREEN)
    _arrow(axis, (2.05, 1.55), (2.75, 0.95), curve=0.15)
    _arrow(axis, (3.75, 1.58), (3.75, 1.08))
    _arrow(axis, (4.92, 0.75), (5.72, 1.55), curve=0.15)
    axis.text(6.4, 3.42, "predicted order", ha="center", fontsize=10, fontweight="bold")
    axis.text(7.75, 3.42, "truth", ha="center", fontsize=10, fontweight="bold")
    for place in range(len(models)):
        _box(axis, 6.4, 2.95 - 0.56 * place, 1.2, 0.42, f"{place + 1}.", BLUE)
        axis.plot([7.2, 8.3], [2.95 - 0.56 * place] * 2, color="#dddddd", linewidth=1)
        # Where the points lie is part of the drawing; no result is shown here.
        axis.plot(
            8.15 - (0.13, 0.05, 0.36, 0.3, 0.62)[place % 5],
            2.95 - 0.56 * place,
            "o",
            color=PURPLE,
            markersize=6,
        )
    axis.text(
        7.75, 0.18, "test AUC after\nfine-tuning (hours)", ha="center", va="bottom", fontsize=8, color=INK
    )
    return figure


def method() -> Figure:
    """Draw the method: features forward into NCA, a triplet loss backward to two convolutions, and their product."""
    figure, axis = _canvas(8.8, 3.7)
    blocks = (
        ("target\nimages", GREY, 0.85),
        ("first\nconv", ORANGE, 0.7),
        ("second\nconv", ORANGE, 0.75),
        ("other\nlayers", GREY, 0.75),
        ("features\n$n \\times d$", BLUE, 0.9),
    )
    x, middles = 0.2, []
    for text, colour, width in blocks:
        _box(axis, x + width / 2, 2.25, width, 0.8, text, colour)
        middles.append((x, x + width))
        x += width + 0.3
    for (_, end), (start, _) in zip(middles, middles[1:], strict=False):
        _arrow(axis, (end, 2.38), (start, 2.38))
    _box(axis, 7.0, 3.15, 1.9, 0.75, "NCA, then 5 nearest\nneighbours: share of\nthe true class", GREEN, 8.5)
    _box(axis, 7.0, 1.35, 1.9, 0.75, "triplet loss within\na batch, of unit-\nlength features", PURPLE, 8.5)
    _arrow(axis, (middles[4][1], 2.5), (6.03, 3.1), BLUE)
    _arrow(axis, (middles[4][1], 2.0), (6.03, 1.45), BLUE)
    axis.text(2.4, 3.0, "forward: one pass", ha="center", fontsize=9, color=INK)
    _arrow(axis, (6.1, 0.96), (middles[2][0] + 0.45, 1.83), PURPLE, curve=-0.28)
    _arrow(axis, (6.3, 0.96), (middles[1][0] + 0.4, 1.83), PURPLE, curve=-0.38)
    axis.text(4.2, 1.45, "backward: gradients $g_1$, $g_2$", ha="center", fontsize=9, color=PURPLE)
    _box(
        axis, 1.55, 0.42, 2.7, 0.5, "$\\overline{\\|g_2\\|}\\,/\\,\\overline{\\|g_1\\|}$ over batches", ORANGE
    )
    _arrow(axis, (middles[1][0] + 0.4, 1.83), (1.6, 0.7), ORANGE)
    _arrow(axis, (middles[2][0] + 0.4, 1.83), (2.2, 0.7), ORANGE)
    axis.text(
        8.72,
        2.25,
        "min–max\nover the\nsources,\nthen ×",
        ha="right",
        va="center",
        fontsize=8.5,
        fontweight="bold",
    )
    _arrow(axis, (7.9, 2.75), (8.35, 2.66), GREEN)
    axis.plot([2.95, 8.45, 8.45], [0.3, 0.3, 1.75], color=ORANGE, linewidth=1.3)
    _arrow(axis, (8.45, 1.6), (8.45, 1.85), ORANGE)
    return figure


def rooms(names: Sequence[str], *, columns: int = 5) -> Figure:
    """Draw the rooms of the package in their order; a room imports only rooms drawn before it.

    Parameters
    ----------
    names
        In order, the lowest first.
    columns
        Rooms in a row.
    """
    rows = -(-len(names) // columns)
    figure, axis = _canvas(1.75 * columns + 0.1, 0.8 * rows + 0.2)
    palette = (BLUE, GREEN, ORANGE, PURPLE)
    for place, name in enumerate(names):
        row, column = divmod(place, columns)
        x, y = 0.9 + 1.75 * column, 0.8 * (rows - row) - 0.3
        _box(axis, x, y, 1.35, 0.5, name, palette[row % len(palette)], 10)
        if place + 1 < len(names):
            if column + 1 < columns:
                _arrow(axis, (x + 0.7, y), (x + 1.07, y))
            else:
                _arrow(axis, (x, y - 0.26), (0.9, y - 0.53), "#bbbbbb")
    return figure
