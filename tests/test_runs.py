"""All fine-tuning runs: the file in the data directory, the download, the checks, and what is said without either."""

from __future__ import annotations

import hashlib
import sys

import numpy as np
import pandas as pd
import pytest

from companion import published
from companion.errors import EnvironmentFailure, InputError

module = sys.modules["companion.published.runs"]
GRID = [(lr, momentum) for lr in (0.001, 0.01, 0.1) for momentum in (0.0, 0.9)]


RESULTS = ("val_loss", "val_auc", "val_acc", "test_loss", "test_auc", "test_acc")


def original(target: str, sources: list[str], seed: int) -> pd.DataFrame:
    """One table in the authors' columns, six runs a source, the last of each failed."""
    table = pd.DataFrame(
        [(source, *point) for source in sources for point in GRID], columns=["source_flag", "lr", "momentum"]
    )
    table = table.assign(target_flag=target, batch_size=64, wd=1e-5, epochs=200, stopped_at=50.0)
    table[list(RESULTS)] = np.random.default_rng(seed).random((len(table), len(RESULTS)))
    failed = np.arange(len(table)) % len(GRID) == len(GRID) - 1
    table.loc[failed, ["stopped_at", *RESULTS]] = np.nan
    return table.assign(Status=np.where(failed, "FAILED", "FINISHED"))


def summaries(setting: str, target: str, table: pd.DataFrame, names: dict[str, str]) -> pd.DataFrame:
    """What the packaged summary would say of an original."""
    finished = table[table["Status"] == "FINISHED"]
    best = finished.loc[finished.groupby("source_flag")["val_loss"].idxmin()]
    return pd.DataFrame(
        {
            "setting": setting,
            "source": best["source_flag"].map(names),
            "target": target,
            "runs": len(GRID) - 1,
            "auc_at_min_val_loss": best["test_auc"],
        }
    )


@pytest.fixture
def upstream(monkeypatch, server, no_waiting):
    """Two small originals on a server of this machine, under names of the authors' own."""
    names = (
        {"blood": "bloodmnist", "ImageNet": "imagenet", "organ_a": "organamnist"},
        {"vgg11": "vgg", "efficientnet_v2_s": "efficientnet", "MobileNet": "mobilenet"},
    )
    tables = (original("breast", list(names[0]), 1), original("breastmnist", list(names[1]), 2))
    rows = []
    for setting, path, table in zip(
        published.SETTINGS, ("a/fined_breast.csv", "a/fined_breast_imnet.csv"), tables, strict=True
    ):
        body = table.to_csv(index=False).encode()
        server.serve(f"/{path}", body)
        rows.append(
            {
                "file": path,
                "setting": setting,
                "target": "breastmnist",
                "sha256": "sha256:" + hashlib.sha256(body).hexdigest(),
            }
        )
    monkeypatch.setattr(module, "ADDRESS", server.root)
    monkeypatch.setattr(module, "registry", lambda: rows)
    monkeypatch.setattr(module, "ROWS", sum(len(table) for table in tables))
    known = zip(published.SETTINGS, tables, names, strict=True)
    summary = pd.concat(summaries(setting, "breastmnist", table, named) for setting, table, named in known)
    real = published.table
    monkeypatch.setattr(published, "table", lambda name: summary if name == "run_summaries" else real(name))
    return server


def test_the_registry_lists_one_table_per_target_and_setting():
    rows = module.registry()
    pairs = {(row["setting"], row["target"]) for row in rows}
    known = published.table("run_summaries")[["setting", "target"]].drop_duplicates()
    assert pairs == set(known.itertuples(index=False, name=None))
    assert len(rows) == len({row["sha256"] for row in rows}) == 23
    assert all(len(row["sha256"]) == len("sha256:") + 64 for row in rows)
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


def test_a_damaged_original_is_refused_and_nothing_is_kept(upstream, data):
    upstream.serve("/a/fined_breast_imnet.csv", b"something else")
    with pytest.raises(
        EnvironmentFailure, match=r"fined_breast_imnet\.csv does not have the published sha256"
    ):
        published.runs()
    assert not (data / module.FILENAME).exists()


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (
            lambda table: table.replace({"source_flag": {"blood": "blod"}}),
            r"the column source_flag: 'blod' is none",
        ),
        (lambda table: table.drop(columns=["wd", "Status"]), r"lacks the column\(s\) weight_decay, status"),
        (lambda table: table.assign(lr="fast"), "column lr holds something that is no number"),
    ],
    ids=["source", "columns", "numbers"],
)
def test_an_original_that_is_not_understood_is_named_with_its_column(tmp_path, change, says):
    path = tmp_path / "fined_breast.csv"
    change(original("breast", ["blood", "imagenet"], 3)).to_csv(path, index=False)
    with pytest.raises(InputError, match=rf"fined_breast\.csv.*{says}"):
        module._tidy(path, "source_datasets", "breastmnist")


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda frame: frame.iloc[:-1], "35 runs, but 36 were released"),
        (lambda frame: frame.assign(status="FINISHED"), "a finished run has no validation loss"),
        (
            lambda frame: frame.assign(test_auc=frame["test_auc"] + 0.01),
            r"the runs of \w+, \w+, breastmnist are not",
        ),
        (
            lambda frame: frame.assign(source=frame["source"].replace("vgg", "imagenet")),
            "the runs of architectures, imagenet, breastmnist are not",
        ),
        (lambda frame: frame.drop(columns="momentum"), r"lacks the column\(s\) momentum"),
    ],
    ids=["too few", "no results", "other results", "other source", "no column"],
)
def test_a_table_of_other_runs_is_refused(upstream, data, change, says):
    path = data / module.FILENAME
    change(published.runs()).to_parquet(path)
    with pytest.raises(InputError, match=says) as caught:
        published.runs()
    assert str(path) in str(caught.value) and "delete it" in str(caught.value)


def test_a_damaged_file_is_named(data):
    (data / module.FILENAME).write_bytes(b"PAR1 and no more")
    with pytest.raises(InputError, match=r"fine_tuning_runs\.parquet cannot be read as parquet: delete it"):
        published.runs()


def test_without_file_and_without_internet_it_is_said_what_to_do(monkeypatch, data, no_waiting):
    monkeypatch.setattr(module, "ADDRESS", "http://127.0.0.1:9")
    with pytest.raises(
        EnvironmentFailure, match=r"not at .*fine_tuning_runs\.parquet, and cannot reach .*put"
    ) as caught:
        published.runs()
    assert "\n" not in str(caught.value)
    with pytest.raises(EnvironmentFailure, match=r"not at .*: put fine_tuning_runs\.parquet"):
        published.runs(download=False)


@pytest.fixture
def real_runs(monkeypatch, real_data):
    """The real runs, where the data directory has them."""
    try:
        return published.runs(download=False)
    except EnvironmentFailure as error:
        pytest.skip(str(error))


@pytest.mark.real
def test_the_real_runs_are_the_released_ones(real_runs):
    assert len(real_runs) == 28_205
    assert real_runs["status"].value_counts().to_dict() == {"FINISHED": 26_525, "FAILED": 1671, "RUNNING": 9}
    finished = real_runs[real_runs["status"] == "FINISHED"]
    summary = published.table("run_summaries").set_index(["setting", "source", "target"])
    medians = finished.groupby(["setting", "source", "target"])["test_auc"].median()
    np.testing.assert_allclose(medians.reindex(summary.index), summary["auc_median"], rtol=0, atol=1e-12)
