"""All fine-tuning runs behind the ground truth: from the data directory, or downloaded and tidied once.

The authors released one table per target and setting. They are too large to be packaged; what is packaged is
their checksums and a summary of each pair, against which every table of runs is checked after reading.
"""

from __future__ import annotations

import csv
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING

from companion import store
from companion.errors import EnvironmentFailure, InputError

if TYPE_CHECKING:
    import pandas as pd

COMMIT = "7e308c4998e98d5781fbac5cdde2fa7c0002977d"
ADDRESS = f"https://raw.githubusercontent.com/DovileDo/transferability-in-medical-imaging/{COMMIT}"
FILENAME = "fine_tuning_runs.parquet"
FOLDER = "fine_tuning_runs"
ROWS = 28_205  # of all runs released, failed ones included; the summaries count the finished ones only

COLUMNS = (
    "setting",
    "source",
    "target",
    "lr",
    "momentum",
    "weight_decay",
    "batch_size",
    "epochs",
    "stopped_epoch",
    "val_loss",
    "val_auc",
    "val_acc",
    "test_loss",
    "test_auc",
    "test_acc",
    "status",
)
# Column of the authors' tables -> ours.
_UPSTREAM = {
    "source_flag": "source",
    "target_flag": "target",
    "batch_size": "batch_size",
    "lr": "lr",
    "momentum": "momentum",
    "wd": "weight_decay",
    "epochs": "epochs",
    "stopped_at": "stopped_epoch",
    "val_loss": "val_loss",
    "val_auc": "val_auc",
    "val_acc": "val_acc",
    "test_loss": "test_loss",
    "test_auc": "test_auc",
    "test_acc": "test_acc",
    "Status": "status",
}
_TEXT = ("setting", "source", "target", "status")
_KEYS = ["setting", "source", "target"]


def registry() -> list[dict[str, str]]:
    """Return file, setting, target and sha256 of the authors' tables."""
    with (
        resources.files("companion.published").joinpath("runs_registry.csv").open(encoding="utf-8") as stream
    ):
        return list(csv.DictReader(stream))


def runs(*, download: bool = True) -> pd.DataFrame:
    """Every released fine-tuning run, one row each.

    Read from ``fine_tuning_runs.parquet`` in the data directory (also one folder down). Where it is not, the
    authors' tables are downloaded at the pinned commit, checked by their checksums, tidied, and kept there as that
    file.

    Parameters
    ----------
    download
        Whether the authors' tables may be downloaded.

    Returns
    -------
    pandas.DataFrame
        Columns ``setting source target lr momentum weight_decay batch_size epochs stopped_epoch val_loss val_auc
        val_acc test_loss test_auc test_acc status``: names as in the published tables, losses and scores as
        fractions of 1, ``status`` ``FINISHED``, ``FAILED`` or ``RUNNING`` (the last two have no results).

    Raises
    ------
    InputError
        If a file is damaged, or is another one than was released.
    EnvironmentFailure
        If there is no file and the download fails or is not allowed.
    """
    place = _look_up()
    if place is not None:
        return _check(_read(place), str(place))
    target = store.data_dir() / FILENAME
    where = f"put {FILENAME}, which companion.published.runs() writes on a machine with internet, in {target.parent}"
    if not download:
        raise EnvironmentFailure(f"the fine-tuning runs are not at {target}: {where}")
    try:
        frame = _tidy_all(target.parent / FOLDER)
    except EnvironmentFailure as error:
        raise EnvironmentFailure(
            f"the fine-tuning runs are not at {target}, and {error}; or {where}"
        ) from error
    _check(frame, f"the tables in {target.parent / FOLDER}")
    with store.atomic_path(target) as temporary:
        frame.to_parquet(temporary, index=False)
    return frame


def _look_up() -> Path | None:
    root = store.data_dir()
    return next(
        (path for path in (root / FILENAME, *sorted(root.glob(f"*/{FILENAME}"))) if path.is_file()), None
    )


def _read(path: Path) -> pd.DataFrame:
    import pandas as pd

    try:
        frame = pd.read_parquet(path)
    except (OSError, ValueError) as error:
        raise InputError(
            f"{path} cannot be read as parquet: delete it and it is made anew from the authors' tables"
        ) from error
    missing = [column for column in COLUMNS if column not in frame]
    if missing:
        raise InputError(f"{path} lacks the column(s) {', '.join(missing)}: delete it and it is made anew")
    return _typed(frame[list(COLUMNS)], str(path))


