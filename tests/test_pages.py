"""The prose pages: numbers are computed and put in, never typed; nothing named is missing, nothing computed is idle."""

from __future__ import annotations

import re
import shutil
from pathlib import Path
from xml.etree import ElementTree

import claims
import numpy as np
import pandas as pd
import pytest

from companion import evaluation
from companion.errors import InputError
from companion.notebooks import pages
from test_package import ROOMS

ROOT = Path(__file__).parents[1]
BOOK = ROOT / "book"
# Pages about results. The page of scores has measurements of its own, which say how they were made.
ABOUT_RESULTS = ["intro", "method", "claims", "reproduction", "tables", "choosing", "glossary"]


@pytest.fixture(scope="module")
def filled(tmp_path_factory) -> Path:
    """The pages of the book, filled."""
    folder = tmp_path_factory.mktemp("stage")
    (folder / "book").mkdir()
    for path in (*BOOK.glob("*.md"), *BOOK.glob("figure_*.svg")):
        shutil.copy(path, folder / "book")
    pages.render(folder)
    return folder / "book"


def prose(name: str) -> str:
    """A page's own words: without templates, code, formulas and links."""
    text = (BOOK / f"{name}.md").read_text(encoding="utf-8")
    for taken in (r"\{\{.*?\}\}", r"```.*?```", r"`[^`]*`", r"\$\$.*?\$\$", r"\$[^$]*\$", r"\]\([^)]*\)"):
        text = re.sub(taken, " ", text, flags=re.S)
    return text


@pytest.mark.parametrize("name", ABOUT_RESULTS)
def test_no_measured_number_is_typed(name):
    assert not re.findall(r"[−-]?\d*\.\d{2,}", prose(name)), "compute it, and put it in by name"


def test_every_page_is_filled_and_every_picture_is_there(filled):
    for path in filled.glob("*.md"):
        text = path.read_text(encoding="utf-8")
        assert "{{" not in text, path.name
        for picture in re.findall(r"\{(?:image|figure)\} (\S+)", text):
            assert (filled / picture).stat().st_size > 4000, picture
        assert all(len(alt) > 30 for alt in re.findall(r":alt: (.*)", text)), path.name


@pytest.mark.parametrize(
    ("name", "shown"),
    [
        (
            "problem",
            ["RadImageNet", "benign", "Transferability score", "Predicted order", "AUC after fine-tuning"],
        ),
        (
            "method",
            ["first convolution", "features n × d", "NCA,", "triplet loss", "‖g₂‖ / mean ‖g₁‖", "min–max"],
        ),
    ],
)
def test_a_drawing_can_be_read_and_holds_no_number_that_could_be_taken_for_a_result(name, shown):
    root = ElementTree.parse(BOOK / f"figure_{name}.svg").getroot()
    svg = "{http://www.w3.org/2000/svg}"
    words = " ".join("".join(text.itertext()) for text in root.iter(f"{svg}text"))
    assert all(part in words for part in shown) and not re.search(r"\d[.,]\d", words)
    sizes = re.findall(r"font-size: (\d+)px", root.findtext(f"{svg}style"))
    assert root.get("viewBox").startswith("0 0 700 ") and min(map(int, sizes)) >= 14
    assert all(len(root.findtext(svg + part)) > 20 for part in ("title", "desc"))


def test_nothing_is_computed_that_no_page_shows():
    text = "\n".join(path.read_text(encoding="utf-8") for path in BOOK.glob("*.md"))
    assert set(re.findall(r'table\("(\w+)"\)', text)) == {*pages.TABLES, "claims", "claims_summary"}
    assert set(re.findall(r'figure\("(\w+)"', text)) == set(pages.PICTURES)


def test_numbers_in_the_pages_are_those_of_the_package(filled):
    taus = evaluation.weighted_tau("source_datasets").mean()
    intro = (filled / "intro.md").read_text(encoding="utf-8")
    assert (
        f"of {taus['proposed']:.3f} over eleven targets" in intro
        and f"{taus['nleep']:.3f} for the next" in intro
    )
    tables = (filled / "tables.md").read_text(encoding="utf-8")
    row = next(
        line
        for line in tables.splitlines()
        if line.startswith("| mean ") and f"{taus['proposed']:.3f}" in line
    )
    assert f"{taus['leep']:.3f}" in row


