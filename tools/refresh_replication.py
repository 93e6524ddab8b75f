"""Carry on the replication that comes with the package: ``python tools/refresh_replication.py [--no-scores]``."""

from __future__ import annotations

import math
import sys
from importlib import resources
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from companion import store
from companion.errors import exit_code_of
from companion.models import best_device
from companion.replication.execution import execute
from companion.replication.planning import Plan, cost, frames, plan
from companion.replication.protocol import read

PACKAGED = Path(str(resources.files("companion.replication")))
NAMES = ("medical", "medical_seeds")
WORKERS = 2  # processes, of one thread each


def packaged(name: str, what: str) -> Path:
    """File of the package that holds the runs or scores of a protocol."""
    return PACKAGED / f"{name}_{what}.parquet"


def adopt(planned: Plan) -> int:
    """Put the rows of the packaged table into a store that lacks them; return how many.

    Only rows whose key is planned are taken: rows of another protocol, other data or another results version stay out.
    """
    path = packaged(planned.protocol.name, "runs")
    if not path.is_file():
        return 0
    wanted = {run.key for run in planned.missing}
    rows = {
        row["key"]: _plain(row) for row in pd.read_parquet(path).to_dict("records") if row["key"] in wanted
    }
    for key, row in rows.items():
        row.pop("key")
        planned.rows.write(key, row)
    planned.stored |= rows
    return len(rows)


def _plain(row: dict[str, Any]) -> dict[str, Any]:
    """A row as it was before it went through a table: lists for arrays, no cells that were empty."""
    plain = {name: value.tolist() if isinstance(value, np.ndarray) else value for name, value in row.items()}
    return {
        name: value
        for name, value in plain.items()
        if value is not None and not (isinstance(value, float) and math.isnan(value))
    }


def export(planned: Plan) -> None:
    """Write what is stored of a replication into the package."""
    for what, table in zip(("runs", "scores"), frames(planned), strict=True):
        if len(table):
            with store.atomic_path(packaged(planned.protocol.name, what)) as temporary:
                table.to_parquet(temporary, index=False)


def main(scores: bool = True) -> None:
    """Adopt what is packaged, do the rest, refresh the packaged tables, also when interrupted."""
    for name in NAMES:
        planned = plan(read(name), store.cache_dir() / "replications" / name)
        adopt(planned)
        for line in cost(planned, device=str(best_device()), workers=WORKERS):
            print(line, file=sys.stderr)
        try:
            execute(
                planned,
                workers=WORKERS,
                scores=scores and name == NAMES[0],
                report=lambda _, text: print(text, file=sys.stderr, flush=True),
            )
        finally:
            export(plan(planned.protocol, planned.rows.folder))


if __name__ == "__main__":
    sys.exit(exit_code_of(lambda: main(scores="--no-scores" not in sys.argv)))
