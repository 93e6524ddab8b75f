"""What holds: every claim of `claims.yaml` recomputed, and whether it holds.

The file says what the paper claims, what its tables hold and what this project notes; how each number is recomputed,
and within what tolerance. `measures` computes the numbers; this module compares and reports.
"""

from __future__ import annotations

import functools
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
import pandas as pd
import yaml
from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, model_validator

from claims.measures import MEASURES
from companion.errors import EnvironmentFailure, InputError

Evidence = Literal[
    "authors' table",
    "authors' runs",
    "synthetic features",
    "synthetic images",
    "our replication",
    "not attempted",
]
Rule = Literal["within", "above", "at least", "below", "verdict"]
Group = Literal["paper", "tables", "notes"]
Text = Annotated[str, Field(min_length=3)]


class Recomputed(BaseModel):
    """A number that a measure gives, and the rule it is held against."""

    model_config = ConfigDict(extra="forbid", frozen=True, populate_by_name=True)

    how: str | None = None
    arguments: dict[str, Any] = Field(default_factory=dict, alias="with")
    rule: Rule | None = None
    value: float | None = None
    tolerance: Annotated[float, Field(ge=0)] = 0.0

    def satisfied(self, found: float) -> bool:
        """Whether a number follows the rule. The last bits of a sum are not held against it."""
        if self.rule == "verdict":
            return found > 0
        assert self.value is not None
        return {
            "within": abs(found - self.value) <= self.tolerance * (1 + 1e-6) + 1e-14,
            "above": found > self.value,
            "at least": found >= self.value,
            "below": found < self.value,
        }[str(self.rule)]


class Caveat(Recomputed):
    """What must be reported beside a claim, where its own rule is satisfied; ``{found}`` in the text is the number."""

    text: Text


class Claim(Recomputed):
    """One claim."""

    group: Group
    id: Annotated[str, Field(pattern=r"^[a-z0-9-]+$")]
    where: Text
    claim: Text
    why: Text
    evidence: Evidence
    page: Text
    caveats: tuple[Caveat, ...] = ()

    @model_validator(mode="after")
    def _whole(self) -> Claim:
        attempted = self.evidence != "not attempted"
        if attempted != (self.how is not None and self.rule is not None):
            raise ValueError(f"{self.id}: a claim has a measure and a rule, or is not attempted")
        if attempted and (self.value is None) != (self.rule == "verdict"):
            raise ValueError(f"{self.id}: a value is wanted, but for the rule verdict")
        return self


@functools.cache
def entries() -> tuple[Claim, ...]:
    """Every claim, in the order of the file; its group is the heading it stands under."""
    text = Path(__file__).with_name("claims.yaml").read_text(encoding="utf-8")
    found = [{"group": group, **entry} for group, own in yaml.safe_load(text).items() for entry in own]
    return TypeAdapter(tuple[Claim, ...]).validate_python(found)


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
        If what it needs is not available.
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
        caveats_found = [(caveat, recompute(caveat)) for caveat in claim.caveats]
    except (EnvironmentFailure, InputError) as error:
        if claim.evidence not in ("authors' runs", "our replication"):
            raise
        return {"status": NOT_ATTEMPTED, "found": np.nan, "caveats": [], "reason": str(error)}
    caveats = [caveat.text.format(found=value) for caveat, value in caveats_found if caveat.satisfied(value)]
    if claim.rule == "verdict" and found == 0:
        status = UNDECIDED
    elif not claim.satisfied(found):
        status = FAILS
    else:
        status = CAVEAT if caveats else HOLDS
    return {"status": status, "found": found, "caveats": caveats, "reason": ""}


def table() -> pd.DataFrame:
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
        claim.id: {**{name: getattr(claim, name) for name in columns}, **check(claim)} for claim in entries()
    }
    return pd.DataFrame.from_dict(rows, orient="index").rename_axis("id")
