"""Build the book: ``python book/build.py [--committed] [--data auto|real|procedural]``.

The notebooks are executed by papermill, or taken as committed. Jupyter Book does the rest in a staging folder, where
MyST-NB evaluates the numbers of the pages; a warning is an error. The last line printed is the page to open.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import jupytext
import nbformat

import explorer
import vector
from companion import notebook
from companion.datasets import load_dataset
from companion.errors import CompanionError, EnvironmentFailure, InputError, exit_code_of

ROOT = Path(__file__).parents[1]
SOURCES = sorted((ROOT / "notebooks").glob("*.py"))
# What is run where MedMNIST is not available.
SYNTHETIC: dict[str, Any] = {
    "target": "procedural:lesions",
    "sources": ["train:procedural:textures", "train:procedural:cells", "train:procedural:fibres"],
    "source": "train:procedural:textures",
    "natural": "procedural:textures",
}
SYNTHETIC_NOTE = (
    ":::{admonition} Synthetic images\n:class: warning\n"
    "MedMNIST was not available when this page was built, so its live parts were run on **synthetic** images. "
    "They show that the code runs; their numbers say nothing about medical images.\n:::"
)


# The first cell of a notebook while it is executed: how its figures are written.
DRAWN = f"%config InlineBackend.figure_formats = ['svg']\n%config InlineBackend.rc = {vector.WORDS}"


def say(line: str) -> None:
    """Tell the person at the terminal how far things are."""
    print(line, file=sys.stderr, flush=True)


# --- notebooks ----------------------------------------------------------------------------------------------


def read(source: Path) -> Any:
    """Read a notebook from its percent file, with the kernel it runs in."""
    found = jupytext.read(source)
    found.metadata["kernelspec"] = {"display_name": "Python 3", "language": "python", "name": "python3"}
    return found


def source_hash(cells: list[Any]) -> str:
    """sha256 of a notebook's cells but for what papermill injected: equal for a source and its executed copy."""
    own = [cell for cell in cells if "injected-parameters" not in cell.metadata.get("tags", [])]
    return hashlib.sha256(
        json.dumps([[cell.cell_type, cell.source.strip()] for cell in own]).encode()
    ).hexdigest()


def synthetic(path: Path) -> dict[str, Any]:
    """Parameters that run the notebook at `path` on synthetic images."""
    given = {name: SYNTHETIC[name] for name in notebook.declared(path) if name in SYNTHETIC}
    if "sources" in given and path.stem != "01_source_training":
        given["sources"] = ["scratch", *given["sources"]]
    return given


def execute(
    source: Path, out: Path, given: dict[str, Any] | None = None, *, procedural: bool = False
) -> None:
    """Execute one notebook from its source into `out`, with its provenance in its metadata."""
    with tempfile.TemporaryDirectory() as folder:
        bare, whole = Path(folder) / f"{source.stem}.ipynb", read(source)
        whole.cells.insert(0, nbformat.v4.new_code_cell(DRAWN))
        nbformat.write(whole, bare)
        given = (synthetic(bare) if procedural else {}) | (given or {})
        notebook.execute(bare, given, out)
    ran = nbformat.read(out, as_version=4)
    del ran.cells[0]
    record = ran.cells[-1].outputs[0].metadata["text/markdown"].pop("companion")
    ran.metadata["companion"] = record | {"source_hash": source_hash(ran.cells)}
    for output in (found for cell in ran.cells for found in cell.get("outputs", [])):
        if "image/svg+xml" in output.get("data", {}):
            output["data"]["image/svg+xml"] = vector.following(output["data"]["image/svg+xml"])
    for part in (ran, *ran.cells):  # times and paths of this machine
        part.metadata.pop("papermill", None)
        part.metadata.pop("execution", None)
    if record["synthetic"]:
        ran.cells.insert(1, nbformat.v4.new_markdown_cell(SYNTHETIC_NOTE))
    nbformat.write(ran, out)


def execute_all(folder: Path, data: str) -> None:
    """Execute every notebook into `folder`, on ``real`` or ``procedural`` data; ``auto`` takes what is available.

    Raises
    ------
    EnvironmentFailure
        If `data` is ``real`` and the real data is not available.
    """
    if data != "procedural":
        try:
            for flag in ("breastmnist", "pneumoniamnist", "retinamnist"):
                load_dataset(flag)
        except (InputError, EnvironmentFailure) as error:
            if data == "real":
                raise EnvironmentFailure(f"the notebooks' real data is not available: {error}") from error
            say(f"MedMNIST is not available ({error}):")
            say("SYNTHETIC images are used instead; every page and figure made from them says so")
            data = "procedural"
    for source in SOURCES:
        began = time.perf_counter()
        say(f"{source.stem}: running")
        execute(source, folder / f"{source.stem}.ipynb", procedural=data == "procedural")
        say(f"{source.stem}: done in {time.perf_counter() - began:.0f} s")


# --- pages --------------------------------------------------------------------------------------------------


def stage(folder: Path) -> Path:
    """Put what the book is made of, but for the notebooks, into an empty folder."""
    shutil.rmtree(folder, ignore_errors=True)
    shutil.copytree(ROOT / "book", folder / "book", ignore=shutil.ignore_patterns("__pycache__"))
    (folder / "notebooks").mkdir()
    for name in ("_config.yml", "_toc.yml", "CHANGELOG.md"):
        shutil.copy2(ROOT / name, folder)
    (folder / "_static").mkdir()  # the theme loads on every page what is here
    for name in ("companion.css", "companion.js"):
        shutil.copy2(ROOT / "book" / name, folder / "_static")
    explorer.write(folder / "extra" / "explorer")  # loaded by its own page only
    return folder


def html(folder: Path, out: Path) -> Path:
    """Build the staged book and return its first page.

    Raises
    ------
    CompanionError
        If Jupyter Book warns of anything; its output, on stderr, says of what.
    """
    shutil.rmtree(out, ignore_errors=True)  # what is there already is not looked at again
    program = "from jupyter_book.cli.main import main; main()"
    options = ["--path-output", str(out), "-W", "-n", "--keep-going", "-q"]
    outcome = subprocess.run(
        [sys.executable, "-c", program, "build", str(folder), *options], stdout=sys.stderr, check=False
    )
    index = out / "_build" / "html" / "index.html"
    if outcome.returncode or not index.is_file():
        raise CompanionError("the book was not built: see the warnings above")
    return index


def build(*, committed: bool = False, data: str = "auto") -> Path:
    """Build the book under ``build/`` and return its first page; the repository's own files stay untouched."""
    name = "site" if committed else "book"
    folder = stage(ROOT / "build" / f"{name}-stage")
    if committed:
        for source in SOURCES:
            shutil.copy2(source.with_suffix(".ipynb"), folder / "notebooks")
    else:
        execute_all(folder / "notebooks", data)
    say("building the pages")
    return html(folder, ROOT / "build" / name)


def main() -> None:
    """Read the command line, build, and print the page to open."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--committed", action="store_true", help="take the executed notebooks as committed")
    parser.add_argument(
        "--data", choices=("auto", "real", "procedural"), default="auto", help="images to run on"
    )
    given = parser.parse_args()
    print(build(committed=given.committed, data=given.data))


if __name__ == "__main__":
    sys.exit(exit_code_of(main))
