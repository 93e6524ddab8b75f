"""A replication of our own: the grid of sources and targets, run here or on a cluster, and its stored tables.

`read` reads a protocol, `plan` says what is stored and what the rest costs, `execute` does the rest. `runs`, `scores`,
`table` and `pairs` give the replication that comes with the package.
"""

from companion.replication.execution import execute
from companion.replication.planning import Plan, cost, frames, plan, seconds_per_image, write
from companion.replication.protocol import Replication, label, read
from companion.replication.tables import (
    RULES,
    Pair,
    pairs,
    projections,
    runs,
    scores,
    select,
    stored_protocol,
    table,
)

__all__ = [
    "RULES",
    "Pair",
    "Plan",
    "Replication",
    "cost",
    "execute",
    "frames",
    "label",
    "pairs",
    "plan",
    "projections",
    "read",
    "runs",
    "scores",
    "seconds_per_image",
    "select",
    "stored_protocol",
    "table",
    "write",
]
