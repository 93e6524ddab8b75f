"""The guard before the book goes online: a page short, a traceback, another commit."""

from __future__ import annotations

import subprocess

import pytest

from companion.errors import InputError, exit_code_of
from companion.notebooks import guard


@pytest.fixture
def site(tmp_path):
    """A checkout with a table of contents of three pages, and a site built from it."""
    root, built = tmp_path / "root", tmp_path / "site"
    (root / "notebooks").mkdir(parents=True)
    (root / "_toc.yml").write_text(
        "format: jb-book\nroot: book/intro\nparts:\n  - caption: x\n    chapters:\n"
        "      - file: book/one\n      - file: notebooks/two\n"
    )
    (root / "pyproject.toml").write_text('[project]\nname = "transferability-companion"\n')
    for page in ("book/intro", "book/one", "notebooks/two", "_static/template"):
        (built / page).parent.mkdir(parents=True, exist_ok=True)
        (built / f"{page}.html").write_text("<p>well</p>")
    git = ["git", "-c", "user.name=n", "-c", "user.email=e@x"]
    for words in (["init", "-q"], ["add", "-A"], ["commit", "-qm", "x"]):
        subprocess.run([*git, *words], cwd=root, check=True)
    guard.stamp(built, root)
    return root, built


def test_a_whole_site_passes(site, monkeypatch, capsys):
    root, built = site
    head = guard.commit(root)
    assert head and guard.check(built, root, expected_commit=head) == 3
    monkeypatch.chdir(root)
    guard.main([str(built), "--commit", head])
    assert "3 pages" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("spoil", "says"),
    [
        (
            lambda built: (built / "book" / "one.html").unlink(),
            "lacks 1 page(s) of the table of contents, book/one",
        ),
        (lambda built: (built / "book" / "one.html").write_text(guard.TRACEBACK), "shows a traceback"),
        (lambda built: (built / "build.json").unlink(), "build the site anew"),
        (lambda built: (built / "more.html").write_text(""), "has 4 pages, but 3 were built"),
    ],
)
def test_a_site_that_is_not_fit_is_refused(site, spoil, says, monkeypatch, capsys):
    root, built = site
    spoil(built)
    monkeypatch.chdir(root)
    assert exit_code_of(lambda: guard.main([str(built)])) == 2
    assert says in capsys.readouterr().err


def test_another_commit_is_refused_and_changed_files_have_none(site):
    root, built = site
    with pytest.raises(InputError, match="was built from"):
        guard.check(built, root, expected_commit="0" * 40)
    (root / "_toc.yml").write_text("changed")
    assert guard.commit(root) is None
