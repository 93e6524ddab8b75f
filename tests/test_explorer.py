"""The explorer page's data: what `evaluation` says, whole, and in a form that a page opened from disk can load."""

import json

import numpy as np
import pandas as pd
import pytest

import explorer
from companion import evaluation, published

BOTH = ("released", "inverted")


def frame(setting: str, orientation: str, field: str) -> pd.DataFrame:
    """Targets by scores: one number of every cell."""
    cells = explorer.data()["settings"][setting][orientation]["cells"]
    values = {target: {score: cell[field] for score, cell in of.items()} for target, of in cells.items()}
    return pd.DataFrame(values, dtype=float).T


@pytest.mark.parametrize("setting", published.SETTINGS)
def test_the_papers_orientation_gives_the_papers_tau(setting):
    inverted, exact = explorer.INVERTED[setting], evaluation.weighted_tau(setting)
    assert explorer.data()["settings"][setting]["paper_inverts"] == inverted
    for score in explorer.SCORES:
        shown = frame(setting, "inverted" if score in inverted else "released", "tau")[score]
        pd.testing.assert_series_equal(shown, exact[score], check_names=False)


@pytest.mark.parametrize(
    ("setting", "orientation"), [("source_datasets", "released"), ("architectures", "inverted")]
)
def test_every_number_is_that_of_evaluation(setting, orientation):
    table = explorer.pairs(setting, inverted=orientation == "inverted")
    intervals = evaluation.bootstrap(table, columns=explorer.SCORES)
    means = pd.DataFrame(explorer.data()["settings"][setting][orientation]["means"]).T
    defined = frame(setting, orientation, "tau").notna().sum()
    assert means.pop("targets").to_dict() == defined.to_dict()
    pd.testing.assert_frame_equal(means, intervals.mean.loc[means.index], check_names=False)
    for score in explorer.SCORES:
        regret = frame(setting, orientation, "regret")[score]
        pd.testing.assert_series_equal(regret, evaluation.regret(table, score), check_names=False)
        for field in ("low", "high"):
            shown = frame(setting, orientation, field)[score]
            exact = intervals.targets[field].xs(score, level=1)
            pd.testing.assert_series_equal(shown, exact, check_names=False)


def test_all_scores_can_be_inverted():
    for setting in published.SETTINGS:
        released, other = (explorer.pairs(setting, inverted=inverted) for inverted in (False, True))
        assert (released[["source", "target", "auc"]] == other[["source", "target", "auc"]]).all(axis=None)
        for score in set(explorer.SCORES) - {"proposed"}:
            np.testing.assert_allclose(other[score], 1 - released[score])
    both_terms = evaluation.published_pairs("source_datasets", inverted=True)
    found = explorer.pairs("source_datasets", inverted=True)
    np.testing.assert_array_equal(found["proposed"], both_terms["proposed"])


def test_places_and_first_choices():
    for setting in explorer.data()["settings"].values():
        for orientation in BOTH:
            for target, cells in setting[orientation]["cells"].items():
                about = setting["targets"][target]
                assert about["auc"][about["places"].index(1)] == max(about["auc"])
                for cell in cells.values():
                    places = dict(zip(about["sources"], cell["places"], strict=True))
                    assert cell["first"] == [source for source in places if places[source] == 1]
                    assert 0 <= cell["regret"] <= about["worst"]
                assert 0 < about["by_chance"] < about["worst"]


def test_what_is_written_can_be_opened_from_disk(tmp_path):
    explorer.write(tmp_path / "explorer")
    files = {path.name: path for path in (tmp_path / "explorer").iterdir()}
    assert set(files) == {"bokeh.min.js", "data.js", "explorer.js", "without_scripts.png"}
    text = files["data.js"].read_text(encoding="utf-8")
    given = json.loads(text.removeprefix("const explorerData = ").removesuffix(";\n"))
    chart = given.pop("chart")
    assert given == json.loads(json.dumps(explorer.data()))
    assert {"points", "plot", "labels"} <= set(_names(chart))
    ours = files["explorer.js"].read_text(encoding="utf-8")
    assert "http" not in ours and "fetch(" not in ours
    assert sum(path.stat().st_size for path in files.values()) < 2_500_000


def _names(node) -> list[str]:
    """Every ``name`` in a nested document."""
    if isinstance(node, dict):
        own = [node["name"]] if isinstance(node.get("name"), str) else []
        return own + [name for value in node.values() for name in _names(value)]
    return [name for value in node for name in _names(value)] if isinstance(node, list) else []
