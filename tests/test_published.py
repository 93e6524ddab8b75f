"""The released tables, and every number of the paper that they give."""

from __future__ import annotations

import functools
import hashlib
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from scipy.stats import friedmanchisquare

from companion import evaluation, published
from companion.errors import InputError

# Printed with three decimals, so half a unit of the third; the last bit of a double is for the sum.
ROUNDING = 0.0005 + 1e-9


@functools.cache
def _tau(setting: str) -> pd.DataFrame:
    return evaluation.weighted_tau(setting)


# --- the tables themselves ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "rows"), [("source_datasets", 15 * 12), ("architectures", 9 * 11), ("run_summaries", 256)]
)
def test_a_table_has_one_row_per_pair(name, rows):
    table = published.table(name)
    assert len(table) == rows
    assert not table.duplicated([key for key in ("setting", "source", "target") if key in table]).any()


# Agreement with the printed means would miss half of the moved cells.
@pytest.mark.parametrize(
    ("name", "sha256"),
    [
        ("source_datasets", "76c0452428a21a6d351a880ed905e554a158b4d6180b6c5a4d4364ea712cb09a"),
        ("architectures", "ea84b9938382affce2603ecd297e34f559401549a93fbf21464e72f1779998e9"),
        ("run_summaries", "9a5e00797dc04faac20096df176bb3c75c44fec8cfbd84813a91549a42cbee2a"),
    ],
)
def test_every_cell_is_as_released(name, sha256):
    text = Path(published.__file__).with_name(f"{name}.csv").read_text(encoding="utf-8")
    assert hashlib.sha256(text.encode()).hexdigest() == sha256


@pytest.mark.parametrize("name", published.TABLES)
def test_every_column_has_a_unit_and_a_meaning(name):
    table = published.table(name)
    described = table.attrs["columns"]
    assert set(table.columns) <= set(described)
    for column in table.columns:
        assert described[column]["unit"].strip() and described[column]["meaning"].strip()
    assert "2412.20172" in table.attrs["citation"]
    assert published.COMMIT[:7] in table.attrs["provenance"]


def test_table_returns_copies():
    table = published.table("architectures")
    table.loc[:, "auc"] = 0.0
    table.attrs["citation"] = ""
    fresh = published.table("architectures")
    assert fresh["auc"].min() > 0.5
    assert fresh.attrs["citation"] == published.CITATION


def test_an_unknown_table_is_refused_with_the_nearest():
    with pytest.raises(InputError, match=r"'source_dataset'.*Did you mean 'source_datasets'\?"):
        published.table("source_dataset")


def test_probabilities_and_areas_lie_between_0_and_1():
    for setting in published.SETTINGS:
        table = published.table(setting)
        for column in ("auc", "nleep", "sfda", "nca"):
            assert table[column].dropna().between(0, 1).all(), (setting, column)
        assert (table["gradient_ratio"].dropna() > 0).all()


def test_the_auc_is_that_of_the_run_with_the_lowest_validation_loss():
    runs = published.table("run_summaries")
    for setting in published.SETTINGS:
        both = published.table(setting).merge(runs[runs["setting"] == setting], on=["source", "target"])
        assert len(both) == (runs["setting"] == setting).sum()
        close = np.isclose(both["auc"], both["auc_at_min_val_loss"], rtol=0, atol=1e-9)
        assert close.all(), both.loc[~close, ["source", "target", "auc", "auc_at_min_val_loss"]].to_string()


# --- the paper's numbers, one test each --------------------------------------------------------------------


def test_the_expected_table_is_complete():
    rows = published.expected("weighted_tau")
    # 11 targets and their mean, 9 columns, 2 settings
    assert len(rows) == len({(row["setting"], row["target"], row["metric"]) for row in rows}) == 216


