"""The released tables, every number of the paper that they give, and the authors' fine-tuning runs."""

import functools
import hashlib
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from scipy.stats import friedmanchisquare

import refresh_run_intervals
from companion import evaluation, published
from companion.errors import EnvironmentFailure, InputError

# Printed with three decimals, so half a unit of the third; the last bit of a double is for the sum.
ROUNDING = 0.0005 + 1e-9


@functools.cache
def _tau(setting: str) -> pd.DataFrame:
    return evaluation.weighted_tau(setting)


# --- the tables themselves ---------------------------------------------------------------------------------
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
    with pytest.raises(InputError, match=r"'source_dataset'.*Did you mean 'source_datasets'\?"):
        published.table("source_dataset")


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
def test_a_given_table_gives_the_published_values_and_is_not_changed():
    table = published.table("source_datasets").query("target != 'chestmnist'")
    before, metrics = table.copy(), list(published.METRICS)
    own = evaluation.weighted_tau(table)
    pd.testing.assert_frame_equal(own[metrics], _tau("source_datasets")[metrics], atol=1e-12)
    pd.testing.assert_frame_equal(table, before)


@pytest.mark.parametrize(
    ("table", "message"),
    [
        ("sources", r"no published setting 'sources'"),
        (pd.DataFrame({"source": ["a"], "target": ["b"], "auc": [0.5]}), r"no score column"),
    ],
)
def test_a_table_that_cannot_be_evaluated_is_refused(table, message):
    with pytest.raises(InputError, match=message):
        evaluation.weighted_tau(table)


def test_tau_at_its_ends():
    auc = [0.1, 0.2, 0.3]
    assert evaluation.tau([1, 2, 3], auc) == pytest.approx(1) == -evaluation.tau([3, 2, 1], auc)
    assert evaluation.tau([1, np.nan, 3], [0.1, 0.9, 0.3]) == pytest.approx(1)
    assert np.isnan([evaluation.tau(*given) for given in (([1, 1, 1], auc), ([1], [0.1]), ([], []))]).all()


# --- the authors' fine-tuning runs --------------------------------------------------------------------------
module = sys.modules["companion.published.runs"]
GRID = [(lr, momentum) for lr in (0.001, 0.01, 0.1) for momentum in (0.0, 0.9)]
RESULTS = ("val_loss", "val_auc", "val_acc", "test_loss", "test_auc", "test_acc")


def original(target: str, sources: list[str], seed: int) -> pd.DataFrame:
    """One table in the authors' columns, six runs a source, the last of each failed."""
    points = [(source, *point) for source in sources for point in GRID]
    table = pd.DataFrame(points, columns=["source_flag", "lr", "momentum"])
    table = table.assign(target_flag=target, batch_size=64, wd=1e-5, epochs=200, stopped_at=50.0)
    table[list(RESULTS)] = np.random.default_rng(seed).random((len(table), len(RESULTS)))
    failed = np.arange(len(table)) % len(GRID) == len(GRID) - 1
    table.loc[failed, ["stopped_at", *RESULTS]] = np.nan
    return table.assign(Status=np.where(failed, "FAILED", "FINISHED"))


def summary(setting: str, table: pd.DataFrame, names: dict[str, str]) -> pd.DataFrame:
    """What the packaged summary would say of an original."""
    finished = table[table["Status"] == "FINISHED"]
    best = finished.loc[finished.groupby("source_flag")["val_loss"].idxmin()]
    about = {"setting": setting, "target": "breastmnist", "runs": len(GRID) - 1}
    return pd.DataFrame(
        {"source": best["source_flag"].map(names), "auc_at_min_val_loss": best["test_auc"]} | about
    )


@pytest.fixture
def upstream(monkeypatch, server, no_waiting):
    """Two small originals on a server of this machine, under names of the authors' own."""
    theirs = {
        "source_datasets": {"blood": "bloodmnist", "ImageNet": "imagenet", "organ_a": "organamnist"},
        "architectures": {"vgg11": "vgg", "efficientnet_v2_s": "efficientnet", "MobileNet": "mobilenet"},
    }
    files = {"source_datasets": "a/fined_breast.csv", "architectures": "a/fined_breast_imnet.csv"}
    rows, expected = [], []
    for seed, (setting, names) in enumerate(theirs.items()):
        table = original("breast", list(names), seed)
        body = table.to_csv(index=False).encode()
        server.serve(f"/{files[setting]}", body)
        sha256 = "sha256:" + hashlib.sha256(body).hexdigest()
        rows.append({"file": files[setting], "setting": setting, "target": "breastmnist", "sha256": sha256})
        expected.append(summary(setting, table, names))
    monkeypatch.setattr(module, "ADDRESS", server.root)
    monkeypatch.setattr(module, "registry", lambda: rows)
    monkeypatch.setattr(module, "ROWS", 36)
    known = {"run_summaries": pd.concat(expected)}
    real = published.table
    monkeypatch.setattr(published.tables, "table", lambda name: known[name] if name in known else real(name))
    return server


