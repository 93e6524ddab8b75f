"""Executing notebooks: papermill with checked parameters, and the stamp that says what ran."""

from __future__ import annotations

import contextlib
import hashlib
import os
import sys
import sysconfig
import tempfile
import tomllib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from companion import store
from companion.errors import CompanionError, EnvironmentFailure, InputError, require_extra
from companion.notebooks.inside import SOURCE_HASH_VARIABLE, check_names
from companion.notebooks.parameters import parse, resolve


class NotebookError(CompanionError):
    """A cell of a notebook failed; the exit code is that of the error raised in it."""

    def __init__(self, message: str, exit_code: int = 1) -> None:
        super().__init__(message)
        self.exit_code = exit_code


def _is_checkout(folder: Path) -> bool:
    """Tell this project's repository from a folder that has files of the same names: its notebooks are executed."""
    if not ((folder / "_toc.yml").is_file() and (folder / "notebooks").is_dir()):
        return False
    try:
        project = tomllib.loads((folder / "pyproject.toml").read_text(encoding="utf-8"))["project"]
        return project["name"] == "transferability-companion"
    except (OSError, ValueError, KeyError, TypeError):
        return False


def repository() -> Path | None:
    """Find the checkout that the working directory lies in."""
    here = Path.cwd()
    return next((folder for folder in (here, *here.parents) if _is_checkout(folder)), None)


def locate(name: str) -> Path:
    """Path of a notebook to run: the checkout's, or the one installed with the package.

    Raises
    ------
    EnvironmentFailure
        If neither is there.
    """
    root = repository()
    folders = [root / "notebooks"] if root else []
    folders.append(Path(__file__).parents[3] / "notebooks")  # an editable install
    folders.append(Path(sysconfig.get_path("data")) / "share" / "companion" / "notebooks")
    for folder in folders:
        if (folder / f"{name}.ipynb").is_file():
            return folder / f"{name}.ipynb"
    raise EnvironmentFailure(
        f"notebook {name} is neither in a checkout here nor installed: reinstall the package"
    )


def source_hash(path: Path) -> str:
    """sha256 of a notebook's cells: equal for the ``.py`` source and its executed ``.ipynb``."""
    cells = [[cell["cell_type"], "".join(cell["source"]).strip()] for cell in source_cells(read(path))]
    return hashlib.sha256(repr(cells).encode()).hexdigest()


def read(path: Path) -> Any:
    """Read a notebook, from ``.ipynb`` or, through jupytext, from a percent ``.py`` file."""
    import nbformat

    if path.suffix == ".py":
        notebook = require_extra("jupytext", "dev").read(path)
        notebook.metadata["kernelspec"] = {
            "display_name": "Python 3",
            "language": "python",
            "name": "python3",
        }
        return notebook
    return nbformat.read(path, as_version=4)


def source_cells(notebook: Any) -> list[Any]:
    """Cells that stand in the source: all but what papermill injected."""
    return [cell for cell in notebook.cells if "injected-parameters" not in cell.metadata.get("tags", [])]


@contextlib.contextmanager
def _environment(**variables: str) -> Iterator[None]:
    before = {name: os.environ.get(name) for name in variables}
    os.environ.update(variables)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value


def execute(name: str, given: Mapping[str, Any], out: Path, *, source: Path | None = None) -> dict[str, Any]:
    """Execute a notebook with checked parameters and write it to `out`, whole or not at all.

    Parameters
    ----------
    name
        The notebook.
    given
        Parameters that differ from the defaults.
    out
        Where the executed notebook goes.
    source
        The file to run; by default `locate` finds it.

    Returns
    -------
    dict
        The stamp.

    Raises
    ------
    InputError
        If a parameter is wrong; before anything runs.
    NotebookError
        If a cell fails, naming notebook, cell and error.
    """
    import nbformat
    import papermill

    name = resolve(name)
    parameters = parse(name, given)
    changed = {key: value for key, value in parameters.model_dump().items() if key in given}
    check_names(parameters)
    # The notebook runs in a folder of its own, where a relative path would lead elsewhere.
    for key in changed.keys() & {"target", "source", "natural"}:
        changed[key] = _absolute(changed[key])
    if "sources" in changed:
        changed["sources"] = [_absolute(source) for source in changed["sources"]]
    if changed.get("out"):
        changed["out"] = str(Path(changed["out"]).expanduser().absolute())
    path = source or locate(name)
    notebook = read(path)
    for cell in notebook.cells:
        if cell["cell_type"] == "code":
            cell["outputs"], cell["execution_count"] = [], None
    notebook.metadata.pop("companion", None)
    with tempfile.TemporaryDirectory() as folder:
        bare, ran = Path(folder) / f"{name}.ipynb", Path(folder) / "ran.ipynb"
        nbformat.write(notebook, bare)
        # A data directory given relatively would mean another one inside the folder of the run.
        with _environment(
            **{
                SOURCE_HASH_VARIABLE: source_hash(path),
                "COMPANION_DATA": str(store.data_dir().absolute()),
                "COMPANION_CACHE": str(store.cache_dir().absolute()),
            }
        ):
            try:
                papermill.execute_notebook(
                    bare,
                    ran,
                    parameters=changed,
                    cwd=folder,
                    kernel_name="python3",
                    progress_bar=False,
                    log_output=False,
                    # The kernel warns of how it talks to us, every time, on our stderr.
                    extra_arguments=["--log-level=40"],
                )
            except papermill.PapermillExecutionError as error:
                code = {"InputError": 2, "EnvironmentFailure": 3}.get(error.ename, 1)
                message = f"notebook {name}, cell {error.cell_index}: {error.ename}: {error.evalue}"
                if code == 1:
                    message += "\n  the cell: " + "\n".join(error.source.strip().splitlines()[:8])
                raise NotebookError(message, code) from None
        executed = nbformat.read(ran, as_version=4)
    stamp = _lift_stamp(executed)
    with store.atomic_path(out) as temporary:
        nbformat.write(executed, temporary)
    return stamp


def _lift_stamp(notebook: Any) -> dict[str, Any]:
    """Move what `foot` left in an output to the notebook's metadata, and drop what only papermill reads."""
    stamp: dict[str, Any] = {}
    for cell in notebook.cells:
        for key in ("papermill", "execution"):
            cell.metadata.pop(key, None)
        for output in cell.get("outputs", []):
            found = output.get("metadata", {}).pop("companion", None)
            if found:
                stamp = dict(found)
    notebook.metadata.pop("papermill", None)
    notebook.metadata["companion"] = stamp
    return stamp


def _absolute(name: str) -> str:
    """Make a path in the name of a target or source absolute; leave other names as they are."""
    prefix = "train:" if name.startswith("train:") else ""
    path = Path(name.removeprefix(prefix)).expanduser()
    return prefix + str(path.resolve()) if path.exists() else name


def data_at_hand(flags: tuple[str, ...] = ("breastmnist", "pneumoniamnist", "retinamnist")) -> str:
    """Return why the notebooks' real data cannot be had, or the empty string where it can."""
    from companion.datasets import load_dataset

    for flag in flags:
        try:
            load_dataset(flag)
        except (InputError, EnvironmentFailure) as error:
            return str(error)
    return ""


def say(line: str) -> None:
    """Tell a person at the terminal how far things are."""
    print(line, file=sys.stderr, flush=True)
