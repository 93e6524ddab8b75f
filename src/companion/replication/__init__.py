"""A replication of our own: the grid of sources and targets, run here or on a cluster, and its stored tables.

`read` reads a protocol, `plan` says what is stored and what the rest costs, `execute` does the rest. `table`, `runs`,
`scores` and `pairs` give the replication that comes with the package.
"""

from companion.replication.execution import execute
from companion.replication.planning import Plan, cost, frames, plan, write
from companion.replication.protocol import Replication, label, read
from companion.replication.tables import (
    RULES,
    Pair,
    ground_truth,
    pair_scores,
    pairs,
    projection_maps,
    projections,
    runs,
    scores,
    seed_runs,
    select,
    stored_protocol,
    table,
)

# fmt: off
__all__ = [
    "RULES", "Pair", "Plan", "Replication", "cost", "execute", "frames", "ground_truth", "label", "pair_scores",
    "pairs", "plan", "projection_maps", "projections", "read", "runs", "scores", "seed_runs", "select",
    "stored_protocol", "table", "write",
]
# fmt: on