@pytest.mark.parametrize(
    "row",
    published.expected("weighted_tau"),
    ids=lambda row: f"{row['setting']}-{row['target']}-{row['metric']}",
)
def test_weighted_tau_against_the_value_of_the_paper(row):
    taus = _tau(row["setting"])[row["metric"]]
    found = taus.mean() if row["target"] == "mean" else taus[row["target"]]
    if row["value"] in ("", "nan"):
        assert np.isnan(found)
    else:
        assert found == pytest.approx(float(row["value"]), abs=ROUNDING)


def _released_architecture_ranks() -> pd.DataFrame:
    """The rank table of the release, rebuilt with its six wrong cells."""
    taus = _tau("architectures")[[*published.METRICS, "proposed"]]
    ranks = taus.rank(axis=1, ascending=False)
    ranks.loc["dermamnist", ["logme", "ncti"]] = ranks.loc["dermamnist", ["ncti", "logme"]].to_numpy()
    ranks.loc["tissuemnist"] = taus.loc["tissuemnist"].abs().rank(ascending=False)
    return ranks


def _friedman(setting: str, quantity: str) -> float:
    if quantity == "p_released":
        ranks = _released_architecture_ranks()
        return friedmanchisquare(*(ranks[column] for column in ranks)).pvalue
    return getattr(evaluation.friedman(_tau(setting)), quantity)


@pytest.mark.parametrize(
    "row", published.expected("friedman"), ids=lambda row: f"{row['setting']}-{row['quantity']}"
)
def test_friedman_against_the_value_of_the_paper(row):
    half_a_unit = 0.5 * 10.0 ** -int(row["decimals"])  # of the last digit printed
    found = _friedman(row["setting"], row["quantity"])
    assert found == pytest.approx(float(row["value"]), abs=half_a_unit + 1e-9)


# --- evaluation on tables of one's own ---------------------------------------------------------------------


def test_a_given_table_gives_the_published_values():
    table = published.table("source_datasets")
    own = evaluation.weighted_tau(table[table["target"] != "chestmnist"])
    pd.testing.assert_frame_equal(
        own[list(published.METRICS)], _tau("source_datasets")[list(published.METRICS)], atol=1e-12
    )


def test_weighted_tau_changes_nothing_in_the_table_given():
    table = published.table("source_datasets")
    before = table.copy()
    evaluation.weighted_tau(table)
    pd.testing.assert_frame_equal(table, before)


@pytest.mark.parametrize(
    ("table", "message"),
    [
        ("sources", r"no published setting 'sources'"),
        (pd.DataFrame({"source": ["a"], "auc": [0.5]}), r"lacks the column\(s\) target"),
        (
            pd.DataFrame({"source": ["a", "a"], "target": ["b", "b"], "auc": [0.5, 0.6], "mine": [1, 2]}),
            r"more than one row for source 'a', target 'b'",
        ),
        (pd.DataFrame({"source": ["a"], "target": ["b"], "auc": [0.5]}), r"no score column"),
    ],
)
def test_a_table_that_cannot_be_evaluated_is_refused(table, message):
    with pytest.raises(InputError, match=message):
        evaluation.weighted_tau(table)


@pytest.mark.parametrize(
    ("scores", "auc", "expected"),
    [
        ([1, 2, 3], [0.1, 0.2, 0.3], 1.0),
        ([3, 2, 1], [0.1, 0.2, 0.3], -1.0),
        ([1, 1, 1], [0.1, 0.2, 0.3], np.nan),
        ([1, np.nan, 3], [0.1, 0.9, 0.3], 1.0),
        ([1], [0.1], np.nan),
        ([], [], np.nan),
    ],
)
def test_tau_at_its_ends(scores, auc, expected):
    assert evaluation.tau(scores, auc) == pytest.approx(expected, nan_ok=True)


def test_friedman_needs_three_scores_and_two_targets():
    taus = pd.DataFrame({"a": [0.1, 0.2], "b": [0.3, 0.1]}, index=["x", "y"])
    with pytest.raises(InputError, match="needs 3 scores and 2 targets: got 2 and 2"):
        evaluation.friedman(taus)