def test_the_registry_lists_one_table_per_target_and_setting():
    rows = module.registry()
    known = published.table("run_summaries")
    assert {(row["setting"], row["target"]) for row in rows} == {
        *zip(known["setting"], known["target"], strict=True)
    }
    assert len(rows) == len({row["sha256"] for row in rows}) == 23
    assert module.ADDRESS.endswith(published.COMMIT)


def test_originals_are_downloaded_tidied_and_kept(upstream, data):
    found = published.runs()
    assert list(found.columns) == list(module.COLUMNS)
    assert len(found) == 36 and (found["status"] == "FINISHED").sum() == 30
    assert set(found["target"]) == {"breastmnist"}
    assert set(found["source"]) == {*"bloodmnist imagenet organamnist vgg efficientnet mobilenet".split()}
    assert found["weight_decay"].eq(1e-5).all() and found["stopped_epoch"].isna().sum() == 6
    asked = len(upstream.requests)
    assert (data / module.FILENAME).is_file()
    (data / "deeper").mkdir()
    (data / module.FILENAME).rename(data / "deeper" / module.FILENAME)
    pd.testing.assert_frame_equal(published.runs(), found)
    assert len(upstream.requests) == asked


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda frame: frame.iloc[:-1], "35 runs, but 36 were released"),
        (lambda frame: frame.assign(status="RUNNING"), r"the runs of \w+, \w+, breastmnist are not"),
        (lambda frame: frame.assign(test_auc=frame["test_auc"] + 0.01), r"the runs of .* are not"),
        (
            lambda frame: frame.replace({"source": {"vgg": "imagenet"}}),
            "architectures, imagenet, breastmnist are not",
        ),
        (lambda frame: frame.drop(columns="momentum"), "no table of runs .*momentum"),
        (None, r"fine_tuning_runs\.parquet cannot be read as parquet"),
    ],
    ids=["too few", "unfinished", "other results", "other source", "no column", "damaged"],
)
def test_a_table_of_other_runs_is_refused(upstream, data, change, says):
    path = data / module.FILENAME
    if change:
        change(published.runs()).to_parquet(path)
    else:
        path.write_bytes(b"PAR1 and no more")
    with pytest.raises(InputError, match=says) as caught:
        published.runs()
    assert str(path) in str(caught.value) and "delete it" in str(caught.value)


def test_without_file_and_without_internet_it_is_said_what_to_do(monkeypatch, data, no_waiting):
    monkeypatch.setattr(module, "ADDRESS", "http://127.0.0.1:9")
    says = r"not at .*fine_tuning_runs\.parquet, and cannot reach .*put"
    with pytest.raises(EnvironmentFailure, match=says) as caught:
        published.runs()
    assert "\n" not in str(caught.value)
    with pytest.raises(EnvironmentFailure, match=r"not at .*: put fine_tuning_runs\.parquet"):
        published.runs(download=False)


@pytest.mark.real
def test_the_real_runs_are_the_released_ones(real_data):
    try:
        found = published.runs(download=False)
    except EnvironmentFailure as error:
        pytest.skip(str(error))
    assert found["status"].value_counts().to_dict() == {"FINISHED": 26_525, "FAILED": 1671, "RUNNING": 9}
    summary = published.table("run_summaries").set_index(["setting", "source", "target"])
    medians = found[found["status"] == "FINISHED"].groupby(summary.index.names)["test_auc"].median()
    np.testing.assert_allclose(medians.reindex(summary.index), summary["auc_median"], rtol=0, atol=1e-12)
    intervals = refresh_run_intervals.intervals()
    pd.testing.assert_frame_equal(
        intervals, published.table("run_intervals"), check_exact=False, rtol=0, atol=1e-6
    )


def test_the_interval_of_a_chosen_run_is_that_of_many_draws_and_holds_the_ground_truth():
    rng = np.random.default_rng(3)
    runs = pd.DataFrame({"val_loss": rng.random(60), "test_auc": rng.random(60)})
    drawn = rng.integers(60, size=(20_000, 60))
    chosen = drawn[np.arange(20_000), runs["val_loss"].to_numpy()[drawn].argmin(axis=1)]
    # Below the lower limit lie at most 2.5 % of the draws, and up to it at least as many; so for the upper one.
    for limit, share in zip(refresh_run_intervals.limits(runs), (0.025, 0.975), strict=True):
        auc = runs["test_auc"][chosen]
        assert (auc < limit).mean() <= share + 0.005 and (auc <= limit).mean() >= share - 0.005
    both = published.table("run_summaries").merge(published.table("run_intervals"))
    assert len(both) == len(published.table("run_summaries"))
    assert both["auc_at_min_val_loss"].between(both["auc_low"] - 1e-6, both["auc_high"] + 1e-6).all()