def test_every_claim_has_a_row_that_links_to_where_it_is_shown(filled):
    text = (filled / "claims.md").read_text(encoding="utf-8")
    for name, row in claims.table().iterrows():
        (line,) = [line for line in text.splitlines() if line.startswith("| ") and f"`{name}`" in line]
        assert f"**{row['status']}**" in line
        link = re.search(r"\[\]\(<(.+?)>\)", line)[1]
        source = (BOOK / link).with_suffix(".py") if link.endswith(".ipynb") else BOOK / link
        assert source.resolve().is_file(), link


def test_all_twelve_notes_are_told():
    headings = re.findall(r"^## (\d+)\. ", (BOOK / "reproduction.md").read_text(encoding="utf-8"), flags=re.M)
    assert headings == [str(number) for number in range(1, 16)]


def test_the_rooms_drawn_are_the_rooms():
    text = (BOOK / "architecture.md").read_text(encoding="utf-8")
    assert re.findall(r"^\| `(\w+)` \|", text, flags=re.M) == list(ROOMS)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ('{{ claim("no-such-claim") }}', "no claim 'no-such-claim'"),
        ('{{ table("no_table") }}', "no table 'no_table'"),
        ('{{ figure("no_figure", "x") }}', "no picture 'no_figure'"),
        ('{{ number("no_measure") }}', "no measure 'no_measure'"),
        ("{{ nothing }}", "page bad.md: 'nothing' is undefined"),
        ("\n{{ claim( }}", "page bad.md, line 2"),
    ],
)
def test_a_page_that_names_what_is_not_there_stops_the_build(tmp_path, text, says):
    (tmp_path / "book").mkdir()
    (tmp_path / "book" / "bad.md").write_text(text)
    with pytest.raises(InputError, match=re.escape(says)):
        pages.render(tmp_path)


def test_how_numbers_are_shown():
    assert [pages.shown(value, 3) for value in (11.0, 0.5226, -0.25, 28205, "holds", float("nan"))] == [
        "11",
        "0.523",
        "−0.250",
        "28,205",
        "holds",
        "(not attempted)",
    ]
    assert pages.shown(3.07e-10, 3) == "3e−10" and pages.shown(0.0052, 4) == "0.0052"
    column = pages.markdown(pd.DataFrame({"a": [1.0, 0.25]}, index=["x", "y"]))
    assert "1.000" in column and "0.250" in column
    table = pages.markdown(pd.DataFrame({"a": [1.0, np.nan]}, index=pd.Index(["x", "y"], name="i")))
    assert table.splitlines()[0].split() == ["|", "i", "|", "a", "|"] and "nan" not in table


@pytest.mark.parametrize(
    ("page", "says", "too_much"),
    [
        ("book/claims.md", "not controlled for size", 'supports "diversity beats size"'),
        (
            "book/claims.md",
            'setting="replication", score="leep"',
            'contradicts "size of the source does not matter"',
        ),
        (
            "book/reproduction.md",
            "every target's own NCA\nterm were 1",
            "is what keeps the product out of this trap",
        ),
        ("book/reproduction.md", "octmnist and retinamnist for most of them", "is then 1, for every source"),
        (
            "book/reproduction.md",
            "those that can be stated as one claim",
            "[](claims.md) lists each with its tolerance",
        ),
        ("notebooks/02_fine_tuning.py", ".05 to .13", "adds a little to the spread"),
        ("notebooks/02_fine_tuning.py", "MedNIST alone", "Each moves AUC by about as much"),
        (
            "notebooks/03_nca_vs_lda.py",
            "nearly\n# automatic",
            "Fine-tuning, NCA and LDA all part the classes",
        ),
        (
            "notebooks/04_gradient_ratio.py",
            "were never released",
            "the scores from features do on most targets",
        ),
        (
            "notebooks/05_ranking_sources.py",
            "all sources within .01 AUC on",
            "often lie within a hundredth of AUC",
        ),
        ("notebooks/06_cross_domain.py", "runs a pair, median", "changes the sign of its τ_w, no more"),
    ],
)
def test_sentences_say_no_more_than_the_numbers(page, says, too_much):
    text = (ROOT / page).read_text(encoding="utf-8")
    assert says in text and too_much not in text
