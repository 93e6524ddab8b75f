"""What the explorer page shows: every τ_w, interval, order and regret of the published tables, and its empty chart.

Everything is computed here, when the book is built. The page's script only selects and draws.
"""

from __future__ import annotations

import functools
import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from companion import evaluation, figures, published
from companion.scores import INVERTED_ACROSS_DOMAINS, PAPER_SCORE, TERMS

SCORES = (PAPER_SCORE, *TERMS, *published.METRICS)
LEVEL = 0.95
SETTINGS = {
    "source_datasets": "Source datasets (one ResNet-18, trained on each)",
    "architectures": "Architectures (each trained on ImageNet)",
}
INVERTED = {
    "source_datasets": [],
    "architectures": [*INVERTED_ACROSS_DOMAINS, PAPER_SCORE],
}  # by the paper


def pairs(setting: str, *, inverted: bool) -> pd.DataFrame:
    """Published pairs of a setting with *all* scores of the page as released, or all inverted (``1 - s``).

    The combined score has both its terms inverted. The paper never inverts LogME and SFDA; here it can be tried.
    """
    table = evaluation.published_pairs(setting, inverted=inverted)
    if inverted:
        others = [name for name in SCORES if name not in INVERTED["architectures"]]
        table[others] = 1 - table[others]
    return table[["source", "target", "auc", *SCORES]]


def _plain(values: Any) -> Any:
    """Floats for JSON, which knows no NaN: None stands for what is undefined."""
    if np.ndim(values):
        return [_plain(value) for value in values]
    return float(values) if np.isfinite(values) else None


def _places(values: pd.Series) -> list[int]:
    """Place of each value, 1 = highest; tied ones share the better place."""
    return values.rank(ascending=False, method="min").astype(int).tolist()


def _orientation(setting: str, *, inverted: bool) -> dict[str, Any]:
    """Everything that depends on which way the scores point: ``means`` by score, ``cells`` by target and score."""
    table = pairs(setting, inverted=inverted)
    intervals = evaluation.bootstrap(table, columns=SCORES, against=None, level=LEVEL)
    cells: dict[str, dict[str, Any]] = {}
    for score in SCORES:
        regrets = evaluation.regret(table, score)
        for target, rows in table.groupby("target"):
            found = intervals.targets.loc[(target, score), ["tau", "low", "high"]]
            cells.setdefault(str(target), {})[score] = {
                "values": _plain(rows[score]),
                "places": _places(rows[score]),
                "first": rows["source"][rows[score] == rows[score].max()].tolist(),
                "regret": _plain(regrets[target]),
                **{name: _plain(value) for name, value in found.items()},
            }
    defined = intervals.targets["tau"].notna().groupby("score").sum()
    means = {
        score: {name: _plain(value) for name, value in row.items()} | {"targets": int(defined[score])}
        for score, row in intervals.mean.iterrows()
    }
    return {"means": means, "cells": cells}


def _setting(setting: str) -> dict[str, Any]:
    table = pairs(setting, inverted=False)
    # One score for all: every source is the first choice with equal chance.
    by_chance = evaluation.regret(table.assign(same=0.0), "same")
    worst = evaluation.regret(table, lambda rows: rows.loc[rows["auc"].idxmin(), "source"])
    targets = {
        str(target): {
            "sources": rows["source"].tolist(),
            "labels": [figures.short(source) for source in rows["source"]],
            "auc": _plain(rows["auc"]),
            "places": _places(rows["auc"]),
            "by_chance": _plain(by_chance[target]),
            "worst": _plain(worst[target]),
        }
        for target, rows in table.groupby("target")
    }
    orientations = {
        name: _orientation(setting, inverted=name == "inverted") for name in ("released", "inverted")
    }
    return {
        "title": SETTINGS[setting],
        "paper_inverts": INVERTED[setting],
        "targets": targets,
        **orientations,
    }


@functools.cache
def data() -> dict[str, Any]:
    """All that the page can show.

    Returns
    -------
    dict
        ``scores`` (column -> name for people), ``level`` of the intervals and ``settings``. Per setting: ``title``;
        the scores that the paper inverts (``paper_inverts``); the sources of each target with AUC and true place
        (``targets``); and under ``released`` and ``inverted`` the mean τ_w by score, with the number of targets
        where it is defined (``means``), and by target and score (``cells``) the values, places, τ_w with ``low`` and
        ``high``, first choices and their regret. None where something is undefined.
    """
    return {
        "scores": {score: figures.TITLES[score] for score in SCORES},
        "level": LEVEL,
        "settings": {setting: _setting(setting) for setting in SETTINGS},
    }


def chart() -> dict[str, Any]:
    """Return the empty chart, as Bokeh's script reads it; the page's script fills the source named ``points``."""
    from bokeh.embed import json_item
    from bokeh.models import ColumnDataSource, HoverTool, Range1d, Scatter, Text
    from bokeh.plotting import figure

    columns = ("x", "y", "label", "fill", "marker", "size", "dx", "dy", "align")
    points = ColumnDataSource({name: [] for name in columns}, name="points")
    ranges = {"x_range": Range1d(0, 1), "y_range": Range1d(0, 1)}
    frame = {"background_fill_color": None, "border_fill_color": None, "outline_line_color": None}
    plot = figure(
        name="plot",
        height=430,
        sizing_mode="stretch_width",
        tools="",
        toolbar_location=None,
        **ranges,
        **frame,
    )
    plot.yaxis.axis_label = "test AUC after fine-tuning"
    place = {"x": "x", "y": "y"}
    beside = {"x_offset": "dx", "y_offset": "dy", "text_align": "align", "text_baseline": "middle"}
    plot.add_glyph(points, Text(**place, text="label", text_font_size="12px", **beside), name="labels")
    marks = Scatter(**place, size="size", marker="marker", fill_color="fill", line_color="fill")
    dots = plot.add_glyph(points, marks, name="dots")
    tips = [("source", "@label"), ("score", "@x{0.0000}"), ("test AUC", "@y{0.0000}")]
    plot.add_tools(HoverTool(renderers=[dots], tooltips=tips))
    for axis in (*plot.xaxis, *plot.yaxis):
        axis.ticker.desired_num_ticks = 4
        axis.minor_tick_line_color = None
        axis.axis_label_text_font_style = "normal"
    return dict(json_item(plot))


def write(folder: Path) -> None:
    """Write what the explorer page loads into a folder: Bokeh, data with the chart, our script, a still figure."""
    from bokeh.resources import Resources

    folder.mkdir(parents=True, exist_ok=True)
    (library,) = Resources(mode="absolute", components=["bokeh"]).js_files
    shutil.copy2(library, folder / "bokeh.min.js")
    shutil.copy2(Path(__file__).with_name("explorer.js"), folder)
    # A script and no JSON file: a page opened from disk may not fetch.
    text = json.dumps(data() | {"chart": chart()}, allow_nan=False, ensure_ascii=False)
    (folder / "data.js").write_text(f"const explorerData = {text};\n", encoding="utf-8")
    # Where scripts are off: every target and score among source datasets.
    table = pairs("source_datasets", inverted=False)
    taus = evaluation.weighted_tau(table)
    still = figures.scores_against_auc(table, [*published.METRICS, PAPER_SCORE], list(taus.index), taus)
    still.savefig(folder / "without_scripts.png", dpi=still.dpi)
