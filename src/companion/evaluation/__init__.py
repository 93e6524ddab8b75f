"""How well a score orders sources: weighted Kendall τ, what it beats, how sure that is, how good it can get.

Works on tables with one row per (source, target). Only `benchmark` of a function meets models, and only then.
"""

from companion.evaluation.agreement import (
    INVERTED_ACROSS_DOMAINS,
    FriedmanResult,
    friedman,
    kendall_tau,
    oriented,
    regret,
    score_columns,
    tau,
    weighted_tau,
)
from companion.evaluation.baselines import BASELINES, baselines, training_set_sizes
from companion.evaluation.benchmarking import Benchmark, benchmark
from companion.evaluation.ceiling import NoiseCeiling, Redraws, noise_ceiling, redraws, truths
from companion.evaluation.intervals import Intervals, bootstrap
from companion.evaluation.judging import judge_statements

__all__ = [
    "BASELINES",
    "INVERTED_ACROSS_DOMAINS",
    "Benchmark",
    "FriedmanResult",
    "Intervals",
    "NoiseCeiling",
    "Redraws",
    "baselines",
    "benchmark",
    "bootstrap",
    "friedman",
    "kendall_tau",
    "noise_ceiling",
    "oriented",
    "redraws",
    "regret",
    "score_columns",
    "judge_statements",
    "tau",
    "training_set_sizes",
    "truths",
    "weighted_tau",
]
