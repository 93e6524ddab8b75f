"""A replication of our own: the grid of sources and targets, run here or on a cluster, and its stored tables.

`read` reads a protocol, `plan` says what is stored and what the rest costs, `execute` does the rest.
"""

from companion.replication.engine import Plan, execute, frames, plan, seconds_per_image
from companion.replication.protocol import Replication, read

__all__ = ["Plan", "Replication", "execute", "frames", "plan", "read", "seconds_per_image"]
