"""What runs inside a notebook: the check of its parameters and the foot of its page."""

from __future__ import annotations

import ast
import html
import os
import re
import time
from collections.abc import MutableMapping
from dataclasses import dataclass
from typing import Any

from companion import store
from companion.errors import InputError
from companion.notebooks.parameters import NotebookParameters, parse

# Both the notebooks' own parameters cell and the cell papermill adds begin with this line.
PARAMETERS_MARK = "# Parameters"
SOURCE_HASH_VARIABLE = "COMPANION_NOTEBOOK_SOURCE"


@dataclass(frozen=True)
class Run:
    """One run of a notebook: its name, its checked parameters and when it began."""

    name: str
    parameters: NotebookParameters
    began: float


def _assigned(source: str) -> set[str]:
    """Names assigned at the top level of a cell."""
    try:
        tree = ast.parse(source)
    except SyntaxError:
        return set()
    targets = [
        target
        for node in tree.body
        for target in (node.targets if isinstance(node, ast.Assign) else [getattr(node, "target", None)])
    ]
    return {target.id for target in targets if isinstance(target, ast.Name)}


def check_names(parameters: NotebookParameters) -> None:
    """Refuse a target or a source that does not exist, before anything is loaded.

    Raises
    ------
    InputError
        Naming it.
    """
    from companion.datasets import find
    from companion.sources import check_name

    for name in parameters.dataset_names():
        find(name)
    for source in parameters.source_names():
        check_name(source)


def check(name: str, namespace: MutableMapping[str, Any]) -> Run:
    """Check a notebook's parameters before any work, and write them back as what they should be.

    Parameters
    ----------
    name
        The notebook.
    namespace
        The notebook's ``globals()``. Names that a parameters cell assigned, here or by papermill's ``-p``, and
        that are no parameters are refused; a plain run with a misspelt name would silently use the default.

    Raises
    ------
    InputError
        Naming every parameter that is missing, unknown, of the wrong type or out of range.
    """
    cells = [cell for cell in namespace.get("In", []) if cell.lstrip().startswith(PARAMETERS_MARK)]
    given: set[str] = set().union(*(_assigned(cell) for cell in cells))
    known = set(parse(name, {}).model_dump())
    missing = sorted(known - set(namespace))
    if missing:
        raise InputError(f"{name}: parameter {missing[0]!r} is missing: run the parameters cell first")
    parameters = parse(name, {key: namespace[key] for key in (known | given) if key in namespace})
    check_names(parameters)
    namespace.update(parameters.model_dump())
    _show_figures()
    return Run(name, parameters, time.perf_counter())


def _show_figures() -> None:
    """Let the notebook show matplotlib figures that are the value of a cell."""
    from IPython import get_ipython

    shell = get_ipython()
    if shell is not None and hasattr(shell, "enable_matplotlib"):
        shell.enable_matplotlib("inline")


def _plain(text: str) -> str:
    """Text as it is, in a table of Markdown: names of folders and files may hold anything."""
    return re.sub(r"([\\`*_\[\]|$~])", r"\\\1", html.escape(text, quote=False))


def foot(run: Run, *datasets: Any) -> None:
    """Show how the page was made, at its end, and leave the same in the output's metadata.

    Parameters
    ----------
    run
        What `check` returned.
    *datasets
        The datasets used.
    """
    from IPython.display import Markdown, display

    from companion.models import devices_used

    record = store.provenance(
        seed=run.parameters.seed,
        device=", ".join(sorted(devices_used)) or None,
        notebook=run.name,
        source_hash=os.environ.get(SOURCE_HASH_VARIABLE),
        parameters=run.parameters.model_dump(),
        data={dataset.name: dataset.content_hash for dataset in datasets},
        synthetic=sorted(dataset.name for dataset in datasets if dataset.synthetic),
        seconds=round(time.perf_counter() - run.began, 1),
    )
    libraries = ", ".join(f"{name} {version}" for name, version in record["libraries"].items())
    data = (
        ", ".join(f"{_plain(name)} `{digest[:12]}`" for name, digest in record["data"].items())
        or "published tables only"
    )
    given = ", ".join(_plain(f"{name}={value!r}") for name, value in record["parameters"].items())
    lines = [
        "| How this page was made | |",
        "|---|---|",
        f"| Data (sha256) | {data} |",
        f"| Parameters | {given} |",
        f"| Device, seed | {record['device'] or 'no network was run'}, {record['seed']} |",
        f"| Versions | companion {record['companion']} (results version {record['results_version']}), "
        f"Python {record['python']}, {libraries} |",
        f"| Source of the notebook | `{(record['source_hash'] or 'run by hand')[:16]}` |",
        f"| Run | {record['date']}, {record['seconds']} s |",
    ]
    if record["synthetic"]:
        lines.append(f"| Note | **synthetic images**: {', '.join(map(_plain, record['synthetic']))} |")
    display(Markdown("\n".join(lines)), metadata={"companion": record})
