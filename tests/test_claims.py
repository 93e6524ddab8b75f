"""The claims file: every entry recomputed, and what does not hold named."""

import numpy as np
import pandas as pd
import pytest
from pydantic import ValidationError

import claims
import pages
from claims import Claim, Recomputed
from claims.measures import MEASURES
from companion import evaluation
from companion.errors import EnvironmentFailure, InputError
from companion.evaluation import weighted_tau

pytestmark = pytest.mark.usefixtures("fewer_points")
# Everything else must hold. A claim that begins or ceases to hold is news and belongs into the book.
TOLD = {
    "figure-4-no-relation-published",
    "figure-3-overlap",
    "figure-3-cka",
    "figure-3-separation",
    "outperforms-source-datasets",
    "cross-domain-runs-the-other-way",
    "diversity-over-size-published",
    "benchmark-runs-architectures",
    "figure-6-product-architectures",
    "friedman-p-architectures-released",
}
FAILS = {
    "outperforms-architectures",
    "figure-4-no-relation-published",
    "figure-4-large-sources-are-not-favoured",
    "replication-proposed-over-features",
}
UNDECIDED = {
    "replication-proposed-over-size",
    "replication-logme-product",
    "figure-4-no-relation-replication",
    "diversity-over-size-replication",
    "figure-6-product-replication",
    "replication-transfer-helps-medical",
    "replication-size-of-a-pool",
    "replication-size-without-natural",
    "replication-scale-invariant-product",
    "replication-natural-over-best-medical",
}


def by_evidence(*levels: str):
    """Parametrise over the claims of these levels of evidence."""
    chosen = [claim for claim in claims.entries() if claim.evidence in levels]
    return pytest.mark.parametrize("claim", chosen, ids=lambda claim: claim.id)


EXPECTED = {claims.FAILS: FAILS, claims.UNDECIDED: UNDECIDED, claims.CAVEAT: TOLD}


def assert_as_expected(claim: Claim) -> None:
    checked = claims.check(claim)
    expected = next((status for status, ids in EXPECTED.items() if claim.id in ids), claims.HOLDS)
    assert checked["status"] == expected, f"{claim.id}: found {checked['found']}, said {claim.value}"
    assert bool(checked["caveats"]) == (claim.id in TOLD)


@by_evidence("authors' table", "synthetic features", "synthetic images", "our replication")
def test_claim_from_tables(claim):
    assert_as_expected(claim)


@pytest.mark.real
@by_evidence("authors' runs")
def test_claim_from_the_runs(claim, real_data):
    if not any(real_data.rglob("fine_tuning_runs.parquet")):
        pytest.skip("fine_tuning_runs.parquet is not in COMPANION_DATA")
    assert_as_expected(claim)


def test_identifiers_are_unique_no_measure_is_idle_and_all_means_and_cells_are_claims():
    names = [claim.id for claim in claims.entries()]
    assert len(names) == len(set(names))
    used = {entry.how for claim in claims.entries() for entry in (claim, *claim.caveats)} - {None}
    assert used == set(MEASURES)
    assert len([name for name in names if name.startswith("mean-tau-")]) == 18
    assert sum(claim.value for claim in claims.entries() if claim.how == "agreeing_cells") == 198


def test_counts_never_mix_the_paper_s_claims_with_arithmetic_and_notes():
    groups = claims.table().groupby("group")["where"].unique()
    assert set(groups.index) == set(pages.GROUPS) == {"paper", "tables", "notes"}
    assert not [w for w in groups["paper"] if w.startswith(("table", "released", "reproduction"))]
    assert all(w.startswith(("reproduction note", "replication")) for w in groups["notes"])
    # In the abstract stands what its text says: a trap, and two comparisons.
    abstract = {claim.id for claim in claims.entries() if claim.where == "abstract"}
    assert abstract == {"itself", "outperforms-source-datasets", "outperforms-architectures"}


def shuffled(column: str, seed: int) -> pd.DataFrame:
    """The published pairs with one column shuffled within each target."""
    table, rng = evaluation.published_pairs("source_datasets"), np.random.default_rng(seed)
    return table.assign(**{column: table.groupby("target")[column].transform(rng.permutation)})


@pytest.mark.parametrize(
    ("name", "replaced", "worlds", "passes"),
    [
        # a score that knows nothing; sources whose size means nothing; a mixture with a seed, and one that is all noise
        ("several-targets", "_taus", [weighted_tau(shuffled("proposed", k)) for k in range(12)], False),
        ("figure-4-large-sources-are-not-favoured", "_pairs", [shuffled("auc", k) for k in range(12)], True),
        ("note-8-seed", "synthetic.nleep_over_seeds", [(0.5, 0.5), (0.4, 0.6)], False),
    ],
)
def test_a_claim_can_hold_and_fail(monkeypatch, name, replaced, worlds, passes):
    claim = next(claim for claim in claims.entries() if claim.id == name)
    assert (claims.check(claim)["status"] == claims.HOLDS) is not passes
    for world in worlds:
        monkeypatch.setattr(f"claims.measures.{replaced}", lambda *_, world=world: world)
        assert (claims.check(claim)["status"] == claims.HOLDS) is passes


def test_claims_say_why_and_what_was_not_attempted():
    table = claims.table()
    assert set(table["status"]) <= set(claims.STATUS)
    missing = table[table["status"] == claims.NOT_ATTEMPTED]
    assert (missing["reason"] != "").all() and missing["found"].isna().all()
    assert table.loc[table["status"] != claims.NOT_ATTEMPTED, "found"].notna().all()


def test_missing_runs_are_told_and_missing_tables_are_not_excused(monkeypatch):
    def gone(**_):
        raise EnvironmentFailure("nothing there")

    for name, told in (("note-11-redraws", True), ("note-10-size", False)):
        claim = next(claim for claim in claims.entries() if claim.id == name)
        monkeypatch.setitem(MEASURES, claim.how, gone)
        if told:
            assert claims.check(claim)["reason"] == "nothing there"
        else:
            with pytest.raises(EnvironmentFailure):
                claims.check(claim)


@pytest.mark.parametrize(
    ("rule", "value", "tolerance", "found", "satisfied"),
    [
        ("within", 0.523, 0.0005, 0.5225, True),
        ("within", 0.523, 0.0005, 0.5224, False),
        ("within", 11, 0, 11, True),
        ("within", 3e-10, 5e-11, 3.07e-10, True),
        ("within", 3e-10, 5e-11, 3.7e-10, False),
        ("above", 0, 0, 0, False),
        ("at least", 3, 0, 3, True),
        ("below", 0, 0, -0.1, True),
        ("verdict", None, 0, -1, False),
    ],
)
def test_rules(rule, value, tolerance, found, satisfied):
    assert Recomputed(rule=rule, value=value, tolerance=tolerance).satisfied(found) is satisfied


@pytest.mark.parametrize(
    ("changed", "says"),
    [
        ({"how": None}, "a measure and a rule"),
        ({"value": None}, "a value is wanted"),
        ({"evidence": "hearsay"}, "evidence"),
        ({"tolerance": -1}, "tolerance"),
        ({"extra": 1}, "extra"),
    ],
)
def test_a_malformed_claim_is_refused(changed, says):
    whole = claims.entries()[0].model_dump(by_alias=True) | changed
    with pytest.raises(ValidationError, match=says):
        Claim.model_validate(whole)


def test_an_unknown_measure_is_refused():
    with pytest.raises(InputError, match="no measure 'guess'"):
        claims.recompute(Recomputed(how="guess", rule="above", value=0))
