"""One function a figure. Each takes data, returns a matplotlib figure, and never shows it."""

from companion.figures.agreement import (
    benchmark,
    critical_difference,
    inversion,
    scores_against_auc,
    tau_table,
    transfer,
)
from companion.figures.live import curves, examples, ranking
from companion.figures.style import TITLES, mark_synthetic, png, short

# fmt: off
__all__ = [
    "TITLES", "benchmark", "critical_difference", "curves", "examples", "inversion", "mark_synthetic", "png", "ranking",
    "scores_against_auc", "short", "tau_table", "transfer",
]
# fmt: on
