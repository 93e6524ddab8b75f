"""Do the methods agree on an order? Each method's first choice, and how alike their orders are."""

from __future__ import annotations

import itertools

import numpy as np
import pandas as pd

from companion.scores import COMBINED, INVERTED_ACROSS_DOMAINS, REGISTRY


def agreement(table: pd.DataFrame) -> pd.DataFrame:
    """Each method's first choice in each pool, and Kendall's τ of its order with the others'.

    Parameters
    ----------
    table
        As `companion.rank` returns it.

    Returns
    -------
    pandas.DataFrame
        One row per pool and method: ``pool``, ``method``, ``first`` (the source it puts first), ``sources`` (how many
        it is defined for) and ``tau`` (mean over the other methods, -1 to 1; NaN for fewer than three sources). Methods
        that are not defined for two sources, or the same for all, are left out.
    """
    from scipy.stats import kendalltau

    rows = []
    for pool in table.attrs["pools"]:
        if pool["kind"] == "left_out":
            continue
        block = table[table["pool"] == pool["pool"]].set_index("source")
        values = _oriented(block, kind=pool["kind"])
        if pool["order"] == "undetermined":
            values.pop(COMBINED, None)
        taus: dict[str, list[float]] = {name: [] for name in values}
        for one, other in itertools.combinations(values, 2):
            both = np.isfinite(values[one]) & np.isfinite(values[other])
            if both.sum() > 2:
                tau = float(kendalltau(values[one][both], values[other][both]).statistic)
                taus[one].append(tau)
                taus[other].append(tau)
        rows += [
            {
                "pool": pool["pool"],
                "method": name,
                "first": column.idxmax(),
                "sources": int(column.notna().sum()),
                "tau": float(np.nanmean(taus[name])) if np.isfinite(taus[name]).any() else np.nan,
            }
            for name, column in values.items()
        ]
    return pd.DataFrame(rows, columns=["pool", "method", "first", "sources", "tau"])


def _oriented(block: pd.DataFrame, *, kind: str) -> dict[str, pd.Series]:
    """Methods as columns of which more is better; among architectures the paper's are inverted, as in `evaluation`."""
    found = {}
    for name in (COMBINED, *REGISTRY):
        if name not in block:
            continue
        column = block[name].astype(float)
        if column.nunique() > 1:
            term = name in INVERTED_ACROSS_DOMAINS or name == "gradient_ratio_scale_invariant"
            inverted = kind == "architectures" and term
            found[name] = -column if inverted else column
    return found
