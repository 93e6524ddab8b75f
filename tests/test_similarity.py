"""Similarity to fine-tuned features: by hand, under what must not matter, and against planted structure."""

import numpy as np
import pandas as pd
import pytest

from claims.measures import SIMILARITY, leads
from notebook_functions import functions

NOTEBOOK = functions("03")
neighbour_overlap, linear_cka = NOTEBOOK.neighbour_overlap, NOTEBOOK.linear_cka
compare, separation = NOTEBOOK.compare, NOTEBOOK.separation


def points(n: int = 60, d: int = 8, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    labels = np.arange(n) % 2
    values = rng.standard_normal((n, d))
    values[:, 0] += 4 * labels
    return values, labels


def test_rotation_shift_and_one_scale_do_not_matter():
    values, _ = points()
    rotation, _ = np.linalg.qr(np.random.default_rng(1).standard_normal((8, 8)))
    for other in (values, 3 * values @ rotation + 5):
        assert linear_cka(values, other) == pytest.approx(1)
        assert neighbour_overlap(values, other) == 1


def test_unrelated_points_share_neighbours_by_chance_only():
    one, other = (np.random.default_rng(seed).standard_normal((400, 5)) for seed in (0, 1))
    assert neighbour_overlap(one, other) == pytest.approx(10 / 399, abs=0.01)
    assert linear_cka(one, other) < 0.1


def test_cka_by_hand():
    line = np.array([[value] for value in range(12)], dtype=float)
    bent = line**2
    x, y = line - line.mean(), bent - bent.mean()
    expected = (x.T @ y).item() ** 2 / ((x.T @ x).item() * (y.T @ y).item())
    assert linear_cka(line, bent) == pytest.approx(expected)


def test_separation_is_one_where_classes_lie_apart_and_half_where_they_mean_nothing():
    values, labels = points(400)
    far = values.copy()
    far[:, 0] += 100 * labels
    assert separation(far, labels) == 1
    noise = np.random.default_rng(2).standard_normal((400, 5))
    assert separation(noise, labels) == pytest.approx(0.5, abs=0.05)


def test_compare_and_leads_find_what_was_planted():
    rows = []
    for source in "abcd":
        values, labels = points(seed=ord(source))
        lda = np.random.default_rng(3).standard_normal((60, 1))
        found = {"before": values, "after": values * 2, "nca": values + 0.01, "lda": lda}
        rows.append(compare(found, labels).assign(source=source, fold=1))
    table = pd.concat(rows)
    over_lda, over_before = leads(table), leads(table, "before")
    assert set(over_lda.index) == set(SIMILARITY)
    assert (over_lda["low"] > 0).all() and not (over_before["low"] > 0).any()
    # The same table with the names exchanged says the opposite.
    swapped = table.replace({"representation": {"nca": "lda", "lda": "nca"}})
    assert (leads(swapped)["high"] < 0).all()
