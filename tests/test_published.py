"""The released tables, and every number of the paper that they give."""

from __future__ import annotations

import functools
import re
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from scipy.stats import friedmanchisquare

from companion import evaluation, published
from companion.datasets import medmnist
from companion.errors import EnvironmentFailure, InputError
from companion.scores import combine

# Printed with three decimals, so half a unit of the third; the last bit of a double is for the sum.
ROUNDING = 0.0005 + 1e-9
LARGE_SOURCES = ["imagenet", "radimagenet", "medmnist"]
SCORES = [*published.METRICS, "nca", "gradient_ratio"]


@functools.cache
def _tau(setting: str, inverted: bool | None = None) -> pd.DataFrame:
    return evaluation.weighted_tau(setting, inverted=inverted)


def _scored() -> pd.DataFrame:
    """Source datasets on the eleven targets that have scores; source == target included."""
    table = published.table("source_datasets")
    return table[table["target"] != "chestmnist"].reset_index(drop=True)


def _with_proposed() -> pd.DataFrame:
    """The same without source == target, and with the combined score as released."""
    table = _scored()
    for _, block in table.groupby("target"):
        table.loc[block.index, "proposed"] = combine(block["nca"], block["gradient_ratio"])
    return table[table["source"] != table["target"]]


# --- the tables themselves ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "rows"), [("source_datasets", 15 * 12), ("architectures", 9 * 11), ("run_summaries", 256)]
)
def test_a_table_has_one_row_per_pair(name, rows):
    table = published.table(name)
    assert len(table) == rows
    assert not table.duplicated([key for key in ("setting", "source", "target") if key in table]).any()


@pytest.mark.parametrize("name", published.TABLES)
def test_a_moved_cell_is_noticed(name, tmp_path, monkeypatch):
    text = Path(published.__file__).with_name(f"{name}.csv").read_text(encoding="utf-8")
    place = len(text) // 2 + re.search(r"\d", text[len(text) // 2 :]).start()
    moved = f"{text[:place]}{9 - int(text[place])}{text[place + 1 :]}"
    monkeypatch.setattr(published.resources, "files", lambda package: tmp_path)
    published._read.cache_clear()
    (tmp_path / f"{name}.csv").write_text(moved, encoding="utf-8")
    with pytest.raises(EnvironmentFailure, match=f"the packaged table {name} is not the released one"):
        published.table(name)
    (tmp_path / f"{name}.csv").write_text(text, encoding="utf-8")
    assert len(published.table(name))


@pytest.mark.parametrize("name", published.TABLES)
def test_every_column_has_a_unit_and_a_meaning(name):
    described = published.columns(name)
    table = published.table(name)
    assert set(table.columns) <= set(described)
    for column in table.columns:
        assert described[column]["unit"].strip() and described[column]["meaning"].strip()
    assert table.attrs["columns"] == described
    assert "2412.20172" in table.attrs["citation"]
    assert published.COMMIT[:7] in table.attrs["provenance"]


def test_table_returns_copies():
    table = published.table("architectures")
    table.loc[:, "auc"] = 0.0
    table.attrs["citation"] = ""
    fresh = published.table("architectures")
    assert fresh["auc"].min() > 0.5
    assert fresh.attrs["citation"] == published.CITATION


@pytest.mark.parametrize("ask", [published.table, published.columns])
def test_an_unknown_table_is_refused_with_the_nearest(ask):
    with pytest.raises(InputError, match=r"'source_dataset'.*Did you mean 'source_datasets'\?"):
        ask("source_dataset")


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


# --- what a careful reader must be told: the facts that the tables give by themselves ----------------------


def test_logme_puts_the_widest_network_first_on_every_target():
    table = published.table("architectures")
    first = table.loc[table.groupby("target")["logme"].idxmax(), "source"]
    assert list(first) == ["vgg"] * 11


def test_ncti_exceeds_what_its_definition_allows():
    # minmax + minmax - minmax is at most 2
    values = _scored()["ncti"]
    assert len(values) == 165 and (values > 2).sum() == 31


@pytest.mark.parametrize(
    ("setting", "kept", "count", "of"),
    [
        ("source_datasets", "all", 57, 165),
        ("source_datasets", "without source == target", 53, 154),
        ("architectures", "all", 76, 99),
    ],
)
def test_sfda_saturates(setting, kept, count, of):
    table = published.table(setting)
    table = table[table["target"] != "chestmnist"]
    if kept != "all":
        table = table[table["source"] != table["target"]]
    assert (len(table), (table["sfda"] == 1).sum()) == (of, count)


def test_sfda_is_constant_for_breast_and_pneumonia_and_all_but_so_for_oct():
    table = _with_proposed()
    spread = table.groupby("target")["sfda"].agg(np.ptp)
    assert spread["breastmnist"] == spread["pneumoniamnist"] == 0
    assert np.isnan(_tau("source_datasets").loc[["breastmnist", "pneumoniamnist"], "sfda"]).all()
    assert spread["octmnist"] == pytest.approx(3e-10, rel=0.05)


