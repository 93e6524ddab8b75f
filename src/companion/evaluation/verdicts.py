"""What holds: every claim of the claims file recomputed, and its status."""

from __future__ import annotations

import numpy as np
import pandas as pd

from companion.errors import EnvironmentFailure, InputError
from companion.evaluation.recomputing import MEASURES
from companion.published.claims import Claim, Recomputed
from companion.published.claims import claims as written

HOLDS, CAVEAT, FAILS = "holds", "holds with a caveat", "does not hold"
UNDECIDED, NOT_ATTEMPTED = "undecided", "not attempted"
STATUS = (HOLDS, CAVEAT, FAILS, UNDECIDED, NOT_ATTEMPTED)


def recompute(entry: Recomputed) -> float:
    """Return the number that an entry's measure gives.

    Raises
    ------
    InputError
        If there is no such measure.
    EnvironmentFailure
        If what it needs is not at hand.
    """
    if entry.how not in MEASURES:
        raise InputError(f"claims file: no measure {entry.how!r}: there are {', '.join(MEASURES)}")
    return float(MEASURES[entry.how](**{key: _hashable(value) for key, value in entry.arguments.items()}))


def _hashable(value: object) -> object:
    """Lists of a YAML file as tuples, since measures keep what they computed."""
    return tuple(value) if isinstance(value, list) else value


def check(claim: Claim) -> dict[str, object]:
    """Recompute one claim.

    Returns
    -------
    dict
        ``status`` (one of `STATUS`), ``found`` (NaN where not attempted), ``caveats`` (sentences), ``reason`` (why it
        was not attempted, else empty).
    """
    if claim.evidence == NOT_ATTEMPTED:
        return {"status": NOT_ATTEMPTED, "found": np.nan, "caveats": [], "reason": claim.why}
    try:
        found = recompute(claim)
        told = [(caveat, recompute(caveat)) for caveat in claim.caveats]
    except (EnvironmentFailure, InputError) as error:
        if claim.evidence not in ("authors' runs", "our replication"):
            raise
        return {"status": NOT_ATTEMPTED, "found": np.nan, "caveats": [], "reason": str(error)}
    caveats = [caveat.text.format(found=value) for caveat, value in told if caveat.satisfied(value)]
    if claim.rule == "verdict" and found == 0:
        status = UNDECIDED
    elif not claim.satisfied(found):
        status = FAILS
    else:
        status = CAVEAT if caveats else HOLDS
    return {"status": status, "found": found, "caveats": caveats, "reason": ""}


def claims() -> pd.DataFrame:
    """Every entry of the claims file with what recomputing gives, and whether it holds.

    Returns
    -------
    pandas.DataFrame
        One row a claim, by id: group (paper, tables, notes), where, claim, value, rule, tolerance, why, evidence, page,
        and what `check` returns. Claims whose data are not available (the authors' runs are looked up, not downloaded)
        are not attempted.
    """
    columns = ["group", "where", "claim", "value", "rule", "tolerance", "why", "evidence", "page"]
    rows = {
        claim.id: {**{name: getattr(claim, name) for name in columns}, **check(claim)} for claim in written()
    }
    return pd.DataFrame.from_dict(rows, orient="index").rename_axis("id")
