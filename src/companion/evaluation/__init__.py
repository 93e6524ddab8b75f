"""How well a score orders sources: weighted Kendall τ, baselines, intervals, the noise ceiling, hypothesis tests.

Works on tables with one row per (source, target). Only `benchmark` of a function meets models, and only then.
"""

from companion.evaluation.agreement import (
    FriedmanResult,
    friedman,
    nemenyi,
    published_pairs,
    regret,
    tau,
    weighted_tau,
)
from companion.evaluation.baselines import BASELINES, baselines, training_set_sizes
from companion.evaluation.benchmark import Benchmark, benchmark
from companion.evaluation.ceiling import (
    GROUND_TRUTHS,
    NoiseCeiling,
    ground_truths,
    noise_ceiling,
    partial_grids,
)
from companion.evaluation.hypotheses import statements
from companion.evaluation.intervals import Intervals, bootstrap

# fmt: off
__all__ = [
    "BASELINES", "GROUND_TRUTHS", "Benchmark", "FriedmanResult", "Intervals", "NoiseCeiling", "baselines", "benchmark",
    "bootstrap", "friedman", "ground_truths", "nemenyi", "noise_ceiling", "partial_grids", "published_pairs", "regret",
    "statements", "tau", "training_set_sizes", "weighted_tau",
]
# fmt: on