def _typed(frame: pd.DataFrame, where: str) -> pd.DataFrame:
    """Text as text and numbers as floats, whatever the file had; batch size and epochs have no missing value."""
    import pandas as pd

    frame = frame.reset_index(drop=True)
    columns = {}
    for column in frame.columns:
        if column in _TEXT:
            columns[column] = frame[column].astype(str)
            continue
        try:
            columns[column] = pd.to_numeric(frame[column]).astype(float)
        except (TypeError, ValueError) as error:
            raise InputError(f"{where}: the column {column} holds something that is no number") from error
    return pd.DataFrame(columns)


def _tidy_all(folder: Path) -> pd.DataFrame:
    import pandas as pd

    parts = []
    for row in registry():
        path = store.fetch(
            f"{ADDRESS}/{row['file']}", folder / Path(row["file"]).name, checksum=row["sha256"]
        )
        parts.append(_tidy(path, row["setting"], row["target"]))
    return pd.concat(parts, ignore_index=True)


def _tidy(path: Path, setting: str, target: str) -> pd.DataFrame:
    """One of the authors' tables in our columns and names."""
    import pandas as pd

    try:
        frame = pd.read_csv(path, low_memory=False)
    except ValueError as error:
        raise InputError(f"{path} is no table: delete it and try again") from error
    missing = [column for column in _UPSTREAM if column not in frame]
    if missing:
        raise InputError(f"{path} lacks the column(s) {', '.join(missing)}: it is not the authors' table")
    frame = frame[list(_UPSTREAM)].rename(columns=_UPSTREAM)
    frame["source"] = _named(frame["source"], _sources(setting), path, "source_flag")
    if not (_named(frame["target"], _sources("source_datasets"), path, "target_flag") == target).all():
        raise InputError(f"{path}: the column target_flag names another target than {target}")
    frame["target"], frame["setting"] = target, setting
    frame["status"] = frame["status"].astype(str).str.strip().str.upper()
    return _typed(frame[list(COLUMNS)], str(path))


def _sources(setting: str) -> list[str]:
    from companion.published import table

    return list(table(setting)["source"].unique())


def _named(values: pd.Series, known: list[str], path: Path, column: str) -> pd.Series:
    """Names of the published tables for the authors' own, which may be longer, shorter or written otherwise."""

    def plain(name: str) -> str:
        return "".join(letter for letter in name.lower() if letter.isalnum())

    def find(given: str) -> str:
        name = plain(given)
        for candidates in (
            [k for k in known if plain(k) == name],
            [k for k in known if plain(k).removesuffix("mnist") == name],
            # densenet121, vgg11, convnext_tiny, imagenet1k
            [k for k in known if name.startswith(plain(k))],
            [k for k in known if plain(k).removesuffix("mnist") == name.removesuffix("mnist")],
        ):
            if len(candidates) == 1:
                return candidates[0]
        raise InputError(f"{path}: {given!r} in the column {column} is none of {', '.join(known)}")

    return values.astype(str).map({given: find(given) for given in values.astype(str).unique()})


def _check(frame: pd.DataFrame, where: str) -> pd.DataFrame:
    """Return the runs if they are the released ones, as far as the packaged summaries tell.

    Raises
    ------
    InputError
        If the number of runs, the finished runs of a pair, or the AUC at its lowest validation loss differ.
    """
    from companion.published import table

    again = "delete it and it is made anew from the authors' tables"
    if len(frame) != ROWS:
        raise InputError(f"{where}: {len(frame)} runs, but {ROWS} were released; {again}")
    summaries = table("run_summaries").set_index(_KEYS)
    finished = frame[frame["status"] == "FINISHED"]
    if finished[["val_loss", "test_auc"]].isna().any(axis=None):
        raise InputError(f"{where}: a finished run has no validation loss or no test AUC; {again}")
    counts = finished.groupby(_KEYS).size().reindex(summaries.index, fill_value=0)
    known = counts.sum() == len(finished)
    best = finished.loc[finished.groupby(_KEYS)["val_loss"].idxmin()].set_index(_KEYS)["test_auc"]
    wrong = (counts != summaries["runs"]) | (
        (best.reindex(summaries.index) - summaries["auc_at_min_val_loss"]).abs() > 1e-9
    )
    if wrong.any() or not known:
        pair = ", ".join(map(str, wrong.idxmax())) if wrong.any() else "a pair that was not released"
        raise InputError(f"{where}: the runs of {pair} are not the released ones; {again}")
    return frame
