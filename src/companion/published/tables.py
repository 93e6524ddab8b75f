"""The paper's released figures as tidy tables, each column with its unit and meaning.

The numbers are the authors' (public repository at the commit below, MIT licence), recast as one row per
(source, target); the arrangement is this project's.
"""

from __future__ import annotations

import csv
import functools
import io
import json
from importlib import resources
from typing import TYPE_CHECKING

from companion.errors import InputError, did_you_mean

if TYPE_CHECKING:
    import pandas as pd

COMMIT = "7e308c4998e98d5781fbac5cdde2fa7c0002977d"
CITATION = (
    "Juodelyte, Ferrante, Lu, Singh, Vanschoren, Cheplygina: On dataset transferability in medical image "
    "classification, arXiv 2412.20172"
)
PROVENANCE = f"the authors' public repository, commit {COMMIT[:7]}, MIT licence"
SETTINGS = ("source_datasets", "architectures")
TABLES = (*SETTINGS, "run_summaries", "run_intervals")
# Order of the paper's tables.
METRICS = ("logme", "parc", "sfda", "ncti", "leep", "nleep")
# The three large sources among the source datasets: the published order rests on them.
LARGE = ("imagenet", "radimagenet", "medmnist")


@functools.cache
def _read(filename: str) -> str:
    return resources.files(__package__).joinpath(filename).read_text(encoding="utf-8")


def table(name: str) -> pd.DataFrame:
    """One of the released tables.

    Parameters
    ----------
    name
        ``"source_datasets"``: 15 ResNet-18 sources x 12 targets (chestmnist as a target has AUC only);
        ``"architectures"``: 9 ImageNet architectures x 11 targets;
        ``"run_summaries"``: one row per (setting, source, target), a summary of its fine-tuning runs;
        ``"run_intervals"``: the interval of the ground truth of each of these, computed here from its runs.

    Returns
    -------
    pandas.DataFrame
        A copy. ``attrs`` holds ``citation``, ``provenance`` and ``columns`` (name -> unit, meaning).

    Raises
    ------
    InputError
        If there is no table of that name.
    """
    import pandas as pd

    if name not in TABLES:
        near = did_you_mean(name, TABLES)
        raise InputError(f"no published table {name!r}: there are {', '.join(TABLES)}.{near}")
    frame = pd.read_csv(io.StringIO(_read(f"{name}.csv")))
    described = json.loads(_read("columns.json"))
    columns = described["keys"] | described["scores" if name in SETTINGS else name]
    frame.attrs = {"citation": CITATION, "provenance": PROVENANCE, "columns": columns}
    return frame


def rows(filename: str) -> list[dict[str, str]]:
    """Rows of a packaged table as text."""
    return list(csv.DictReader(io.StringIO(_read(filename))))


def expected(name: str) -> list[dict[str, str]]:
    """Rows of a table of numbers as printed in the paper's release (``"weighted_tau"`` or ``"friedman"``).

    They are what the recomputation is checked against, never its result.
    """
    return rows(f"expected_{name}.csv")


def training_set_sizes() -> dict[str, int]:
    """Return the training images of the sources that are no MedMNIST set; the packaged table says whose count it is."""
    return {row["source"]: int(row["images"]) for row in rows("training_set_sizes.csv")}
