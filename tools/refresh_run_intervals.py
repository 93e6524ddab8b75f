"""Refresh the intervals of the published ground truth: ``python tools/refresh_run_intervals.py``.

The AUC of a pair is that of the run with the lowest validation loss. Were as many runs drawn again, with replacement
from those that there are, another one would often have it; `limits` gives the range in which its AUC then lies.
"""

from __future__ import annotations

import sys
from importlib import resources
from pathlib import Path

import numpy as np
import pandas as pd

from companion import published, store
from companion.errors import exit_code_of

KEYS = ["setting", "source", "target"]


def limits(runs: pd.DataFrame) -> tuple[float, float]:
    """2.5 % and 97.5 % quantile of the chosen run's test AUC over all draws of the finished runs of one pair."""
    auc = runs.sort_values("val_loss")["test_auc"].to_numpy()
    # With this chance no run before a place, in order of the loss, is in a draw.
    later = (1 - np.arange(len(auc) + 1) / len(auc)) ** len(auc)
    order = auc.argsort()
    reached = -np.diff(later)[order].cumsum()
    return tuple(auc[order][np.searchsorted(reached, [0.025, 0.975])].tolist())


def intervals() -> pd.DataFrame:
    """One row per pair that has runs: `KEYS`, ``auc_low``, ``auc_high``."""
    finished = published.runs().query("status == 'FINISHED'").groupby(KEYS)
    rows = [(*pair, *limits(runs)) for pair, runs in finished]
    return pd.DataFrame(rows, columns=[*KEYS, "auc_low", "auc_high"])


def main() -> None:
    """Compute the intervals and put them into the package."""
    place = Path(str(resources.files("companion.published"))) / "run_intervals.csv"
    with store.atomic_path(place) as temporary:
        intervals().to_csv(temporary, index=False, float_format="%.6f")


if __name__ == "__main__":
    sys.exit(exit_code_of(main))
