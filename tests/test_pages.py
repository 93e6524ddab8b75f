"""The prose pages: numbers are computed and named, never typed; drawings are legible."""

import re
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pandas as pd
import pytest

import pages
import vector
from companion import published
from test_models import NINE
from test_package import MODULES

BOOK = Path(__file__).parents[1] / "book"
# Pages about results. The page of scores has measurements of its own, which say how they were made.
ABOUT_RESULTS = ["intro", "method", "claims", "reproduction", "tables", "choosing", "glossary"]


@pytest.mark.parametrize("name", ABOUT_RESULTS)
def test_no_measured_number_is_typed(name):
    text = (BOOK / f"{name}.md").read_text(encoding="utf-8")
    for no_prose in (r"```.*?```", r"`[^`]*`", r"\$\$.*?\$\$", r"\$[^$]*\$", r"\]\([^)]*\)"):
        text = re.sub(no_prose, " ", text, flags=re.S)
    assert not re.findall(r"[−-]?\d*\.\d{2,}", text), "compute it, and name it"


def test_the_modules_listed_are_the_modules():
    text = (BOOK / "architecture.md").read_text(encoding="utf-8")
    assert re.findall(r"^\| `(\w+)` \|", text, flags=re.M) == list(MODULES)


def test_the_layers_listed_are_those_of_the_package():
    text = (BOOK / "method.md").read_text(encoding="utf-8")
    listed = re.findall(r"^\| ([\w.× -]+) \| `([\w.]+)` \| `([\w.]+)` \|$", text, flags=re.M)
    keys = [*published.table("architectures")["source"].unique()]
    titles = {pages.named(key): next(name for name in NINE if name.startswith(key)) for key in keys}
    assert {titles[name]: layers for name, *layers in listed} == {
        name: [*row[:2]] for name, row in NINE.items()
    }


def contrast(one: str, other: str) -> float:
    """Contrast of two colours as WCAG defines it, 1 to 21."""
    light = []
    for colour in (one, other):
        digits = colour.lstrip("#") if len(colour) > 4 else "".join(2 * digit for digit in colour.lstrip("#"))
        parts = [int(digits[at : at + 2], 16) / 255 for at in (0, 2, 4)]
        linear = [part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts]
        light.append(0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2] + 0.05)
    return max(light) / min(light)


@pytest.mark.parametrize("name", ["problem", "method"])
def test_words_of_a_drawing_can_be_read_on_a_light_and_on_a_dark_page(name):
    style = (BOOK / f"figure_{name}.svg").read_text(encoding="utf-8").partition("</style>")[0]
    schemes = [dict(re.findall(r"--([\w-]+): (#\w+)", part)) for part in style.split("prefers-color-scheme")]
    assert len(schemes) == 2 and schemes[0].keys() == schemes[1].keys()
    grounds = {"ground", "box", "score", "tune", "plain", "conv", "feat", "loss", "nca"}
    for colours in schemes:
        assert all(contrast(colours["ink"], colours[key]) >= 4.5 for key in grounds & colours.keys())
        assert contrast(colours.get("proposed", colours["ink"]), colours["ground"]) >= 4.5


def test_colours_of_figures_can_be_read_on_a_light_and_on_a_dark_page():
    for light, dark in vector.DARK.items():
        if light != "#ffffff":
            assert contrast(light, "#ffffff") >= 4.5 and contrast(dark, vector.DARK["#ffffff"]) >= 4.5


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
    shown = ["11", "0.523", "−0.250", "28,205", "holds", "(not attempted)", "3 × 10⁻¹⁰"]
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
