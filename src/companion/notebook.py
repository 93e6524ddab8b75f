"""What the notebooks need besides the package: parameters checked, provenance shown, and one run with other parameters.

A notebook declares its parameters itself, in the cell tagged ``parameters``; papermill reads and replaces them there.
"""

from __future__ import annotations

import contextlib
import html
import json
import re
import sysconfig
import tempfile
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, TypeAdapter, ValidationError

from companion import store
from companion.datasets import SIZES
from companion.datasets import find as find_dataset
from companion.errors import EnvironmentFailure, InputError, brief, did_you_mean

Name = Annotated[str, Field(min_length=1)]
Names = Annotated[list[Name], Field(min_length=2)]

# Type and range of every parameter that a notebook may have. Defaults and explanations stand in the notebooks.
RANGES: dict[str, Any] = {
    "target": Name,
    "source": Name,
    "sources": Names,
    "architecture": Name,
    "architectures": Names,
    "weights": Literal["local", "pretrained"],
    "natural": Name,
    "size": Literal[(0, *SIZES)],  # 0: as the images are
    "seed": Annotated[int, Field(ge=0, lt=2**32)],
    "protocol": Literal["quick", "standard", "paper"],
    "folds": Annotated[int, Field(ge=1, le=5)],
    "per_class": Annotated[int, Field(ge=3, le=10_000)],
    "repeats": Literal[0] | Annotated[int, Field(ge=5)],
    "verify": Literal[0] | Annotated[int, Field(ge=2)],
    "out": str,
    "images": bool,
}


@dataclass(frozen=True)
class Run:
    """One run of a notebook: its name, its parameters and when it began."""

    name: str
    parameters: dict[str, Any]
    began: float

    def provenance(self, *datasets: Any) -> Any:
        """Return a table of how this run was made (datasets, parameters, device, versions), for the last cell."""
        from IPython.display import Markdown

        from companion.models import devices_used

        record = store.provenance(
            seed=self.parameters["seed"],
            device=", ".join(sorted(devices_used)) or None,
            notebook=self.name,
            parameters=self.parameters,
            data={dataset.name: dataset.content_hash for dataset in datasets},
            synthetic=sorted(dataset.name for dataset in datasets if dataset.synthetic),
            seconds=round(time.perf_counter() - self.began, 1),
        )
        data = ", ".join(f"{_text(name)} `{sha[:12]}`" for name, sha in record["data"].items())
        libraries = ", ".join(" ".join(pair) for pair in record["libraries"].items())
        rows = {
            "How this page was made": "",
            "---": "---",
            "Data (sha256)": data or "published tables only",
            "Parameters": ", ".join(_text(f"{name}={value!r}") for name, value in self.parameters.items()),
            "Device, seed": f"{record['device'] or 'no network was run'}, {record['seed']}",
            "Versions": f"companion {record['companion']} (results version {record['results_version']}), "
            f"Python {record['python']}, {libraries}",
            "Run": f"{record['date']}, {record['seconds']} s",
        }
        if record["synthetic"]:
            rows["Note"] = f"**synthetic images**: {', '.join(map(_text, record['synthetic']))}"
        table = "\n".join(f"| {name} | {what} |" for name, what in rows.items())
        return Markdown(table, metadata={"companion": record})


_runs: list[Run] = []  # of this session


def start(name: str, /, **parameters: Any) -> Run:
    """Check all parameters of the notebook `name`, before any work; an `InputError` says which is wrong.

    Papermill writes what it is given with ``-p`` into a cell behind the parameters cell, ``name = value``, whether the
    notebook has such a parameter or not. So this call stands directly behind the parameters, and at the first call in a
    session every text, number, list and the like that ``%who`` lists and that is no parameter is taken for a misspelt
    one. The notebook's variables are only read.
    """
    from IPython import get_ipython

    if not _runs and (shell := get_ipython()) is not None:
        for each in shell.run_line_magic("who_ls", "str int float bool list dict NoneType"):
            if each not in parameters:
                unknown = _unknown(name, each, parameters)
                raise InputError(f"{unknown} (In an open notebook, restart the kernel too.)")
    check(name, parameters)
    _runs.append(Run(name, parameters, time.perf_counter()))
    return _runs[-1]


