"""The paper's released figures as tidy tables, each column with its unit and meaning.

The numbers are the authors' (public repository at the commit below, MIT licence), recast as one row per
(source, target); the arrangement is this project's.
"""

from __future__ import annotations

import csv
import functools
import hashlib
import io
import json
from importlib import resources
from typing import TYPE_CHECKING, Any

from companion.errors import EnvironmentFailure, InputError, did_you_mean
from companion.published.runs import COMMIT, runs

if TYPE_CHECKING:
    import pandas as pd

CITATION = (
    "Juodelyte, Ferrante, Lu, Singh, Vanschoren, Cheplygina: On dataset transferability in medical image "
    "classification, arXiv 2412.20172"
)
PROVENANCE = f"the authors' public repository, commit {COMMIT[:7]}, MIT licence"

__all__ = [
    "CITATION",
    "COMMIT",
    "LARGE",
    "METRICS",
    "PROVENANCE",
    "SETTINGS",
    "TABLES",
    "columns",
    "expected",
    "runs",
    "table",
    "training_set_sizes",
]

# Released tables and the SHA-256 of their text: agreement with the printed means would miss half of the moved cells.
_SHA256 = {
    "source_datasets": "76c0452428a21a6d351a880ed905e554a158b4d6180b6c5a4d4364ea712cb09a",
    "architectures": "ea84b9938382affce2603ecd297e34f559401549a93fbf21464e72f1779998e9",
    "run_summaries": "9a5e00797dc04faac20096df176bb3c75c44fec8cfbd84813a91549a42cbee2a",
}
TABLES = tuple(_SHA256)
SETTINGS = ("source_datasets", "architectures")

# Order of the paper's tables.
METRICS = ("logme", "parc", "sfda", "ncti", "leep", "nleep")
# The three large sources among the source datasets: the published order rests on them.
LARGE = ("imagenet", "radimagenet", "medmnist")


@functools.cache
def _read(name: str) -> pd.DataFrame:
    import pandas as pd

    text = resources.files(__package__).joinpath(f"{name}.csv").read_text(encoding="utf-8")
    if hashlib.sha256(text.encode()).hexdigest() != _SHA256[name]:
        raise EnvironmentFailure(
            f"the packaged table {name} is not the released one: install the package again"
        )
    return pd.read_csv(io.StringIO(text))


def table(name: str) -> pd.DataFrame:
    """One of the released tables.

    Parameters
    ----------
    name
        ``"source_datasets"``: 15 ResNet-18 sources x 12 targets (chestmnist as a target has AUC only);
        ``"architectures"``: 9 ImageNet architectures x 11 targets;
        ``"run_summaries"``: one row per (setting, source, target), a summary of its fine-tuning runs.

    Returns
    -------
    pandas.DataFrame
        A copy. ``attrs`` holds ``citation``, ``provenance`` and ``columns`` (name -> unit, meaning).

    Raises
    ------
    InputError
        If there is no table of that name.
    EnvironmentFailure
        If a cell of the packaged table is not as released.
    """
    if name not in TABLES:
        raise InputError(
            f"no published table {name!r}: there are {', '.join(TABLES)}.{did_you_mean(name, TABLES)}"
        )
    frame = _read(name).copy()
    frame.attrs = {"citation": CITATION, "provenance": PROVENANCE, "columns": columns(name)}
    return frame


@functools.cache
def _columns() -> dict[str, dict[str, dict[str, str]]]:
    return json.loads(resources.files(__package__).joinpath("columns.json").read_text(encoding="utf-8"))


def columns(name: str) -> dict[str, dict[str, str]]:
    """Return unit, range and meaning of every column of a table: ``{column: {"unit": …, "meaning": …}}``."""
    if name not in TABLES:
        raise InputError(
            f"no published table {name!r}: there are {', '.join(TABLES)}.{did_you_mean(name, TABLES)}"
        )
    described = _columns()
    own = described["run_summaries" if name == "run_summaries" else "scores"]
    return {**described["keys"], **own}


@functools.cache
def expected(name: str) -> list[dict[str, Any]]:
    """Rows of a table of numbers as printed in the paper's release (``"weighted_tau"`` or ``"friedman"``).

    They are what the recomputation is checked against, never its result.
    """
    with resources.files(__package__).joinpath(f"expected_{name}.csv").open(encoding="utf-8") as stream:
        return list(csv.DictReader(stream))


@functools.cache
def _training_set_sizes() -> dict[str, int]:
    with resources.files(__package__).joinpath("training_set_sizes.csv").open(encoding="utf-8") as stream:
        return {row["source"]: int(row["images"]) for row in csv.DictReader(stream)}


def training_set_sizes() -> dict[str, int]:
    """Return the training images of the sources that are no MedMNIST set; the packaged table says whose count it is."""
    return dict(_training_set_sizes())
