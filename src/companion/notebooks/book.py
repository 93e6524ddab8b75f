"""Building the book: notebooks executed afresh, or taken as committed, then HTML with warnings as errors."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from companion.errors import EnvironmentFailure, InputError, require_extra
from companion.notebooks import explorer, guard
from companion.notebooks.execution import NotebookError, data_at_hand, execute, repository, say
from companion.notebooks.parameters import NOTEBOOKS, parse, procedural
from companion.store import write_text

NOTE_CELL_ID = "made-from-synthetic-images"
_FIGURE = re.compile(r'^<img [^>]*src="[^"]*_images/[^>]*/>$', flags=re.MULTILINE)
SYNTHETIC_NOTE = (
    ":::{admonition} Synthetic images\n:class: warning\n"
    "MedMNIST could not be had when this page was built, so its live parts were run on **synthetic** images. "
    "They show that the code runs; their numbers say nothing about medical images.\n:::"
)


def checkout() -> Path:
    """Return the repository the working directory lies in.

    Raises
    ------
    InputError
        If it lies in none.
    """
    root = repository()
    if root is None:
        raise InputError("there is no checkout of the book's repository here: change into one")
    return root


def stage(root: Path, folder: Path) -> Path:
    """Put what the book is made of, but for the notebooks, into an empty staging folder."""
    shutil.rmtree(folder, ignore_errors=True)
    (folder / "notebooks").mkdir(parents=True)
    for name in ("_config.yml", "_toc.yml", "CHANGELOG.md"):
        if (root / name).is_file():
            shutil.copy2(root / name, folder / name)
    shutil.copytree(root / "book", folder / "book", dirs_exist_ok=True)
    (folder / "_static").mkdir()
    shutil.copy2(root / "book" / "companion.css", folder / "_static" / "companion.css")
    # Outside _static, all of whose scripts the theme loads on every page.
    explorer.write(root, folder / "extra" / "explorer")
    return folder


def execute_all(root: Path, folder: Path, *, data: str, protocol: str | None = None) -> str:
    """Execute every notebook into `folder`; return the kind of data that was used.

    Parameters
    ----------
    data
        ``"real"``, ``"procedural"``, or ``"auto"``: real where it can be had, else synthetic, and said so.
    protocol
        ``"quick"``, ``"standard"`` or ``"paper"``, for the notebooks that train.
    """
    if data not in ("auto", "real", "procedural"):
        raise InputError(f"--data {data!r} is none of auto, real, procedural")
    for name, model in NOTEBOOKS.items():
        if protocol and "protocol" in model.model_fields:
            parse(name, {"protocol": protocol})
    if data != "procedural":
        reason = data_at_hand()
        if reason and data == "real":
            raise EnvironmentFailure(f"the notebooks' real data cannot be had: {reason}")
        if reason:
            say(f"MedMNIST cannot be had ({reason})")
            say("SYNTHETIC images are used instead; every page and figure made from them says so")
        data = "procedural" if reason else "real"
    for name in NOTEBOOKS:
        began = time.perf_counter()
        say(f"{name}: running")
        out = folder / f"{name}.ipynb"
        given = procedural(name) if data == "procedural" else {}
        if protocol and "protocol" in NOTEBOOKS[name].model_fields:
            given["protocol"] = protocol
        execute(name, given, out, source=root / "notebooks" / f"{name}.py")
        if data == "procedural":
            _mark_synthetic(out)
        say(f"{name}: done in {time.perf_counter() - began:.0f} s")
    return data


def _mark_synthetic(path: Path) -> None:
    import nbformat

    notebook: Any = nbformat.read(path, as_version=4)
    notebook.cells.insert(1, nbformat.v4.new_markdown_cell(SYNTHETIC_NOTE, id=NOTE_CELL_ID))
    nbformat.write(notebook, path)


def html(folder: Path, out: Path) -> Path:
    """Fill the pages of the staged book and build it; any warning is an error.

    Raises
    ------
    NotebookError
        If the build fails; with the end of what it said.
    """
    require_extra("jupyter_book", "dev")
    from companion.notebooks.pages import render  # draws and computes, so only now

    render(folder)
    shutil.rmtree(out, ignore_errors=True)
    command = [
        sys.executable,
        "-c",
        "from jupyter_book.cli.main import main; main()",
        "build",
        str(folder),
        "--path-output",
        str(out),
        "-W",
        "-n",
        "--keep-going",
    ]
    log = folder / "build.log"
    with log.open("w", encoding="utf-8") as stream:
        outcome = subprocess.run(command, stdout=stream, stderr=subprocess.STDOUT, check=False)
    index = out / "_build" / "html" / "index.html"
    if outcome.returncode or not index.is_file():
        lines = log.read_text(encoding="utf-8", errors="replace").splitlines()
        telling = [
            line
            for line in lines
            if any(word in line for word in ("WARNING", "ERROR", "Could not", "exception:"))
        ] or lines[-15:]
        raise NotebookError("the book was not built:\n" + "\n".join(telling[:30]))
    _mend(index.parent)
    return index


def _mend(site: Path) -> None:
    """Mend two things that the pages' makers offer no setting for.

    Docutils gives the entries of a bibliography a role that no list may hold. And figures stand bare in
    the page, not in an element like a cell's other outputs, which the theme makes reachable by keyboard where it
    scrolls.
    """
    for page in site.rglob("*.html"):
        text = page.read_text(encoding="utf-8")
        mended = text.replace('role="doc-biblioentry"', 'role="listitem"')
        mended = _FIGURE.sub(r'<div class="cell_output"><div class="output">\g<0></div></div>', mended)
        if mended != text:
            write_text(page, mended)


def build(*, data: str = "auto", committed: bool = False, protocol: str | None = None) -> Path:
    """Build the book and return the path of its first page. The repository's own files stay untouched."""
    root = checkout()
    require_extra("jupyter_book", "dev")
    folder = stage(root, root / "build" / ("site-stage" if committed else "book-stage"))
    if committed:
        for name in NOTEBOOKS:
            source = root / "notebooks" / f"{name}.ipynb"
            if not source.is_file():
                raise InputError(f"{source} is not there: run  make notebooks  first")
            shutil.copy2(source, folder / "notebooks" / source.name)
    else:
        execute_all(root, folder / "notebooks", data=data, protocol=protocol)
    say("building the pages")
    index = html(folder, root / "build" / ("site" if committed else "book"))
    guard.stamp(index.parent, root)
    return index
