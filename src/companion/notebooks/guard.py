"""Is a built book fit to go online? ``python -m companion.notebooks.guard FOLDER [--commit SHA]``."""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from pathlib import Path

from companion.errors import InputError, exit_code_of
from companion.notebooks.execution import repository
from companion.store import write_text

STAMP = "build.json"
TRACEBACK = "Traceback (most recent call last)"


def commit(root: Path) -> str | None:
    """Return the commit checked out; None where there is no git or the files differ from it."""
    try:
        told = [
            subprocess.run(
                ["git", *words], cwd=root, capture_output=True, text=True, check=True
            ).stdout.strip()
            for words in (("rev-parse", "HEAD"), ("status", "--porcelain"))
        ]
    except (OSError, subprocess.CalledProcessError):
        return None
    return None if told[1] else told[0]


def stamp(site: Path, root: Path) -> None:
    """Leave in a built site which commit it was built from, and how many pages it has."""
    write_text(site / STAMP, json.dumps({"commit": commit(root), "pages": len(_pages(site))}) + "\n")


def _pages(site: Path) -> list[Path]:
    """Pages of the book; the theme leaves templates of its own among the static files."""
    return [path for path in site.rglob("*.html") if "_static" not in path.relative_to(site).parts]


def check(site: Path, root: Path, *, expected_commit: str | None = None) -> int:
    """Return the number of pages of a site that is fit to go online.

    Raises
    ------
    InputError
        If a page of the table of contents is missing, one shows a traceback, or the site was built from another commit.
    """
    import yaml

    pages = _pages(site)
    toc = yaml.safe_load((root / "_toc.yml").read_text(encoding="utf-8"))
    wanted = [toc["root"], *(chapter["file"] for part in toc["parts"] for chapter in part["chapters"])]
    missing = [name for name in wanted if not (site / f"{name}.html").is_file()]
    if missing:
        raise InputError(f"{site} lacks {len(missing)} page(s) of the table of contents, {missing[0]} first")
    for page in pages:
        if TRACEBACK in page.read_text(encoding="utf-8"):
            raise InputError(f"{page} shows a traceback")
    try:
        told = json.loads((site / STAMP).read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise InputError(f"{site / STAMP} is missing or damaged: build the site anew") from error
    if told["pages"] != len(pages):
        raise InputError(f"{site} has {len(pages)} pages, but {told['pages']} were built")
    if expected_commit and told["commit"] != expected_commit:
        raise InputError(f"{site} was built from {told['commit']}, not from {expected_commit}")
    return len(pages)


def main(arguments: list[str] | None = None) -> None:
    """Check a site and say how many pages it has.

    Raises
    ------
    InputError
        As for `check`; also outside a checkout.
    """
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("site", type=Path)
    parser.add_argument("--commit", default=None)
    given = parser.parse_args(arguments)
    root = repository()
    if root is None:
        raise InputError("there is no checkout of the book's repository here: change into one")
    print(f"{check(given.site, root, expected_commit=given.commit)} pages, fit to go online")


if __name__ == "__main__":
    sys.exit(exit_code_of(main))
