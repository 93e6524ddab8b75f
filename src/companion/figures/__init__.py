"""One function a figure. Each takes data, returns a matplotlib figure, and never shows it."""

from companion.figures.agreement import (
    ablation,
    benchmark,
    critical_difference,
    friedman_ranks,
    noise_ceiling,
    redraws,
    regrets,
    scores_against_auc,
    tau_table,
    transfer,
)
from companion.figures.live import (
    augmentations,
    closeness,
    curves,
    examples,
    gradient_norms,
    projections,
    ranking,
)
from companion.figures.notes import by_width, chance, other_truths, saturation, size_and_auc, turned_round
from companion.figures.style import TITLES, mark_synthetic, short

__all__ = [
    "TITLES",
    "ablation",
    "augmentations",
    "benchmark",
    "by_width",
    "chance",
    "closeness",
    "critical_difference",
    "curves",
    "examples",
    "friedman_ranks",
    "gradient_norms",
    "mark_synthetic",
    "noise_ceiling",
    "other_truths",
    "projections",
    "ranking",
    "redraws",
    "regrets",
    "saturation",
    "scores_against_auc",
    "short",
    "size_and_auc",
    "tau_table",
    "transfer",
    "turned_round",
]
