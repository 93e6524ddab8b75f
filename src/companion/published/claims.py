"""The claims file: what the paper says, its tables hold and we note; how each is recomputed, within what tolerance.

Whether a claim holds is computed by `companion.evaluation.verdicts`; this module only reads what was written down.
"""

from __future__ import annotations

import functools
from importlib import resources
from typing import Annotated, Any, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, model_validator

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
    """What must be told beside a claim, where its own rule is satisfied; ``{found}`` in the text is the number."""

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
def claims() -> tuple[Claim, ...]:
    """Every claim, in the order of the file; its group is the heading it stands under."""
    text = resources.files(__package__).joinpath("claims.yaml").read_text(encoding="utf-8")
    entries = [{"group": group, **entry} for group, own in yaml.safe_load(text).items() for entry in own]
    return TypeAdapter(tuple[Claim, ...]).validate_python(entries)
