"""One function a figure. Each takes data, returns a matplotlib figure, and never shows it."""

from companion.figures.agreement import (
    ablation,
    benchmark,
    critical_difference,
    friedman_ranks,
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
from companion.figures.notes import by_width, chance, inversion, other_ground_truths, saturation, size_and_auc
from companion.figures.style import TITLES, mark_synthetic, short

__all__ = [
    "TITLES",
    "ablation",
    "augmentations",
    "benchmark",
    "by_width",
    "chance",
    "similarity",
    "critical_difference",
    "curves",
    "examples",
    "friedman_ranks",
    "gradient_norms",
    "mark_synthetic",
    "noise_ceiling",
    "other_ground_truths",
    "projections",
    "ranking",
    "partial_grids",
    "regrets",
    "saturation",
    "scores_against_auc",
    "short",
    "size_and_auc",
    "tau_table",
    "transfer",
    "inversion",
]
