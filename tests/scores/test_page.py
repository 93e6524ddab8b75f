"""The page of all scores says what the package does."""

import warnings
from pathlib import Path

import numpy as np
import pytest
import test_hostile
from hypothesis import given
from hypothesis import strategies as st
from synthetic import make
from test_properties import few, shapes

from companion import scores

PAGE = Path(__file__).parents[2] / "book" / "scores.md"
ARRAYS = [name for name, info in scores.REGISTRY.items() if "images" not in info.inputs]


@pytest.fixture(scope="module")
def page() -> dict[str, list[list[str]]]:
    """Rows of the page's tables by the heading they stand under, the head first."""
    found: dict[str, list[list[str]]] = {}
    heading = ""
    for line in PAGE.read_text(encoding="utf-8").splitlines():
        if line.startswith("## "):
            heading = line[3:]
        elif line.startswith("| "):
            cells = [cell.strip() for cell in line.strip().strip("|").split("|")]
            found.setdefault(heading, []).append([cell.replace("`", "") for cell in cells])
    return found


def test_the_list_is_the_registry(page):
    rows = page["What they are"][1:]
    assert [row[0] for row in rows] == list(scores.REGISTRY)
    for name, title, inputs, _, _, variants, source in rows:
        info = scores.REGISTRY[name]
        assert title == info.title and inputs == ", ".join(info.inputs)
        assert variants == (", ".join(info.variants) or "one")
        assert source == f"{info.reference}, {info.doi_or_arxiv}"


def bounds(text: str, classes: int) -> tuple[float, float]:
    """Both ends of a range in words, C replaced."""

    def number(end: str) -> float:
        ends = {"C - 1": classes - 1, "-C(C - 1)": -classes * (classes - 1), "-log C": -np.log(classes)}
        return float(ends.get(end, end))

    kind, _, end = text.rpartition(" ")
    if kind == "at most":
        return -np.inf, number(end)
    if kind in ("at least", "above"):
        return number(end), np.inf
    low, high = ("-inf", "inf") if text == "any" else text.split(" to ")
    return number(low), number(high)


@given(shape=shapes, separation=st.sampled_from([0.0, 0.5, 3.0]))
@few
def test_values_lie_in_the_ranges_told(page, shape, separation):
    ranges = {row[0]: row[3] for row in page["What they are"][1:]}
    assert ranges["ncti"] == "three terms"
    found = scores.suite(*make(**shape | {"separation": separation}))
    for name, value in found.items():
        low, high = bounds(ranges[name], shape["classes"])
        assert (name == "sfda" and np.isnan(value)) or low - 1e-9 <= value <= high + 1e-9, name
    compactness, confidence, spread = found.ncti_terms
    assert compactness >= 0.0 and 0.0 <= confidence <= 1.0 and np.isfinite(spread)


def test_values_under_shuffled_labels_are_those_told(page):
    head, *rows = page["What shuffled labels give"]
    column = head.index("n = 200, d = 512, C = 2")
    told = {row[0]: row[column] for row in rows}
    assert list(told) == [name for name in ARRAYS if name != "ncti"]
    found: dict[str, dict[str, list[float]]] = {variant: {} for variant in ("corrected", "published")}
    for seed in range(5):
        features, labels, logits = make(200, 512, 2, seed=seed)
        shuffled = np.random.default_rng(100 + seed).permutation(labels)
        for variant, values in found.items():
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", scores.ScoreWarning)
                for name, value in scores.suite(features, shuffled, logits, variant=variant).items():
                    values.setdefault(name, []).append(value)
    for name, cell in told.items():
        corrected, _, published = cell.rstrip(")").partition(" (")
        for text, variant in ((corrected, "corrected"), (published, "published")):
            if not text:
                continue
            value, told_value = np.mean(found[variant][name]), float(text.replace("saturated", "nan"))
            assert value == pytest.approx(told_value, rel=0.03, abs=0.02, nan_ok=True), (name, variant)


def test_what_refuses_which_arrays_is_what_the_tests_hold_them_to(page):
    groups = {
        "nobody": (),
        "all": test_hostile.ALL,
        "all from features": test_hostile.FROM_FEATURES,
        "all from logits": test_hostile.FROM_LOGITS,
    }
    told = {
        case: groups.get(who, tuple(who.split(", ")))
        for case, who in page["What they do with difficult arrays"][1:]
    }
    assert {case: set(who) for case, who in told.items()} == {
        case: set(row[1]) for case, row in test_hostile.TABLE.items()
    }
