"""The explorer page's data: pairs, intervals and ceilings as `evaluation` has them, loadable from disk."""

import json

import numpy as np
import pandas as pd
import pytest

import explorer
from companion import evaluation, published, replication


def values_of(setting: str, field: str, name: str) -> pd.Series:
    """One score or ground truth of every pair as the page has it."""
    targets = explorer.data()["settings"][setting]["targets"]
    found = {
        (source, target): value
        for target, about in targets.items()
        for source, value in zip(about["sources"], about[field][name], strict=True)
    }
    return pd.Series(found, dtype=float).rename_axis(["source", "target"])


@pytest.mark.parametrize("setting", published.SETTINGS)
def test_scores_and_auc_are_the_published_ones(setting):
    table = evaluation.published_pairs(setting, inverted=False).set_index(["source", "target"])
    names = {name: ("scores", name) for name in explorer.SCORES if name != "proposed"}
    names["auc"] = ("truths", "auc_at_min_val_loss")
    for column, where in names.items():
        shown = values_of(setting, *where).reindex(table.index)
        np.testing.assert_array_equal(shown, table[column])
    assert "proposed" in explorer.data()["settings"][setting]["scores"]


def test_ground_truths_of_the_published_setting_are_the_summaries():
    summaries = published.table("run_summaries").query("setting == 'source_datasets'")
    for name in ("auc_median", "auc_mean_of_10_lowest_val_loss"):
        shown = values_of("source_datasets", "truths", name)
        exact = summaries.set_index(["source", "target"])[name].reindex(shown.index)
        assert shown.notna().all()
        np.testing.assert_array_equal(shown, exact)


def test_the_replications_rows_are_its_tables():
    exact = replication.table().query("source != 'scratch'")
    exact = exact.replace({"source": {"_mobilenet_v2$": ""}}, regex=True).set_index(["source", "target"])
    for where in (("truths", "lowest_val_loss"), ("scores", "nca"), ("scores", "ncti")):
        shown = values_of("replication", *where)
        assert len(shown) == len(exact)
        column = "auc" if where[0] == "truths" else where[1]
        np.testing.assert_allclose(shown, exact[column].reindex(shown.index), rtol=1e-12)


@pytest.mark.parametrize(
    ("setting", "orientation"), [("source_datasets", "released"), ("architectures", "inverted")]
)
def test_intervals_are_the_bootstrap_s(setting, orientation):
    table = evaluation.published_pairs(setting)
    found = evaluation.bootstrap(table, columns=["proposed", "leep"], against=None)
    shown = explorer.data()["settings"][setting]["intervals"][orientation]
    for score in ("proposed", "leep"):
        assert shown["mean"][score] == found.mean.loc[score, ["low", "high"]].tolist()
        for target in table["target"].unique():
            exact = found.targets.loc[(target, score), ["low", "high"]].tolist()
            assert shown[target][score] == [None if np.isnan(end) else end for end in exact]


def test_noise_ceilings_are_spans_between_minus_one_and_one():
    for setting in explorer.data()["settings"].values():
        assert set(setting["ceilings"]) <= set(setting["targets"])
        for low, high in setting["ceilings"].values():
            assert -1 <= low <= high <= 1
    assert len(explorer.data()["settings"]["replication"]["ceilings"]) == 7


def test_what_is_written_can_be_opened_from_disk(tmp_path):
    explorer.write(tmp_path / "explorer")
    files = {path.name: path for path in (tmp_path / "explorer").iterdir()}
    assert set(files) == {"data.js", "explorer.js", "without_scripts.svg"}
    text = files["data.js"].read_text(encoding="utf-8")
    given = json.loads(text.removeprefix("const explorerData = ").removesuffix(";\n"))
    assert given == json.loads(json.dumps(explorer.data()))
    ours = files["explorer.js"].read_text(encoding="utf-8")
    assert "fetch(" not in ours and len(ours.splitlines()) <= 300
    assert sum(path.stat().st_size for path in files.values()) < 400_000
