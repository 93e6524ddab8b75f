"""The prose pages: numbers are computed and named, never typed; drawings are legible."""

import re
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pandas as pd
import pytest

import pages

BOOK = Path(__file__).parents[1] / "book"
# Pages about results. The page of scores has measurements of its own, which say how they were made.
ABOUT_RESULTS = ["intro", "method", "claims", "reproduction", "tables", "choosing", "glossary"]


@pytest.mark.parametrize("name", ABOUT_RESULTS)
def test_no_measured_number_is_typed(name):
    text = (BOOK / f"{name}.md").read_text(encoding="utf-8")
    for no_prose in (r"```.*?```", r"`[^`]*`", r"\$\$.*?\$\$", r"\$[^$]*\$", r"\]\([^)]*\)"):
        text = re.sub(no_prose, " ", text, flags=re.S)
    assert not re.findall(r"[−-]?\d*\.\d{2,}", text), "compute it, and name it"


@pytest.mark.parametrize("name", ["problem", "method"])
def test_a_drawing_is_legible_and_described_and_holds_no_number_like_a_result(name):
    root = ElementTree.parse(BOOK / f"figure_{name}.svg").getroot()
    svg = "{http://www.w3.org/2000/svg}"
    words = " ".join("".join(text.itertext()) for text in root.iter(f"{svg}text"))
    sizes = re.findall(r"font-size: (\d+)px", root.findtext(f"{svg}style"))
    assert not re.search(r"\d[.,]\d", words) and min(map(int, sizes)) >= 14
    assert all(len(root.findtext(svg + part)) > 20 for part in ("title", "desc"))


def test_how_numbers_are_shown():
    values = (11.0, 0.5226, -0.25, 28205, "holds", float("nan"), 3.07e-10)
    shown = ["11", "0.523", "−0.250", "28,205", "holds", "(not attempted)", "3e−10"]
    assert [pages.shown(value, 3) for value in values] == shown
    column = pages.markdown(
        pd.DataFrame({"a": [1.0, 0.25], "b": [2.0, np.nan]}, index=pd.Index(["x", "y"], name="i"))
    )
    first, _, *rows = [line.split("|")[1:-1] for line in column.data.splitlines()]
    assert [[cell.strip() for cell in row] for row in (first, *rows)] == [
        ["i", "a", "b"],
        ["x", "1.000", "2"],
        ["y", "0.250", ""],
    ]
