"""Carry on the replication that comes with the package: ``python -m companion.replication.refresh``."""

from __future__ import annotations

import math
import shutil
import sys
from pathlib import Path
from typing import Any

import numpy as np

from companion import store
from companion.errors import SurroundingsError, told
from companion.models import best_device
from companion.replication import tables
from companion.replication.execution import execute
from companion.replication.planning import Plan, cost, frames, plan, write
from companion.replication.protocol import read


def adopt(planned: Plan) -> int:
    """Put the rows of the packaged table into a store that lacks them; return how many.

    Only rows whose key is planned are taken: rows of another protocol, other data or another results version stay out.
    """
    try:
        packaged = tables.runs()
    except SurroundingsError:
        return 0
    wanted = {run.key for run in planned.missing}
    rows = {row["key"]: _plain(row) for row in packaged.to_dict("records") if row["key"] in wanted}
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


def main() -> None:
    """Adopt what is packaged, do the rest, refresh the packaged tables."""
    planned = plan(read("standard"), store.cache_dir() / "replications" / "standard")
    adopt(planned)
    for line in cost(planned, device=str(best_device())):
        print(line, file=sys.stderr)
    execute(planned, report=lambda _, text: print(text, file=sys.stderr, flush=True))
    for path in write(planned, frames(planned)):
        shutil.copyfile(path, Path(__file__).parent / path.name)


if __name__ == "__main__":
    sys.exit(told(main))
