"""One function a figure. Each takes data, returns a matplotlib figure, and never shows it."""

from companion.figures.agreement import (
    ablation,
    benchmark,
    critical_difference,
    friedman_ranks,
    inversion,
    noise_ceiling,
    partial_grids,
    regrets,
    scores_against_auc,
    tau_table,
    transfer,
)
from companion.figures.live import (
    augmentations,
    curves,
    examples,
    gradient_norms,
    projections,
    ranking,
    similarity,
)
from companion.figures.style import TITLES, mark_synthetic, short

__all__ = [
    "TITLES",
    "ablation",
    "augmentations",
    "benchmark",
    "similarity",
    "critical_difference",
    "curves",
    "examples",
    "friedman_ranks",
    "gradient_norms",
    "mark_synthetic",
    "noise_ceiling",
    "projections",
    "ranking",
    "partial_grids",
    "regrets",
    "scores_against_auc",
    "short",
    "tau_table",
    "transfer",
    "inversion",
]
