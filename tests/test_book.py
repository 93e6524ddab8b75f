"""The book: staging leaves the repository alone, warnings stop the build, synthetic pages say so."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import nbformat
import pytest

from companion.errors import InputError
from companion.notebooks import book
from companion.notebooks.execution import NotebookError

ROOT = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def site(tmp_path_factory) -> Path:
    """The book built from the committed executed notebooks, with one of them marked as synthetic."""
    folder = book.stage(ROOT, tmp_path_factory.mktemp("book") / "stage")
    for path in (ROOT / "notebooks").glob("*.ipynb"):
        shutil.copy2(path, folder / "notebooks" / path.name)
    book._mark_synthetic(folder / "notebooks" / "07_new_target.ipynb")
    return book.html(folder, folder.parent / "out").parent


def test_pages_are_whole(site):
    pages = [page for part in ("book", "notebooks") for page in (site / part).glob("*.html")]
    assert len(pages) >= 8
    for page in pages:
        text = page.read_text(encoding="utf-8")
        assert "Traceback (most recent call last)" not in text, page.name
        assert "not for clinical use" in text, page.name
        # The theme repeats the title in a block that shows on paper only.
        article = re.search(r'<article class="bd-article">(.*?)</article>', text, flags=re.S)
        assert article and len(re.findall(r"<h1[ >]", article[1])) == 1, page.name
        images = re.findall(r"<img [^>]*>", text)
        assert all(re.search(r'alt="[^"]+"', image) for image in images), page.name


def test_internal_links_lead_somewhere(site):
    # The theme leaves templates of its own among the static files.
    for page in [page for page in site.rglob("*.html") if "_static" not in page.parts]:
        for link in re.findall(r'href="([^"#]+)(?:#[^"]*)?"', page.read_text(encoding="utf-8")):
            if "://" not in link and not link.startswith(("mailto:", "data:")):
                assert (page.parent / link.partition("?")[0]).exists(), f"{page.name}: {link}"


def test_every_notebook_page_shows_how_it_was_made_and_opens_in_colab(site):
    for path in (ROOT / "notebooks").glob("*.ipynb"):
        text = (site / "notebooks" / f"{path.stem}.html").read_text(encoding="utf-8")
        assert "How this page was made" in text
        assert f"/blob/main/notebooks/{path.name}" in text


def test_a_page_from_synthetic_images_says_so(site):
    assert "Synthetic images" in (site / "notebooks" / "07_new_target.html").read_text(encoding="utf-8")


def test_a_warning_stops_the_build(tmp_path):
    folder = book.stage(ROOT, tmp_path / "stage")
    (folder / "_toc.yml").write_text("format: jb-book\nroot: book/architecture\n")
    with (folder / "book" / "architecture.md").open("a") as page:
        page.write("\n[nowhere](nowhere.md)\n")
    with pytest.raises(NotebookError, match="nowhere"):
        book.html(folder, tmp_path / "out")


def test_outside_a_checkout_there_is_no_book(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(InputError, match="no checkout"):
        book.build()


def test_synthetic_note_stays_out_of_the_source(tmp_path):
    path = tmp_path / "04_gradient_ratio.ipynb"
    shutil.copy2(ROOT / "notebooks" / path.name, path)
    before = nbformat.read(path, as_version=4)
    book._mark_synthetic(path)
    after = nbformat.read(path, as_version=4)
    assert [c.source for c in after.cells if c.id != book.NOTE_CELL_ID] == [c.source for c in before.cells]


# What of the paper's figures and tables stands where: the page, and what makes it.
SHOWN = {
    "Fig. 1": ("book/method", "figure_problem.svg"),
    "Fig. 2": ("book/method", "figure_method.svg"),
    "Fig. 3": ("notebooks/03_nca_vs_lda", "figures.projections("),
    "Fig. 4, published": ("notebooks/02_fine_tuning", "figures.transfer(published"),
    "Fig. 4, our replication": ("notebooks/02_fine_tuning", "figures.transfer(\n    ours"),
    "Fig. 4, architectures": ("notebooks/06_cross_domain", "figures.transfer(published"),
    "Fig. 5, published": ("notebooks/05_ranking_sources", "figures.scores_against_auc(table"),
    "Fig. 5, our replication": ("notebooks/02_fine_tuning", "figures.scores_against_auc(ours"),
    "Fig. 5, architectures": ("notebooks/06_cross_domain", "figures.scores_against_auc(table"),
    "Fig. 6": ("notebooks/04_gradient_ratio", "figures.ablation("),
    "datasets": ("book/tables", 'table("datasets")'),
    "transfer AUC of source datasets": ("book/tables", 'table("transfer_auc")'),
    "transfer AUC of architectures": ("book/tables", 'table("transfer_auc_architectures")'),
    "tau of source datasets": ("book/tables", 'table("tau")'),
    "tau of architectures": ("book/tables", 'table("tau_architectures")'),
    "ranks": ("book/tables", 'table("ranks")'),
    "Nemenyi": ("book/tables", 'table("nemenyi")'),
    "hyper-parameters": ("book/tables", 'table("chosen")'),
    "claims": ("book/claims", 'table("claims")'),
}


@pytest.mark.parametrize("what", SHOWN)
def test_every_figure_and_table_of_the_paper_is_in_the_book(site, what):
    page, maker = SHOWN[what]
    source = ROOT / (f"{page}.md" if page.startswith("book") else f"{page}.py")
    assert maker in source.read_text(encoding="utf-8")
    text = (site / f"{page}.html").read_text(encoding="utf-8")
    assert ("<img" in text) if what.startswith("Fig") else ("<table" in text)
