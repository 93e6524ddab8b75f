"""What the second replication can decide: coverage and power of its intervals, simulated before its plan was fixed.

Run with ``python tools/replication_power.py``; about a minute. The table is quoted in the plan's page.

The model: the test AUC of a source on a target is a source effect plus an effect of the pair; a fold adds noise, and so
does the run itself (the same run elsewhere differs by .05 to .13 AUC on 156 test images; on the test sets here, three
times as large on average, we take a standard deviation of .03). A score is the true AUC plus noise of its own. Sources
are fixed, targets are drawn anew in every repeat, which is what the intervals speak of.
"""

from __future__ import annotations

import numpy as np
import pandas as pd

from companion.evaluation.hypotheses import interval
from companion.evaluation.intervals import tau_draws

SOURCES, FOLDS, REPEATS = 12, 3, 2000
SOURCE_SD, PAIR_SD, FOLD_SD, RUN_SD = 0.045, 0.045, 0.026, 0.03  # sources differ by .064 in all


def measured(rng: np.random.Generator, targets: int) -> tuple[np.ndarray, np.ndarray]:
    """True AUC and its mean over the folds: (repeats, targets, sources) each."""
    shape = (REPEATS, targets, SOURCES)
    source = np.random.default_rng(0).normal(0, SOURCE_SD, SOURCES)
    true = source + rng.normal(0, PAIR_SD, shape)
    noise = rng.normal(0, np.hypot(FOLD_SD, RUN_SD), (*shape, FOLDS)).mean(-1)
    return true, true + noise


def tau_difference(rng: np.random.Generator, targets: int, noise: tuple[float, float]) -> np.ndarray:
    """Difference of two scores in τ_w for every target: (repeats, targets)."""
    true, auc = measured(rng, targets)
    first, second = (tau_draws(true + rng.normal(0, sd, true.shape), auc) for sd in noise)
    return first - second


def auc_difference(rng: np.random.Generator, targets: int, effect: float) -> np.ndarray:
    """AUC of one source less that of another, for every target: (repeats, targets)."""
    _, auc = measured(rng, targets)
    return (
        auc[..., 0]
        - auc[..., 1]
        - np.subtract(*np.random.default_rng(0).normal(0, SOURCE_SD, SOURCES)[:2])
        + effect
    )


def main() -> None:
    """Print coverage and power for 7, 11 and 20 targets."""
    rng = np.random.default_rng(24)
    rows = []
    cases = {
        "AUC of one source less another's, .00": (auc_difference, 0.0),
        "AUC of one source less another's, .03": (auc_difference, 0.03),
        "AUC of one source less another's, .06": (auc_difference, 0.06),
        "τ_w of two equally good scores": (tau_difference, (0.07, 0.07)),
        "τ_w of a score that is better": (tau_difference, (0.05, 0.09)),
        "τ_w of a score that is much better": (tau_difference, (0.03, 0.12)),
    }
    for name, (draw, size) in cases.items():
        many = draw(rng, 200, size)  # 2,000 × 200 targets: the value that the intervals should hold
        for targets in (7, 11, 20):
            low, high = interval(draw(rng, targets, size))
            held = (low <= many.mean()) & (many.mean() <= high)
            rows.append(
                {
                    "quantity": name,
                    "targets": targets,
                    "true value": round(many.mean(), 3),
                    "coverage": round(held.mean(), 3),
                    "above 0": round((low > 0).mean(), 3),
                    "half width": round(float(np.median(high - low)) / 2, 3),
                }
            )
    print(pd.DataFrame(rows).to_markdown(index=False))


if __name__ == "__main__":
    main()
