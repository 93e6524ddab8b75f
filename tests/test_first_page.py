"""The figure of the first page: its dots and intervals are those of the package's tables."""

import re
from xml.etree import ElementTree

import numpy as np
import pandas as pd
import pytest

import first_page
import vector
from companion import evaluation, published, replication
from companion.errors import EnvironmentFailure
from companion.evaluation.hypotheses import interval
from companion.figures.style import PROPOSED


def drawn(figure) -> dict[str, tuple[float, float, float, str]]:
    """Mean, ends of the interval and colour of every row of a panel that has them, read back from its artists."""
    axis = figure.axes[0]
    names = {
        round(place, 6): text.get_text()
        for place, text in zip(axis.get_yticks(), axis.get_yticklabels(), strict=True)
    }
    found: dict[str, tuple[float, float, float, str]] = {}
    lines = [line for line in axis.lines if len(set(line.get_ydata())) == 1]  # not that at 0
    for ends, dot in zip(lines[::2], lines[1::2], strict=True):
        place = round(float(dot.get_ydata()[0]), 6)
        assert ends.get_ydata()[0] == dot.get_ydata()[0] and ends.get_color() == dot.get_color()
        found[names[place]] = (dot.get_xdata()[0], *ends.get_xdata(), dot.get_color())
    return found


def test_published_panel_shows_the_published_table():
    taus = evaluation.weighted_tau("source_datasets")
    rows = drawn(first_page.panel(first_page.published_means(), "Published", (0.67, 0.82)))
    labels = {"proposed": "proposed", "nca": "NCA alone", "leep": "LEEP", "sfda": "SFDA (9 targets)"}
    for name, label in labels.items():
        values = taus[name].dropna()
        assert rows[label][:3] == pytest.approx((values.mean(), *interval(values)), abs=1e-12)
    simple = evaluation.weighted_tau(evaluation.baselines(evaluation.published_pairs("source_datasets")))
    assert rows["ImageNet, then size"][0] == pytest.approx(simple["imagenet_then_size"].mean(), abs=1e-12)
    assert {label for label, row in rows.items() if row[3] == PROPOSED} == {"proposed"}
    assert len(rows) == len(taus.columns) + len(evaluation.BASELINES)


def test_replicated_panel_shows_the_stored_replication():
    pairs = replication.table().query("source != 'scratch'").drop(columns=["auc_sd", "folds"])
    rows = drawn(first_page.panel(first_page.replicated_means(), "Replication"))
    taus = evaluation.weighted_tau(pairs)
    for name, label in {"logme": "LogME", "nca": "NCA alone", "gradient_ratio": "gradients alone"}.items():
        assert rows[label][:3] == pytest.approx((taus[name].mean(), *interval(taus[name])), abs=1e-9)
    coloured = {label for label, row in rows.items() if row[3] == PROPOSED}
    assert coloured == {"proposed", first_page.ALSO}


def test_a_score_defined_on_no_target_has_a_row_that_says_so_and_the_band_is_where_the_ceiling_is():
    rows = evaluation.published_pairs("source_datasets").assign(sfda=1.0)
    found = first_page.means(rows)
    figure = first_page.panel(found, "x", (0.6, 0.8))
    assert np.isnan(found.loc["sfda", "mean"]) and "SFDA" not in drawn(figure)
    words = [text.get_text() for text in figure.axes[0].texts]
    assert {"undefined", "noise ceiling"} <= set(words)
    band = figure.axes[0].patches[0].get_bbox()
    assert (band.x0, band.x1) == pytest.approx((0.6, 0.8))


def test_without_the_authors_runs_there_is_no_ceiling_and_the_page_says_so(monkeypatch):
    def missing(*, download):
        raise EnvironmentFailure("the fine-tuning runs are not there")

    monkeypatch.setattr(published, "runs", missing)
    import pages

    assert first_page.ceiling() is None and "is missing" in pages.ceiling_words()
    table = pd.DataFrame({"attainable, halves": [0.6], "reliability, halves": [0.1]}, index=["mean"])
    monkeypatch.setattr(published, "runs", lambda download: None)
    monkeypatch.setattr(
        evaluation, "noise_ceiling", lambda runs: evaluation.NoiseCeiling(table, table.T, 1, 1)
    )
    assert first_page.ceiling() == (0.6, 0.6) and "grey band" in pages.ceiling_words()


def test_a_drawn_figure_is_vector_with_words_and_follows_a_dark_page():
    text = vector.svg(first_page.panel(first_page.published_means().head(2), "Title"))
    root = ElementTree.fromstring(text)
    words = {"".join(node.itertext()).strip() for node in root.iter("{http://www.w3.org/2000/svg}text")}
    assert {"Title", "mean weighted Kendall τ"} <= words
    style = root.find("{http://www.w3.org/2000/svg}style").text
    assert re.search(r"prefers-color-scheme: dark.*fill: #ffffff", style)
    assert text == vector.svg(first_page.panel(first_page.published_means().head(2), "Title"))


def test_numbers_of_a_drawing_are_shorter_and_its_words_are_not():
    drawing = '<svg x="1">\n <path d="M 12.345678 -0.001234"/>\n <text>0.7771</text>\n</svg>'
    short = vector.following(drawing)
    assert 'd="M 12.34 -0.00"' in short and ">0.7771<" in short and "\n" not in short
    # White words stand on a coloured cell, which stays as it is on a dark page; a white ground does not.
    assert 'path[style*="fill: #ffffff"]{fill:#121212' in short and '}[style*="fill: #ffffff"]' not in short
