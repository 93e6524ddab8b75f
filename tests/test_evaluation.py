"""What a metric author gets: τ_w of a score of one's own, its intervals, baselines, tests and the noise ceiling."""

import re
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
from scipy.stats import kendalltau, ttest_1samp, weightedtau

import companion
from companion import evaluation, models, published, scores
from companion.errors import EnvironmentFailure, InputError
from companion.evaluation import ceiling
from companion.evaluation.intervals import interval, tau_draws

SEVEN = [*published.METRICS, "proposed"]


@pytest.fixture(scope="module")
def table() -> pd.DataFrame:
    return evaluation.published_pairs("source_datasets")


@pytest.fixture(scope="module")
def mine(table) -> pd.DataFrame:
    return table[["source", "target"]].assign(mine=np.random.default_rng(3).normal(size=len(table)))


@pytest.fixture(scope="module")
def few(mine) -> pd.DataFrame:
    """The same for three targets, where it does not matter how many there are."""
    return mine[mine["target"].isin(["bloodmnist", "breastmnist", "octmnist"])].reset_index(drop=True)


def quick(metric, **options) -> evaluation.Benchmark:
    return evaluation.benchmark(metric, **({"draws": 10, "runs": None} | options))


# --- τ_w and its intervals ---------------------------------------------------------------------------------
@pytest.mark.parametrize("values", [4, 100])
def test_tau_of_many_lists_is_scipys(values):
    rng = np.random.default_rng(values)
    for _ in range(150):
        n = int(rng.integers(3, 16))
        x, y = rng.integers(0, values, (2, n))
        counts = rng.multinomial(n, np.ones(n) / n)
        written_out = np.repeat(x, counts), np.repeat(y, counts)
        if any(np.ptp(side) == 0 for side in written_out):
            assert np.isnan(tau_draws(x, y, counts))
            continue
        assert tau_draws(x, y, counts) == pytest.approx(weightedtau(*written_out).statistic, abs=1e-12)
    x, y = rng.normal(size=(2, 20, 7))
    expected = [weightedtau(*pair).statistic for pair in zip(x, y, strict=True)]
    assert tau_draws(x, y, np.ones(7)) == pytest.approx(expected)


def test_intervals_hold_the_value_and_repeat(table):
    found, again = (evaluation.bootstrap(table, draws=300) for _ in range(2))
    exact = evaluation.weighted_tau(table)
    np.testing.assert_allclose(found.mean["mean"], exact.mean())
    np.testing.assert_allclose(found.targets["tau"].unstack()[exact.columns], exact)
    shown = found.targets.dropna()
    assert shown[["low", "high"]].abs().max().max() <= 1 + 1e-12
    assert ((shown["low"] <= shown["tau"]) & (shown["tau"] <= shown["high"])).all()
    assert ((found.mean["low"] < found.mean["mean"]) & (found.mean["mean"] < found.mean["high"])).all()
    # SFDA: undefined on two targets, and constant in many resamples of two more, where it saturates but for a source.
    missing = found.targets["low"].isna()
    assert found.targets["tau"].isna().sum() == 2 and missing.sum() == 4
    assert set(found.targets.index[missing].get_level_values("score")) == {"sfda"}
    for one, other in zip(found, again, strict=True):
        pd.testing.assert_frame_equal(one, other, check_exact=True)
    other_seed = evaluation.bootstrap(table[["source", "target", "auc", "leep"]], draws=300, seed=1)
    assert other_seed.mean.loc["leep", "low"] != found.mean.loc["leep", "low"]
    with pytest.raises(InputError, match="at least 2 draws are needed, got 1"):
        evaluation.bootstrap(table, draws=1)
    with pytest.raises(InputError, match="table has no pair to compare"):
        evaluation.bootstrap(table.iloc[:0])