def _unknown(name: str, given: str, known: Mapping[str, Any]) -> str:
    return f"{name}: unknown parameter {given!r} (there are {', '.join(known)}).{did_you_mean(given, known)}"


def check(name: str, parameters: Mapping[str, Any]) -> None:
    """Raise `InputError` for values of a wrong type or range, and for datasets and sources that do not exist."""
    from companion.sources import check_name  # brings torch

    for key, value in parameters.items():
        try:
            TypeAdapter(RANGES[key]).validate_python(value, strict=True)
        except ValidationError as error:
            said = " or ".join(each["msg"] for each in error.errors()).lower()
            raise InputError(f"{name}: parameter {key!r} is {brief(value)}: {said}") from None
    for key in parameters.keys() & {"target", "natural"}:
        find_dataset(parameters[key])
    sources = [*parameters.get("sources", []), *([parameters["source"]] if "source" in parameters else [])]
    for source in [*sources, *(f"torchvision:{name}" for name in parameters.get("architectures", []))]:
        check_name(source)


def _text(text: str) -> str:
    """Text as it is, in a table of Markdown: names of folders and files may hold anything."""
    return re.sub(r"([\\`*_\[\]|$~])", r"\\\1", html.escape(text, quote=False))


# --- from outside -------------------------------------------------------------------------------------------


def paths() -> dict[str, Path]:
    """Return the executed notebooks by name: those of the repository around the package, or those installed with it."""
    installed = Path(sysconfig.get_path("data")) / "share" / "companion" / "notebooks"
    for folder in (Path(__file__).parents[2] / "notebooks", installed):
        if found := {path.stem: path for path in sorted(folder.glob("[0-9][0-9]_*.ipynb"))}:
            return found
    raise EnvironmentFailure("the notebooks are not installed with the package: install it anew")


def find(name: str) -> Path:
    """Return the path of a notebook given by its name, its number or its file; `InputError` if there is none."""
    known = paths()
    wanted = Path(name).stem
    for each, path in known.items():
        if wanted.zfill(2) in (each, each[:2], each[3:]):
            return path
    raise InputError(f"no notebook {name!r}: there are {', '.join(known)}.{did_you_mean(wanted, known)}")


def declared(path: Path) -> dict[str, dict[str, str]]:
    """Return what papermill reads in the parameters cell: ``inferred_type_name``, ``default`` and ``help`` by name."""
    from papermill import inspect_notebook

    return inspect_notebook(str(path))


def read_values(path: Path, given: Mapping[str, str]) -> dict[str, Any]:
    """Turn text from a command line into values of the declared types; a list is written ``a,b``."""
    known, values = declared(path), dict[str, Any](given)
    for name, text in given.items():
        if name not in known:
            raise InputError(_unknown(path.stem, name, known))
        kind = known[name]["inferred_type_name"]
        if kind == "list":
            values[name] = [part.strip() for part in text.split(",") if part.strip()]
        elif kind != "str":
            with contextlib.suppress(ValueError):  # what is none stays text, which the check refuses
                values[name] = json.loads(text.lower())
    check(path.stem, values)
    return values


def execute(path: Path, parameters: Mapping[str, Any], out: Path) -> None:
    """Execute the notebook at `path` with papermill and write it to `out`, whole or not at all.

    An `InputError` or `EnvironmentFailure` of a cell is raised as such, anything else as papermill does.
    """
    import papermill

    options: dict[str, Any] = {"kernel_name": "python3", "progress_bar": False}
    options["extra_arguments"] = ["--log-level=40"]  # the kernel would warn of how it talks to us, every time
    with tempfile.TemporaryDirectory() as folder:
        ran = Path(folder) / path.name
        try:
            papermill.execute_notebook(path, ran, dict(parameters), **options)
        except papermill.PapermillExecutionError as error:
            for kind in (InputError, EnvironmentFailure):
                if error.ename == kind.__name__:
                    raise kind(f"notebook {path.stem}, cell {error.cell_index}: {error.evalue}") from None
            raise
        with store.atomic_path(out) as temporary:
            temporary.write_bytes(ran.read_bytes())
