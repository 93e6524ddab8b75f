"""The paper's released figures as tidy tables, and the fine-tuning runs behind them."""

from companion.published.runs import runs
from companion.published.tables import (
    CITATION,
    COMMIT,
    LARGE,
    METRICS,
    PROVENANCE,
    SETTINGS,
    TABLES,
    expected,
    table,
    training_set_sizes,
)

# fmt: off
__all__ = [
    "CITATION", "COMMIT", "LARGE", "METRICS", "PROVENANCE", "SETTINGS", "TABLES", "expected", "runs", "table",
    "training_set_sizes",
]
# fmt: on
