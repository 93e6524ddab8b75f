"""Figures draw what they are given: the right number of marks, names and values; nothing is shown or kept by pyplot."""

from __future__ import annotations

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
from matplotlib.figure import Figure

from companion import figures
from companion.evaluation.closeness import MEASURES


def texts(figure: Figure) -> str:
    """All text of a figure."""
    return " ".join(found.get_text() for found in figure.findobj(match=lambda a: hasattr(a, "get_text")))


@pytest.mark.parametrize("name", ["problem", "method"])
def test_drawings_hold_no_number_that_could_be_taken_for_a_result(name):
    figure = getattr(figures, name)()
    assert isinstance(figure, Figure) and not plt.get_fignums()
    assert not any(
        character == "." and before.isdigit() and after.isdigit()
        for before, character, after in zip(texts(figure), texts(figure)[1:], texts(figure)[2:], strict=False)
    )


def test_the_problem_shows_the_models_it_is_given():
    assert {"one", "two", "three"} <= set(texts(figures.problem(["one", "two", "three"])).split())


def test_rooms_are_drawn_in_order():
    names = [f"room{number}" for number in range(7)]
    shown = [word for word in texts(figures.rooms(names, columns=3)).split() if word.startswith("room")]
    assert shown == names


def test_turned_round_draws_both_values_of_every_score():
    straight, turned = pd.Series({"leep": -0.3, "nca": 0.1}), pd.Series({"leep": 0.3, "nca": -0.1})
    (axis,) = figures.turned_round(straight, turned).axes
    drawn = np.sort(
        np.concatenate([marks.get_offsets()[:, 0] for marks in axis.collections if len(marks.get_offsets())])
    )
    assert set(np.round(drawn, 6)) >= {-0.3, -0.1, 0.1, 0.3}
    assert [label.get_text() for label in axis.get_yticklabels()] == ["NCA alone", "LEEP"]


def test_synthetic_features_are_called_so():
    widths = {"published": {32: -1.0, 512: 4.0}, "corrected": {32: -1.0, 512: -1.1}}
    assert "SYNTHETIC FEATURES" in texts(figures.by_width(widths, 200))
    rows = pd.DataFrame({"as published": [0.7], "left out": [0.6]}, index=["noise"])
    assert "SYNTHETIC FEATURES" in texts(figures.chance(rows, 0.5))


def test_saturation_has_a_bar_a_target_and_setting():
    shares = pd.DataFrame(
        {"source_datasets": [1.0, 0.5], "architectures": [0.2, 0.0]}, index=["breastmnist", "octmnist"]
    )
    (axis,) = figures.saturation(shares).axes
    assert sorted(bar.get_height() for bar in axis.patches) == [0.0, 0.2, 0.5, 1.0]


def test_other_truths_and_sizes_draw_a_line_or_point_for_each():
    means = pd.DataFrame({"one": [0.1, 0.2], "two": [0.3, 0.4]}, index=["proposed", "leep"])
    (axis,) = figures.other_truths(means, ["proposed"]).axes
    assert [list(line.get_ydata()) for line in axis.lines] == [[0.1, 0.3], [0.2, 0.4]]
    taus = pd.DataFrame({"all sources": [0.5, 0.1], "without": [0.2, -0.1]}, index=["a", "b"])
    (axis,) = figures.size_and_auc(taus).axes
    assert [label.get_text() for label in axis.get_yticklabels()] == ["b", "a"]


def test_projections_put_every_point_into_every_panel():
    labels = np.arange(30) % 3
    panels = {"(a)": np.random.default_rng(0).normal(size=(30, 2)), "(b)": np.zeros((30, 2))}
    figure = figures.projections(panels, labels, ["x", "y", "z"], synthetic=True)
    assert [sum(len(marks.get_offsets()) for marks in axis.collections) for axis in figure.axes] == [30, 30]
    assert "SYNTHETIC IMAGES" in texts(figure) and {"x", "y", "z"} <= set(texts(figure).split())


def test_closeness_draws_the_mean_of_the_sources():
    rows = [
        {"source": source, "representation": name, **dict.fromkeys(MEASURES, value)}
        for source, shift in (("a", 0.0), ("b", 0.2))
        for name, value in (
            ("before", 0.1 + shift),
            ("nca", 0.3 + shift),
            ("lda", 0.2 + shift),
            ("after", 1.0),
        )
    ]
    figure = figures.closeness(pd.DataFrame(rows), MEASURES)
    heights = [[round(bar.get_height(), 6) for bar in axis.patches] for axis in figure.axes]
    assert heights == [[0.2, 0.4, 0.3], [0.2, 0.4, 0.3], [0.2, 0.4, 0.3, 1.0]]