def test_the_interval_of_one_target_covers_about_as_often_as_it_says():
    rng = np.random.default_rng(11)
    sources, repeats = 14, 300

    def sample(count):
        auc = rng.normal(size=(count, sources))
        return 0.7 * auc + rng.normal(size=(count, sources)), auc

    population = tau_draws(*sample(20_000), np.ones(sources)).mean()
    score, auc = sample(repeats)
    names = np.arange(repeats * sources)
    rows = pd.DataFrame({"source": names % sources, "target": names // sources}).astype(str)
    rows = rows.assign(auc=auc.ravel(), score=score.ravel())
    found = evaluation.bootstrap(rows, draws=300).targets
    inside = (found["low"] <= population) & (population <= found["high"])
    assert 0.9 <= inside.mean() <= 0.98  # 95 % with a standard error of 1.3 %


def test_differences_are_paired(table):
    same = table[["source", "target", "auc", "proposed"]].assign(worse=-table["auc"], best=table["auc"])
    same.insert(4, "copy", table["proposed"] * 2 + 1)
    found = evaluation.bootstrap(same, draws=100).differences
    assert list(found.index) == ["copy", "worse", "best"]
    assert found.loc["copy"].abs().max() == 0
    assert found.loc["worse", "high"] < 0 < found.loc["best", "low"]
    assert evaluation.bootstrap(same, draws=5, against=None).differences.empty


def test_a_difference_is_over_the_sources_and_targets_that_have_both():
    rows = pd.DataFrame([(s, t) for t in "tu" for s in "abcde"], columns=["source", "target"])
    rows["auc"] = [1, 2, 3, 4, 5, 2, 1, 3, 4, 5.0]
    rows["proposed"] = [9, 2, 3, 4, 5, 1, 2, 3, 4, 5.0]  # wrong about a alone, and on the second target
    rows["part"] = [np.nan, 2, 3, 4, 5] + [np.nan] * 3 + [5, 4]  # two sources are no order
    found = evaluation.bootstrap(rows, draws=50)
    assert found.mean.loc["part", "mean"] == pytest.approx(1) and found.mean.loc["proposed", "mean"] < 0.9
    assert (found.differences.loc["part"] == 0).all()


def test_the_interval_over_targets_is_student_s_and_covers():
    low, high = interval([0.1, 0.2, 0.3, 0.6])
    expected = ttest_1samp([0.1, 0.2, 0.3, 0.6], 0).confidence_interval(0.95)
    assert (low, high) == pytest.approx((expected.low, expected.high))
    rng = np.random.default_rng(0)
    low, high = interval(rng.normal(0.1, 0.2, (4000, 7)) + rng.exponential(0.1, (4000, 7)))
    assert 0.93 <= ((low <= 0.2) & (0.2 <= high)).mean() <= 0.97


# --- ranks, τ-b, regret, baselines -------------------------------------------------------------------------
def test_an_undefined_tau_ranks_last_and_a_target_is_no_source_of_its_own():
    taus = pd.DataFrame({"a": [0.1, 0.5], "b": [np.nan, 0.2], "c": [-0.9, -0.8]})
    assert evaluation.friedman(taus).ranks.to_numpy().tolist() == [[1, 3, 2], [1, 2, 3]]
    with pytest.raises(InputError, match="needs 3 scores and 2 targets: got 2 and 2"):
        evaluation.friedman(taus[["a", "c"]])
    # The target as its own source is left out.
    rows = pd.DataFrame({"source": list("abct"), "target": "t", "auc": [0.1, 0.2, 0.3, 0.4]})
    assert evaluation.weighted_tau(rows.assign(mine=[1, 2, 3, 0])).loc["t", "mine"] == pytest.approx(1)


def test_a_tied_first_choice_is_made_by_chance():
    rows = pd.DataFrame({"source": list("abcabc"), "target": list("tttuuu"), "auc": [0.9, 0.8, 0.5] * 2})
    rows["tied"], rows["gone"] = [2.0, 2, 1, 1, 1, 1], [np.nan, 1, 0, np.nan, np.nan, np.nan]
    assert evaluation.regret(rows, "tied").to_list() == pytest.approx([0.05, 0.9 - 2.2 / 3])
    assert evaluation.regret(rows, "gone").to_list() == pytest.approx([0.1, np.nan], nan_ok=True)
    assert evaluation.regret(rows, lambda block: "c").to_list() == pytest.approx([0.4, 0.4])
    assert evaluation.regret(rows, lambda block: "z").isna().all()


def test_the_pooled_source_has_all_images_but_the_target_s():
    sizes = evaluation.training_set_sizes("bloodmnist")
    others = [size for name, size in sizes.items() if name.endswith("mnist")]
    assert sizes["medmnist"] == sum(others) - sizes["medmnist"] - sizes["bloodmnist"]


def test_the_rank_elsewhere_never_looks_at_the_target_itself(table):
    shuffled = table.copy()
    here = shuffled["target"] == "octmnist"
    shuffled.loc[here, "auc"] = shuffled.loc[here, "auc"].to_numpy()[::-1]

    def elsewhere(rows: pd.DataFrame) -> pd.Series:
        return evaluation.baselines(rows).set_index(["target", "source"])["mean_rank_elsewhere"]

    before, after = elsewhere(table), elsewhere(shuffled)
    pd.testing.assert_series_equal(before["octmnist"], after["octmnist"])
    assert (before["pathmnist"] != after["pathmnist"]).any()
    rows = pd.DataFrame({"source": list("abcabcab"), "target": list("tttuuuvv")})
    rows["auc"] = [3, 2, 1, 1, 2, 3, 5, 6.0]
    by_hand = elsewhere(rows)
    assert by_hand["t"].to_dict() == {"a": 0.0, "b": 0.75, "c": 1.0}
    assert by_hand["v"].to_dict() == {"a": 0.5, "b": 0.5}


# --- the noise ceiling -------------------------------------------------------------------------------------
def made_up_runs(noise: float, seed: int = 0, settings: int = 24) -> pd.DataFrame:
    """Runs of the published pairs whose AUC is the pair's own plus noise; the loss says nothing about it."""
    rng = np.random.default_rng(seed)
    pairs = evaluation.published_pairs("source_datasets")[["source", "target", "auc"]]
    rows = pairs.loc[pairs.index.repeat(settings)].reset_index(drop=True)
    place = np.tile(np.arange(settings), len(pairs))
    return pd.DataFrame(
        {
            "setting": "source_datasets",
            "source": rows["source"],
            "target": rows["target"],
            "lr": 10.0 ** -(place // 4),
            "momentum": 0.9 * (place % 2),
            "weight_decay": place // 2 % 2 * 1e-4,
            "batch_size": 64,
            "val_loss": rng.random(len(rows)),
            "test_auc": rows["auc"] + noise * rng.normal(size=len(rows)),
            "status": np.where(rng.random(len(rows)) < 0.05, "FAILED", "FINISHED"),
        }
    )


@pytest.mark.parametrize(("noise", "low", "high"), [(0.0, 1.0, 1.0), (0.01, 0.2, 0.8), (10.0, -0.1, 0.1)])
def test_the_ceiling_follows_the_noise(noise, low, high):
    found = evaluation.noise_ceiling(made_up_runs(noise), draws=60)
    mean = found.mean["mean"]
    assert low - 1e-12 <= mean["reliability, halves"] <= high + 1e-12
    # Two draws with replacement may choose the same run, two halves cannot.
    assert mean["reliability, resamples"] >= mean["reliability, halves"] - 1e-12
    assert ((found.mean["low"] <= mean) & (mean <= found.mean["high"])).all()
    assert list(found.targets.columns) == list(found.mean.index) and len(found.targets) == 11
    assert found.draws == 60 and 20 <= found.runs <= 24
    if not noise:
        means = evaluation.weighted_tau("source_datasets")[SEVEN].mean()
        grids = evaluation.partial_grids(made_up_runs(0.0), draws=20)[SEVEN]
        np.testing.assert_allclose(grids, np.tile(means, (20, 1)), atol=1e-12)


def test_a_perfect_score_exceeds_the_reliability_and_lies_between_the_attainable_values(table):
    mean = evaluation.noise_ceiling(made_up_runs(0.01), draws=60).mean["mean"]
    truth = table[["source", "target", "auc"]].rename(columns={"auc": "perfect"})
    reached = []
    for seed in range(8):  # the run of lowest loss of fresh grids, against the AUCs they were made from
        runs = made_up_runs(0.01, seed=seed + 1).query("status == 'FINISHED'")
        chosen = runs.loc[runs.groupby(["source", "target"])["val_loss"].idxmin()]
        both = truth.merge(chosen[["source", "target", "test_auc"]].rename(columns={"test_auc": "auc"}))
        reached.append(evaluation.weighted_tau(both)["perfect"].mean())
    order = [mean["reliability, halves"], mean["attainable, halves"], np.mean(reached)]
    assert [*order, mean["attainable, resamples"]] == sorted([*order, mean["attainable, resamples"]])


def test_the_expected_truth_is_the_mean_over_bootstrap_draws():
    loss, auc = np.array([[3, 1, np.nan, 2], [1, 2, 3, 4]]), np.array([[0, 1, np.nan, 3], [4, 5, 6, 7]])
    grid = ceiling.Grid(["a", "b"], loss, auc)
    rng = np.random.default_rng(0)
    drawn = rng.integers(0, 4, (20000, 2, 4))
    drawn[:, 0] = np.array([0, 1, 3])[rng.integers(0, 3, (20000, 4))]  # three runs of the first have finished
    by_hand = np.stack([grid.by_loss(drawn[:, :1, :3])[:, 0, 0], grid.by_loss(drawn)[:, 1, 0]]).mean(axis=1)
    whole = ceiling.expected(grid.by_loss(np.arange(4)[None, None]))
    np.testing.assert_allclose(whole[0], by_hand, atol=0.03)


def test_the_whole_grid_gives_the_truth_and_only_finished_runs_count():
    runs = made_up_runs(0.01)
    unfinished = runs.assign(status="RUNNING", val_loss=-1.0, test_auc=0.0, lr=9.0)
    grid = ceiling.grids(pd.concat([runs, unfinished]), "source_datasets")["octmnist"]
    everything = np.arange(grid.loss.shape[1])[None, None, :]
    done = runs[(runs["target"] == "octmnist") & (runs["status"] == "FINISHED")]
    best = done.loc[done.groupby("source")["val_loss"].idxmin()].set_index("source")["test_auc"]
    np.testing.assert_array_equal(grid.by_loss(everything)[0, :, 0], best[grid.sources])
    assert np.isnan(ceiling.expected(np.full((3, 2, 5), np.nan))).all()
    assert evaluation.noise_ceiling(made_up_runs(0.0, settings=2), draws=5).runs == 2


@pytest.mark.parametrize(
    ("runs", "setting", "says"),
    [
        (made_up_runs(0).drop(columns="momentum"), "source_datasets", r"lacks the column\(s\) momentum"),
        (made_up_runs(0), "architectures", "no finished run of architectures"),
        (made_up_runs(0), "both", "no published setting 'both'"),
    ],
)
def test_a_table_that_holds_no_runs_is_refused(runs, setting, says):
    with pytest.raises(InputError, match=says):
        evaluation.noise_ceiling(runs, setting=setting)


@pytest.mark.real
def test_the_published_truth_does_not_reproduce_itself_exactly(real_data):
    try:
        runs = published.runs(download=False)
    except EnvironmentFailure as error:
        pytest.skip(str(error))
    found = evaluation.noise_ceiling(runs)
    best = evaluation.weighted_tau("source_datasets")["proposed"].mean()
    assert best < found.mean["mean"].min()
    assert list(found.mean["mean"]) == pytest.approx([0.604, 0.771, 0.673, 0.823], abs=0.01)


# --- the benchmark: what it takes --------------------------------------------------------------------------
def test_every_form_of_a_metric_gives_the_same(few, tmp_path):
    path = tmp_path / "mine.csv"
    few.to_csv(path, index=False)
    expected = quick(few).taus
    forms = [few.set_index(keys)["mine"] for keys in (["source", "target"], ["target", "source"])]
    for form in (*forms, path, str(path), few.iloc[::-1]):
        pd.testing.assert_frame_equal(quick(form).taus, expected)
    assert "0" in quick(few.rename(columns={"mine": 0})).taus


def test_the_authors_columns_come_first_and_published_values_do_not_change(mine, table):
    given = mine.assign(other=np.exp(mine["mine"]), leep=table["leep"], remark="x", auc=0.0)
    found = quick(given)
    assert list(found.taus.columns[:3]) == ["mine", "other", "leep (given)"]
    np.testing.assert_allclose(found.taus["mine"], found.taus["other"])
    pd.testing.assert_series_equal(found.taus["leep (given)"], found.taus["leep"], check_names=False)
    exact = evaluation.weighted_tau("source_datasets")[SEVEN]
    pd.testing.assert_frame_equal(found.taus[SEVEN], exact, check_like=True)
    assert found.setting == "source_datasets" and len(found.table) == len(table)
    assert "mine" not in quick(given, name="other").taus
    with pytest.raises(InputError, match=r"no score 'othr'\. Did you mean 'other'\?"):
        quick(given, name="othr")


@pytest.mark.parametrize("bad", [np.nan, -np.inf, "absent"])
def test_pairs_without_a_score_are_counted_named_and_left_out_for_all(mine, table, bad):
    value = mine["mine"].where(mine.index > 1, bad)
    found = quick(mine[mine.index > 1] if bad == "absent" else mine.assign(mine=value))
    assert len(found.table) == len(table) - 2
    sentence = next(text for text in found.left_out if "without a finite given score" in text)
    assert sentence.startswith("2 of 154 pairs")
    assert all(f"{row.source} on {row.target}" in sentence for row in table.iloc[:2].itertuples())
    target = table["target"].iloc[0]
    kept = table.iloc[2:][table["target"].iloc[2:] == target]
    assert found.taus.loc[target, "leep"] == pytest.approx(evaluation.tau(kept["leep"], kept["auc"]))


def test_what_cannot_be_compared_is_reported(few):
    one = few[(few["target"] != "octmnist") | few["source"].isin(["imagenet", "medmnist"])]
    found = quick(one)
    assert "octmnist" not in found.taus.index
    assert any("fewer than 3 sources left: octmnist" in text for text in found.left_out)
    with pytest.raises(InputError, match="no target with scores for at least 3 sources"):
        quick(one[one["target"] == "octmnist"])
    with pytest.raises(InputError, match=r"more than one row for source 'imagenet', target 'bloodmnist'"):
        quick(pd.concat([few, few[few["source"] == "imagenet"].iloc[:1]]))
    extra = pd.DataFrame({"source": ["octmnist", "imagenet"], "target": ["octmnist", "chestmnist"]})
    constant = quick(pd.concat([few, extra]).assign(mine=1.0))
    assert constant.taus["mine"].isna().all() and np.isfinite(constant.summary.loc["mine", "regret"])
    for sentence in ("2 given pair(s) without a comparison", "τ_w of mine: the same for every source"):
        assert any(text.startswith(sentence) for text in constant.left_out)
    ranks = constant.friedman.ranks
    assert ranks["mine"].eq(ranks.max(axis=1)).all()  # undefined ranks last


ONE = pd.Series([1.0], pd.MultiIndex.from_tuples([("imagenet", "octmnist")]))


@pytest.mark.parametrize(
    ("metric", "options", "says"),
    [
        ("mine", {"setting": "source_dataset"}, r"no setting 'source_dataset'.*mean 'source_datasets'\?"),
        (lambda *_: 0.0, {}, "a function needs features, and there are none for the published pairs"),
        (3.0, {}, "float is no metric"),
        (ONE.droplevel(0), {}, "Series is no metric: give a table"),
        (pd.DataFrame({"source": ["imagenet"], "x": [1.0]}), {}, r"lacks the column\(s\) target"),
        (pd.DataFrame({"source": ["x"], "target": ["y"], "x": ["high"]}), {}, "no numeric column"),
        (ONE.rename({"imagenet": "imagnet"}), {}, r"no source 'imagnet'.*Did you mean 'imagenet'\?"),
        (ONE.rename({"octmnist": "octmnst"}), {}, r"no target 'octmnst'.*Did you mean 'octmnist'\?"),
        (ONE.rename({"octmnist": "scratch"}), {}, "no target 'scratch'"),
        (ONE, {"runs": "automatic"}, "'auto', a table of runs or None"),
        (ONE * np.nan, {}, "no finite score for any pair"),
        ("no-such-file.csv", {}, "no-such-file.csv cannot be read as a CSV table"),
    ],
)
def test_what_is_no_metric_is_refused_in_one_line(metric, options, says):
    with pytest.raises(InputError, match=says) as caught:
        evaluation.benchmark(metric, draws=10, **options)
    assert "\n" not in str(caught.value)


# --- the benchmark: what it says ---------------------------------------------------------------------------
@pytest.fixture(scope="module")
def bench(mine) -> evaluation.Benchmark:
    return quick(mine, runs=made_up_runs(0.01))


def test_the_summary_has_every_row_once(bench, table):
    summary = bench.summary
    assert summary.index.is_unique and summary["mean"].dropna().is_monotonic_decreasing
    kinds = summary.groupby("kind").size().to_dict()
    assert kinds == {"given": 1, "published": 7, "term": 2, "baseline": 4, "reliability": 2, "ceiling": 2}
    first = summary.loc["always_imagenet"]
    assert np.isnan(first["mean"]) and first["regret"] == pytest.approx(0.0052, abs=5e-5)
    assert summary.loc["proposed", "regret"] == first["regret"]
    less = summary.loc["mine", "mean"] - summary.loc["proposed", "mean"]
    assert summary.loc["mine", "less_proposed"] == pytest.approx(less)
    kendall = [kendalltau(block["nleep"], block["auc"]).statistic for _, block in table.groupby("target")]
    assert summary.loc["nleep", "kendall"] == pytest.approx(np.mean(kendall))
    # The tests compare the given score with the seven.
    ranks = bench.friedman.ranks
    assert list(ranks.columns) == ["mine", *[c for c in bench.taus if c in SEVEN]]
    assert (ranks.sum(axis=1) == 36).all()  # 1 + … + 8
    assert bench.friedman.p == pytest.approx(evaluation.friedman(bench.taus, list(ranks.columns)).p)
    p = evaluation.nemenyi(ranks)
    assert list(p.index) == list(p.columns) == list(ranks.columns)


def test_it_shows_itself_as_text_and_as_a_page(few, bench):
    text, page = str(bench), bench._repr_html_()
    for name in ("mine", "proposed", "always_imagenet", "halves"):
        assert name in text and name in page
    assert "Left out" not in text and repr(bench) == text
    hostile = quick(few.rename(columns={"mine": "<b>&"}))
    assert "Left out: 112 of 154 pairs" in str(hostile) and "<li>112 of 154 pairs" in hostile._repr_html_()
    assert "<b>" not in hostile._repr_html_() and "&lt;b&gt;&amp;" in hostile._repr_html_()


def test_what_is_missing_or_does_not_apply_is_left_out_and_that_is_said(few, monkeypatch, no_waiting):
    monkeypatch.setattr(sys.modules["companion.published.runs"], "ADDRESS", "http://127.0.0.1:9")
    found = evaluation.benchmark(few, draws=10)
    assert found.ceiling is None and "ceiling" not in set(found.summary["kind"])
    assert any(text.startswith("the noise ceiling, since its runs are missing") for text in found.left_out)
    # Among architectures a number of training images does not apply.
    given = published.table("architectures")[["source", "target", "logme"]].rename(columns={"logme": "mine"})
    found = quick(given, setting="architectures")
    assert list(found.summary.query("kind == 'baseline'").index) == ["mean_rank_elsewhere"]
    assert any("number of training images" in text for text in found.left_out)


# --- a function, on pairs with features --------------------------------------------------------------------
@pytest.fixture
def replication(monkeypatch):
    """Three small random sources and few images of two synthetic targets in place of the stored replication."""
    sources = [models.scratch("shufflenet_v2_x0_5", seed=seed, name=f"scratch {seed}") for seed in range(3)]
    names = ("textures", "lesions")
    drawn = {name: companion.load_dataset(f"procedural:{name}").draw(8, seed=0) for name in names}
    rng = np.random.default_rng(0)
    rows = pd.DataFrame([{"source": s.name, "target": target} for target in drawn for s in sources])
    rows = rows.assign(auc=rng.random(6), training_images=[100, 200, 300] * 2)
    rows[["nca", "gradient_ratio", "leep"]] = rng.random((len(rows), 3))
    rows.loc[0, "leep"], rows["seconds"] = np.nan, 1.0
    rows.attrs["runs"] = {"planned": 7, "stored": 6}

    def pairs(targets, progress):
        for target, (images, labels) in drawn.items():
            assert target in targets
            given = {"target": target, "images": images, "labels": labels}
            yield from (SimpleNamespace(source=source.name, model=source, **given) for source in sources)

    monkeypatch.setattr("companion.replication.table", rows.copy)
    monkeypatch.setattr("companion.replication.pairs", pairs)


def test_a_function_is_called_once_a_pair_with_what_it_is_promised(replication):
    seen = []

    def spread(features, logits, labels, model):
        seen.append((features.shape, logits, labels.shape, model.name))
        assert features.dtype == np.float32
        return features.std()

    found = quick(spread, setting="replication")
    assert len(seen) == 6
    assert {shape[1] for shape, *_ in seen} == {1024} and all(logits is None for _, logits, *_ in seen)
    simple = ["training_set_size", "mean_rank_elsewhere"]
    assert list(found.taus.columns) == ["spread", "nca", "gradient_ratio", "leep", "proposed", *simple]
    for start in ("from the τ_w of leep:", "1 of 7 fine-tunings, not yet run", "the noise ceiling: it is"):
        assert any(text.startswith(start) for text in found.left_out)
    assert list(found.friedman.ranks.columns) == ["spread", "leep", "proposed"]


@pytest.mark.parametrize(
    ("metric", "says"),
    [
        (lambda labels: 1 / 0, "failed for source 'scratch 0', target 'textures': ZeroDivisionError"),
        (lambda labels: "high", "ValueError: could not convert .* to float: 'high'"),
        (lambda y: 0.5, "argument: 'y'; a function can have features, logits, labels, images, model"),
        (max, "no signature found"),
    ],
)
def test_a_function_that_fails_names_the_pair(replication, metric, says):
    with pytest.raises(InputError, match=says):
        quick(metric, setting="replication", name="mine")


@pytest.mark.parametrize(
    "metric",
    [
        scores.logme,
        lambda images, model: images.mean() + len(model.name),
        lambda labels, *, features, k=2, **more: 0.5,
        pd.DataFrame({"source": [f"scratch {k}" for k in range(3)], "target": "lesions", "mine": [1, 2, 3]}),
    ],
)
def test_a_function_is_given_what_it_asks_for_by_name(replication, metric):
    assert quick(metric, setting="replication", name="mine").table["mine"].notna().all()


def test_the_examples_of_the_page_run(replication, few, tmp_path, monkeypatch):
    def gone():
        raise EnvironmentFailure("no runs")

    monkeypatch.setattr(published, "runs", gone)
    monkeypatch.chdir(tmp_path)
    text = (Path(__file__).parents[1] / "book" / "extending.md").read_text(encoding="utf-8")
    blocks = re.findall(r"```python\n(.*?)```", text, flags=re.S)
    architectures = published.table("architectures")[["source", "target", "nca"]]
    names: dict = {}
    for block, table in zip(blocks, (few, architectures, architectures), strict=True):
        table.to_csv("my_scores.csv", index=False)
        exec(block, names)
    assert names["found"].taus["between"].notna().all()
