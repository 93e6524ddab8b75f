"""The proposed score's combination of its two terms over one candidate set of sources."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    import pandas as pd

PAPER_SCORE = "proposed"
TERMS = ("nca", "gradient_ratio")
# Among architectures the paper inverts these (1 - score), after the fact: see the reproduction notes.
INVERTED_ACROSS_DOMAINS = (*TERMS, "leep", "nleep", "parc", "ncti")


def min_max(values: np.ndarray, *, invert: bool = False) -> np.ndarray:
    """Rescale to 0..1 over the finite values; `invert` gives ``(max - x) / (max - min)``.

    NaN stays NaN. Where all finite values are equal there is no scale and the result is all NaN.
    """
    values = np.asarray(values, dtype=float)
    finite = values[np.isfinite(values)]
    if finite.size == 0 or finite.min() == finite.max():
        return np.full(values.shape, np.nan)
    scaled = (values - finite.min()) / (finite.max() - finite.min())
    return 1 - scaled if invert else scaled


def combine(nca: np.ndarray, gradient_ratio: np.ndarray, *, invert: bool = False) -> np.ndarray:
    """Combine the proposed score's two terms, (sources,), over one candidate set for one target.

    ``minmax(nca) * minmax(gradient_ratio)``; with `invert` both terms are inverted first, as in the paper's
    cross-domain setting. NaN where a term is missing; adding or removing a source changes all values.
    """
    return min_max(nca, invert=invert) * min_max(gradient_ratio, invert=invert)


def with_combined(table: pd.DataFrame, *, invert: bool = False) -> pd.DataFrame:
    """Add the proposed score, which is relative to the sources of each target."""
    import pandas as pd

    combined = [
        pd.Series(combine(block["nca"], block["gradient_ratio"], invert=invert), block.index)
        for _, block in table.groupby("target")
    ]
    return table.assign(**{PAPER_SCORE: pd.concat(combined)})


def combine_ncti(terms: np.ndarray, *, variant: str = "corrected") -> np.ndarray:
    """NCTI, (sources,), of one candidate set from the `ncti_terms` of its sources, (sources, 3).

    ``"corrected"`` subtracts the third term, as its authors define it; ``"published"`` adds it, as the paper's release
    does. NaN where a source has no terms, or where a term is constant over the candidate set.
    """
    first, second, third = (min_max(column) for column in np.asarray(terms, dtype=float).T)
    return first + second + (third if variant == "published" else -third)