def test_the_cross_domain_result_rests_on_the_inversion():
    plain, turned = _tau("architectures", False).mean(), _tau("architectures").mean()
    assert plain["proposed"] == pytest.approx(-0.250, abs=ROUNDING)
    assert turned["proposed"] == pytest.approx(0.261, abs=ROUNDING)
    assert turned.drop(["nca", "gradient_ratio"]).idxmax() == "leep"


def test_the_same_network_has_other_scores_in_the_two_tables():
    datasets = _scored().query("source == 'imagenet'").set_index("target")[SCORES]
    networks = published.table("architectures").query("source == 'resnet'").set_index("target")[SCORES]
    differ = ((datasets - networks).abs() > 1e-6).any()
    assert set(differ.index[differ]) == {"logme", "parc", "sfda", "leep", "nleep", "ncti"}
    # The proposed terms agree to the last digit, so the images and the network were the same.
    assert (datasets[["nca", "gradient_ratio"]] == networks[["nca", "gradient_ratio"]]).all(axis=None)


def test_min_max_over_source_equal_to_target_matters_for_dermamnist_only():
    changed = []
    for target, released in _with_proposed().groupby("target"):
        without = combine(released["nca"], released["gradient_ratio"])
        if not np.allclose(without, released["proposed"], rtol=0, atol=1e-9):
            changed.append(target)
    assert changed == ["dermamnist"]


def test_six_cells_of_the_released_rank_table_are_wrong():
    right = _tau("architectures")[[*published.METRICS, "proposed"]].rank(axis=1, ascending=False)
    wrong = _released_architecture_ranks() != right
    assert wrong.to_numpy().sum() == 6
    assert set(wrong.index[wrong.any(axis=1)]) == {"dermamnist", "tissuemnist"}


def test_ours_always_chooses_imagenet_and_so_has_its_regret():
    table = _with_proposed()
    chosen = table.loc[table.groupby("target")["proposed"].idxmax()].set_index("target")
    assert list(chosen["source"]) == ["imagenet"] * 11
    best = table.groupby("target")["auc"].max()
    assert (best - chosen["auc"]).mean() == pytest.approx(0.0052, abs=5e-5)


def test_the_size_of_the_training_set_with_imagenet_first_does_as_well():
    sizes = {flag: info["n_samples"]["train"] for flag, info in medmnist.info().items()}
    # The three large ones in the order ImageNet, RadImageNet, all of MedMNIST, ahead of every single set.
    sizes |= {"imagenet": 4e6, "radimagenet": 3e6, "medmnist": 2e6}
    table = _with_proposed()[["source", "target", "auc"]].assign(size=lambda rows: rows["source"].map(sizes))
    assert evaluation.weighted_tau(table)["size"].mean() == pytest.approx(0.527, abs=ROUNDING)
    assert _tau("source_datasets")["proposed"].mean() == pytest.approx(0.523, abs=ROUNDING)


def test_without_the_three_large_sources_little_is_left():
    table = _with_proposed()
    taus = evaluation.weighted_tau(table[~table["source"].isin(LARGE_SOURCES)])
    means = taus[[*published.METRICS, "proposed"]].mean().sort_values(ascending=False)
    assert list(means.index[:2]) == ["proposed", "nleep"]
    assert list(means.iloc[:2]) == pytest.approx([0.251, 0.181], abs=ROUNDING)
    assert evaluation.friedman(taus).p == pytest.approx(0.23, abs=0.005)


@pytest.mark.parametrize(
    ("truth", "leader", "nleep", "proposed"),
    [
        ("auc_median", "nleep", 0.484, 0.424),
        ("auc_mean_of_10_lowest_val_loss", "proposed", 0.593, 0.666),
    ],
)
def test_another_summary_of_the_runs_changes_the_leader(truth, leader, nleep, proposed):
    runs = published.table("run_summaries").query("setting == 'source_datasets'")
    table = _with_proposed().merge(runs[["source", "target", truth]], on=["source", "target"])
    table["auc"] = table.pop(truth)
    means = evaluation.weighted_tau(table)[[*published.METRICS, "proposed"]].mean()
    assert means.idxmax() == leader
    assert [means["nleep"], means["proposed"]] == pytest.approx([nleep, proposed], abs=ROUNDING)


@pytest.mark.parametrize(
    ("metric", "count"),
    [("leep", 11), ("nleep", 10), ("sfda", 10), ("logme", 8), ("parc", 8), ("gradient_ratio", 0)],
)
def test_how_often_the_target_itself_comes_first_as_source(metric, count):
    # Ties count as first.
    first = 0
    for target, block in _scored().groupby("target"):
        values = block.set_index("source")[metric]
        first += values[target] >= values.max()
    assert first == count


# --- evaluation on tables of one's own ---------------------------------------------------------------------


def test_a_given_table_gives_the_published_values():
    table = published.table("source_datasets")
    own = evaluation.weighted_tau(table[table["target"] != "chestmnist"])
    pd.testing.assert_frame_equal(
        own[list(published.METRICS)], _tau("source_datasets")[list(published.METRICS)], atol=1e-12
    )


def test_weighted_tau_changes_nothing_in_the_table_given():
    table = _with_proposed()
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
