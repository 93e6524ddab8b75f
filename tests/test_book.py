"""The book: whole pages with the package's numbers, and a build that stops at a warning."""

import re
from pathlib import Path

import pytest
from bs4 import BeautifulSoup

import build
import claims
import explorer
from companion import evaluation
from companion.errors import CompanionError, EnvironmentFailure

ROOT = Path(__file__).parents[1]
pytestmark = pytest.mark.usefixtures("fewer_points")


def article(site: Path, name: str) -> BeautifulSoup:
    """What a page says, without the theme's frame."""
    page = BeautifulSoup((site / f"{name}.html").read_text(encoding="utf-8"), "html.parser")
    return page.select_one("article.bd-article")


def test_pages_are_whole_and_their_links_lead_somewhere(site):
    contents = re.findall(r"(?:root|file): (\S+)", (ROOT / "_toc.yml").read_text(encoding="utf-8"))
    for name in contents:
        page, shown = site / f"{name}.html", article(site, name)
        assert len(shown.select("h1")) == 1 and "Traceback (most recent call last)" not in shown.get_text(), (
            name
        )
        assert all(len(image.get("alt", "")) > 20 for image in shown.select("img:not(noscript img)")), name
        whole = BeautifulSoup(page.read_text(encoding="utf-8"), "html.parser")
        assert "not for clinical use" in whole.get_text(), name
        for link in whole.select("[href]"):
            target = re.split("[?#]", link["href"])[0]
            if target and "://" not in target and not target.startswith(("mailto:", "data:")):
                assert (page.parent / target).exists(), f"{name}: {target}"
        if name.startswith("notebooks/"):
            assert "How this page was made" in shown.get_text()
            assert whole.select(f'a[href*="colab"][href$="/blob/main/{name}.ipynb"]')


def test_numbers_in_the_pages_are_those_of_the_package(site):
    taus = evaluation.weighted_tau("source_datasets").mean()
    intro = " ".join(article(site, "book/intro").get_text().split())
    assert (
        f"τ is {taus['proposed']:.3f} over eleven targets, against {taus['nleep']:.3f} for the next" in intro
    )
    rows = [row.get_text(" ") for row in article(site, "book/tables").select("tr")]
    assert any(
        "mean" in row and f"{taus['proposed']:.3f}" in row and f"{taus['leep']:.3f}" in row for row in rows
    )
    page = article(site, "book/reproduction")
    assert len(page.select("figure img[src$=svg]")) == 4 and len(page.select("table > caption")) == 4


def test_every_claim_has_a_row_that_links_to_where_it_is_shown(site):
    codes = article(site, "book/claims").select("tr td:last-child code")
    rows = {code.get_text(): code.find_parent("tr") for code in codes}
    for name, claim in claims.table().iterrows():
        assert rows[name].select_one("strong").get_text() == claim["status"]
        assert rows[name].select_one("a")["href"].startswith(("scores", "reproduction", "../notebooks/"))


def test_a_page_that_names_what_is_not_there_stops_the_build(tmp_path, monkeypatch, capfd):
    monkeypatch.setattr(explorer, "write", lambda folder: folder.mkdir(parents=True))
    folder = build.stage(tmp_path / "stage")
    (folder / "_toc.yml").write_text("format: jb-book\nroot: book/bad\n")
    front = (ROOT / "book" / "choosing.md").read_text(encoding="utf-8").partition("# Choose")[0]
    cell = "```{code-cell} python\n:tags: [remove-input]\nimport pandas as pd\nimport pages\n"
    cell += "pages.claims = lambda: pd.DataFrame(columns=['found'])\nfrom pages import *\n```\n"
    wrong = '[nowhere](nowhere.md) {eval}`claim("no-such-claim")`\n\n```{eval} no_table()\n```\n'
    (folder / "book" / "bad.md").write_text(f"{front}# Bad\n\n{cell}\n{wrong}")
    with pytest.raises(CompanionError, match="was not built"):
        build.html(folder, tmp_path / "out")
    said = capfd.readouterr().err
    assert all(part in said for part in ("nowhere", "no-such-claim", "NameError: name 'no_table'"))


def test_real_data_that_is_not_available_is_an_environment_error(tmp_path, monkeypatch):
    def refuse(flag):
        raise EnvironmentFailure(f"cannot reach the server of {flag}")

    ran = []
    monkeypatch.setattr(build, "load_dataset", refuse)
    monkeypatch.setattr(build, "execute", lambda *given, **options: ran.append(options))
    with pytest.raises(EnvironmentFailure, match="cannot reach the server of breastmnist"):
        build.execute_all(tmp_path, "real")
    build.execute_all(tmp_path, "auto")
    assert ran == [{"procedural": True}] * len(build.SOURCES)
