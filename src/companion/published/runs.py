"""All fine-tuning runs behind the ground truth: from the data directory, or downloaded and tidied once.

The authors released one table per target and setting. They are too large to be packaged; what is packaged is
their checksums and a summary of each pair, against which every table of runs is checked after reading.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from companion import store
from companion.errors import EnvironmentFailure, InputError
from companion.published import tables

if TYPE_CHECKING:
    import pandas as pd

ADDRESS = f"https://raw.githubusercontent.com/DovileDo/transferability-in-medical-imaging/{tables.COMMIT}"
FILENAME = "fine_tuning_runs.parquet"
ROWS = 28_205  # of all runs released, failed ones included; the summaries count the finished ones only
AGAIN = "delete it and it is made anew from the authors' tables"

# Our columns -> the authors'.
COLUMNS = {
    "setting": "setting",  # not theirs: which of their two folders the table lies in
    "source": "source_flag",
    "target": "target_flag",
    "lr": "lr",
    "momentum": "momentum",
    "weight_decay": "wd",
    "batch_size": "batch_size",
    "epochs": "epochs",
    "stopped_epoch": "stopped_at",
    **{name: name for name in ("val_loss", "val_auc", "val_acc", "test_loss", "test_auc", "test_acc")},
    "status": "Status",
}
_KEYS = ["setting", "source", "target"]


def registry() -> list[dict[str, str]]:
    """Return file, setting, target and sha256 of the authors' tables."""
    return tables.rows("runs_registry.csv")


def runs(*, download: bool = True) -> pd.DataFrame:
    """Every released fine-tuning run, one row each.

    Read from ``fine_tuning_runs.parquet`` in the data directory (also one folder down). Where it is not, and `download`
    allows it, the authors' tables are downloaded at the pinned commit, checked, tidied, and kept there as that file.

    Returns
    -------
    pandas.DataFrame
        Columns as in `COLUMNS`: losses and scores as fractions of 1, ``status`` ``FINISHED``, ``FAILED`` or ``RUNNING``
        (the last two have no results).

    Raises
    ------
    InputError
        If a file is damaged, or is another one than was released.
    EnvironmentFailure
        If there is no file and the download fails or is not allowed.
    """
    import pandas as pd

    root = store.data_dir()
    target = root / FILENAME
    if (found := store.look_up(FILENAME)) is not None:
        try:
            frame = pd.read_parquet(found)
        except (OSError, ValueError) as error:
            raise InputError(f"{found} cannot be read as parquet: {AGAIN}") from error
        return _check(_typed(frame, str(found)), str(found))
    where = f"put {FILENAME}, which companion.published.runs() writes on a machine with internet, in {root}"
    if not download:
        raise EnvironmentFailure(f"the fine-tuning runs are not at {target}: {where}")
    parts = []
    for row in registry():
        path = root / "fine_tuning_runs" / Path(row["file"]).name
        try:
            store.fetch(f"{ADDRESS}/{row['file']}", path, checksum=row["sha256"])
        except EnvironmentFailure as error:
            problem = f"the fine-tuning runs are not at {target}, and {error}"
            raise EnvironmentFailure(f"{problem}; or {where}") from error
        parts.append(_tidy(path, row["setting"], row["target"]))
    frame = _check(pd.concat(parts, ignore_index=True), f"the tables in {path.parent}")
    with store.atomic_path(target) as temporary:
        frame.to_parquet(temporary, index=False)
    return frame


def _typed(frame: pd.DataFrame, where: str) -> pd.DataFrame:
    """Our columns, text as text and numbers as floats, whatever the file had."""
    kinds = {column: str if column in (*_KEYS, "status") else float for column in COLUMNS}
    try:
        return frame[list(COLUMNS)].reset_index(drop=True).astype(kinds)
    except (KeyError, TypeError, ValueError) as error:
        raise InputError(f"{where} is no table of runs ({error}): {AGAIN}") from error


def _tidy(path: Path, setting: str, target: str) -> pd.DataFrame:
    """One of the authors' tables, whose bytes are known, in our columns and names."""
    import pandas as pd

    ours = {theirs: ours for ours, theirs in COLUMNS.items()}
    frame = pd.read_csv(path, low_memory=False).rename(columns=ours).assign(setting=setting, target=target)
    frame = _typed(frame, str(path))
    # The authors' names of sources are longer, shorter or written otherwise: densenet121, convnext_tiny, blood.
    plain = {_plain(name): name for name in tables.table(setting)["source"]}
    names = {}
    for theirs in frame["source"].unique():
        starts = [name for short, name in plain.items() if _plain(theirs).startswith(short)]
        names[theirs] = plain.get(_plain(theirs), starts[0] if len(starts) == 1 else theirs)
    return frame.assign(source=frame["source"].map(names), status=frame["status"].str.strip().str.upper())


def _plain(name: str) -> str:
    return "".join(letter for letter in name.lower() if letter.isalnum()).removesuffix("mnist")


def _check(frame: pd.DataFrame, where: str) -> pd.DataFrame:
    """Return the runs if their number, the finished ones of a pair and its AUC at the lowest loss are as released."""
    if len(frame) != ROWS:
        raise InputError(f"{where}: {len(frame)} runs, but {ROWS} were released; {AGAIN}")
    finished = frame[frame["status"] == "FINISHED"]
    best = finished.sort_values("val_loss").groupby(_KEYS)["test_auc"].agg(test_auc="first", n="count")
    both = tables.table("run_summaries").set_index(_KEYS).join(best, how="outer")
    same = (both["runs"] == both["n"]) & ((both["auc_at_min_val_loss"] - both["test_auc"]).abs() <= 1e-9)
    if not same.all():
        pair = ", ".join(map(str, same.idxmin()))
        raise InputError(f"{where}: the runs of {pair} are not the released ones; {AGAIN}")
    return frame
