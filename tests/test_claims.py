"""The claims file: every entry recomputed, and what does not hold named."""

from __future__ import annotations

import pytest
from pydantic import ValidationError

from companion import evaluation
from companion.errors import InputError, SurroundingsError
from companion.evaluation import verdicts as room
from companion.evaluation.recomputing import MEASURES
from companion.published.claims import Claim, Recomputed, claims

# Everything else must hold. A claim that begins or ceases to hold is news and belongs into the book.
WITH_CAVEAT = {
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
FAILS = {"outperforms-architectures", "figure-4-no-relation-published", "figure-4-no-relation-replication"}
UNDECIDED = {"replication-transfer-helps", "replication-features-alone", "replication-trivial-rules"}


def by_evidence(*levels: str):
    """Parametrise over the claims of these levels of evidence."""
    chosen = [claim for claim in claims() if claim.evidence in levels]
    return pytest.mark.parametrize("claim", chosen, ids=lambda claim: claim.id)


def assert_as_expected(claim: Claim) -> None:
    checked = room.check(claim)
    expected = next(
        (
            status
            for status, ids in ((room.CAVEAT, WITH_CAVEAT), (room.FAILS, FAILS), (room.UNDECIDED, UNDECIDED))
            if claim.id in ids
        ),
        room.HOLDS,
    )
    assert checked["status"] == expected, f"{claim.id}: found {checked['found']}, said {claim.value}"
    assert bool(checked["caveats"]) == (claim.id in WITH_CAVEAT)


@by_evidence("authors' table", "synthetic features", "our replication")
def test_claim_from_tables(claim):
    assert_as_expected(claim)


@pytest.mark.real
@by_evidence("authors' runs")
def test_claim_from_the_runs(claim, real_data):
    if not any(real_data.rglob("fine_tuning_runs.parquet")):
        pytest.skip("fine_tuning_runs.parquet is not in COMPANION_DATA")
    assert_as_expected(claim)


def test_identifiers_are_unique_and_no_measure_is_idle():
    names = [claim.id for claim in claims()]
    assert len(names) == len(set(names))
    used = {entry.how for claim in claims() for entry in (claim, *claim.caveats)} - {None}
    assert used == set(MEASURES)


def test_all_eighteen_means_and_all_198_cells_are_claims():
    means = [claim for claim in claims() if claim.id.startswith("mean-tau-")]
    assert len(means) == 18
    assert sum(claim.value for claim in claims() if claim.how == "agreeing_cells") == 198


def test_claims_say_why_and_what_was_not_attempted():
    table = evaluation.claims()
    assert set(table["status"]) <= set(room.STATUS)
    missing = table[table["status"] == room.NOT_ATTEMPTED]
    assert (missing["reason"] != "").all() and missing["found"].isna().all()
    assert table.loc[table["status"] != room.NOT_ATTEMPTED, "found"].notna().all()


def test_a_claim_turns_when_the_number_does(monkeypatch):
    claim = next(claim for claim in claims() if claim.id == "outperforms-source-datasets")
    monkeypatch.setitem(MEASURES, "lead", lambda **_: -0.1)
    assert room.check(claim)["status"] == room.FAILS
    verdict = next(claim for claim in claims() if claim.id == "figure-3-cka")
    for value, status in ((0.0, room.UNDECIDED), (-1.0, room.FAILS)):
        monkeypatch.setitem(MEASURES, "closer_to_fine_tuned", lambda value=value, **_: value)
        assert room.check(verdict)["status"] == status


def test_missing_runs_are_told_and_missing_tables_are_not_excused(monkeypatch):
    def gone(**_):
        raise SurroundingsError("nothing there")

    for name, told in (("note-11-redraws", True), ("note-10-size", False)):
        claim = next(claim for claim in claims() if claim.id == name)
        monkeypatch.setitem(MEASURES, claim.how, gone)
        if told:
            assert room.check(claim)["reason"] == "nothing there"
        else:
            with pytest.raises(SurroundingsError):
                room.check(claim)


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
    whole = claims()[0].model_dump(by_alias=True) | changed
    with pytest.raises(ValidationError, match=says):
        Claim.model_validate(whole)


def test_an_unknown_measure_is_named():
    with pytest.raises(InputError, match="no measure 'guess'"):
        room.recompute(Recomputed(how="guess", rule="above", value=0))
