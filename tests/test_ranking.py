"""Ranking: candidate sets, when an order is worth nothing, and what stands beside it."""

from __future__ import annotations

import json
import re
import shutil
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from safetensors.torch import save_file
from torch import nn

import image_files
from checkpoints import SMALL, checkpoints, named
from companion import datasets, evaluation, models, published, rank, ranking, score, scores
from companion import sources as source_models
from companion.errors import InputError
from companion.evaluation import hypotheses
from companion.ranking import evidence, report, verification
from companion.ranking.sets import FEATURE_SCORES, CandidateSet, grouped
from companion.ranking.stability import halves, lead, spread, summary, values_in_halves
from companion.scores import REGISTRY
from companion.scores.from_images import score_images
from companion.training import SourceProtocol, train_source

RANKING = sys.modules["companion.ranking.ranking"]
TINY = SourceProtocol("tiny", epochs=1, images_per_epoch=64, batch_size=32)
QUICK_SCORES = ("nca", "gradient_ratio", "gradient_ratio_scale_invariant", "leep")


def stub(architecture: str, pretraining: str) -> models.SourceModel:
    """Return a source that is only grouped, never run."""
    return models.SourceModel(f"{architecture}/{pretraining}", nn.Identity(), None, architecture, pretraining)


def terms(nca, gradient_ratio) -> pd.DataFrame:
    names = [f"s{number}" for number in range(len(nca))]
    return pd.DataFrame({"source": names, "nca": nca, "gradient_ratio": gradient_ratio})


@pytest.fixture(scope="module")
def sources(target) -> list[models.SourceModel]:
    """Four random networks, and one trained on the target itself."""
    found = [models.scratch(SMALL, seed=seed, name=f"scratch {seed}") for seed in range(4)]
    return [*found, train_source(target, TINY, architecture=SMALL)]


# --- pools -------------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("given", "sets"),
    [
        ("ax ay az aw", [("source_datasets", [0, 1, 2, 3])]),
        ("ax bx cx dx", [("architectures", [0, 1, 2, 3])]),
        # The one in both is ranked in both; nothing is merged.
        ("ax ay az aw bx cx dx", [("source_datasets", [0, 1, 2, 3]), ("architectures", [0, 4, 5, 6])]),
        # Too few of one kind are compared by their features alone, all together.
        ("ax ay az bx cw", [("mixed", [0, 1, 2, 3, 4])]),
        ("ax ay az aw bv", [("source_datasets", [0, 1, 2, 3]), ("mixed", [4])]),
    ],
)
def test_candidate_sets(given, sets):
    found = grouped([stub(*names) for names in given.split()])
    assert [(kind, members) for kind, _, members in found] == sets
    assert len({title for _, title, _ in found}) == len(sets)


def test_other_patch_and_input_sizes_are_of_one_family():
    names = ("vit_small_patch16_224", "vit_small_patch14_dinov2", "vit_small_patch16_384", "vit_small")
    (found,) = grouped([stub(name, name) for name in names])
    assert found[:2] == ("source_datasets", "vit_small, different pre-training")


# --- the combination ---------------------------------------------------------------------------------------
def test_min_max_by_hand():
    assert list(scores.min_max(np.array([1.0, 3.0, 2.0]))) == [0, 1, 0.5]
    assert list(scores.min_max(np.array([1.0, 3.0, 2.0]), invert=True)) == [1, 0, 0.5]
    found = scores.min_max(np.array([1.0, np.nan, 3.0]))
    assert found[0] == 0 and np.isnan(found[1]) and found[2] == 1
    assert np.isnan(scores.min_max(np.array([2.0, 2.0]))).all()
    assert scores.min_max(np.array([])).shape == (0,)


def test_both_terms_are_inverted_among_architectures():
    given = terms([0.1, 0.4, 0.6, 0.9], [1.0, 3.0, 2.0, 4.0])
    plain, reason = ranking.order(given, kind="source_datasets")
    assert "A combined score of 0" in reason
    assert (plain["source"].iloc[0], plain["proposed"].iloc[0]) == ("s3", 1)
    inverted, reason = ranking.order(given, kind="architectures")
    assert inverted["source"].iloc[0] == "s0" and inverted["proposed"].iloc[0] == 1
    assert "means the highest here" in reason
    assert list(plain["rank"]) == [1, 2, 3, 4]
    assert plain["gap"].iloc[:-1].to_numpy() == pytest.approx(-np.diff(plain["proposed"]))
    assert np.isnan(plain["gap"].iloc[-1])
    assert set(plain["order"]) == {"determined"}
    assert list(given.columns) == ["source", "nca", "gradient_ratio"]  # what was given is not changed


@pytest.mark.parametrize(
    ("nca", "gradient_ratio", "reason"),
    [
        ([0.1, 0.5, 0.9], [1.0, 2.0, 3.0], "it needs 4 candidates of one architecture"),
        ([0.5, 0.5, 0.5, 0.5], [1.0, 2.0, 3.0, 4.0], "nca is the same for every source"),
        ([0.1, 0.2, 0.3, 0.4], [2.0, 2.0, 2.0, 2.0], "gradient_ratio is the same for every source"),
        ([0.1, 0.2, np.nan, 0.4], [1.0, 2.0, 3.0, 4.0], "nca is not defined for every source"),
        ([0.0, 0.0, 1.0, 1.0], [1.0, 1.0, 0.0, 0.0], "every source is last in one of the two terms"),
        ([0.1, 0.7, 0.7, 0.9], [1.0, 2.0, 2.0, 3.0], "s1, s2 have the same combined score"),
    ],
    ids=["under four", "constant nca", "constant ratio", "missing", "all zero", "tied"],
)
def test_an_undetermined_order_shows_the_raw_terms(nca, gradient_ratio, reason):
    found, said = ranking.order(terms(nca, gradient_ratio), kind="source_datasets")
    assert re.search(reason, said)
    assert found["rank"].isna().all() and set(found["order"]) == {"undetermined"}
    back = found.sort_values("source")
    np.testing.assert_array_equal(back["nca"], nca)
    np.testing.assert_array_equal(back["gradient_ratio"], gradient_ratio)


def test_two_at_zero_are_the_rule_and_no_tie_of_the_first():
    found, said = ranking.order(terms([0.1, 0.5, 0.7, 0.9], [3.0, 1.0, 2.0, 4.0]), kind="source_datasets")
    assert list(found["rank"]) == [1, 2, 3, 3]
    assert list(found["order"]) == ["determined", "determined", "undetermined", "undetermined"]
    assert said.endswith("the last are tied")


def test_the_order_goes_by_the_scale_invariant_ratio_where_there_is_one():
    given = terms([0.1, 0.4, 0.6, 0.9], [1.0, 3.0, 2.0, 4.0])
    given["gradient_ratio_scale_invariant"] = [1.0, 2.0, 9.0, 3.0]
    found, _ = ranking.order(given, kind="source_datasets")
    assert found["source"].iloc[0] == "s2" and found["combined"].iloc[0] == pytest.approx(5 / 8)
    assert found.set_index("source").loc["s3", "proposed"] == 1
    inverted, _ = ranking.order(found, kind="architectures")  # of which the replication has one
    assert list(inverted["combined"]) == list(inverted["proposed"])
    assert found["gap"].iloc[0] == pytest.approx(found["combined"].iloc[0] - found["combined"].iloc[1])


def test_few_are_ordered_by_their_features():
    scores = {"linear_probe": [0.5, 0.9], "knn": [0.4, 0.8], "nca": [0.9, 0.5], "logme": [1.0, 2.0]}
    given = pd.DataFrame({"source": ["a", "b"], "gradient_ratio": 1.0} | scores)
    table, reason = ranking.order(given, kind="mixed")
    one = CandidateSet("mixed", "few", table, reason)
    assert one.advised == ["b", "a"] and not one.ordered and table["proposed"].isna().all()
    assert list(table["feature_rank"]) == [1.25, 1.75]
    assert set(scores) == set(FEATURE_SCORES)


def test_the_recommendation_rests_on_what_the_replication_supports():
    """The form that the order goes by ranks better than the paper's, and so does its mean with ranks from elsewhere."""
    words = evaluation.statements().set_index("quantity")["word"]
    assert words[f"{hypotheses.RANKS}, scale-invariant minus proposed"] == "supported"
    assert words[f"{hypotheses.PRODUCT}, scale-invariant minus proposed"] == "supported"
    assert (evidence.replicated(True, "scans").loc["paper", ["gain", "low"]] > 0).all()
    assert evidence.replicated(False, "scans").loc["paper", "gain"] > 0
    assert evidence.replicated(True, "busi")["targets"].iloc[0] == 6  # a target is no evidence about itself


@pytest.mark.parametrize("setting", published.SETTINGS)
def test_the_combination_is_the_published_one(setting):
    released = published.table(setting)
    taus = evaluation.weighted_tau(setting)["proposed"]
    for target, block in released[released["target"].isin(taus.index)].groupby("target"):
        if target == "dermamnist" and setting == "source_datasets":
            continue  # there the published min-max takes in the target's own cell: see test_published
        ranked, _ = ranking.order(block[block["source"] != target], kind=setting)
        assert evaluation.tau(ranked["proposed"], ranked["auc"]) == pytest.approx(taus[target], abs=1e-12)


@pytest.mark.parametrize(("variant", "sign"), [("corrected", -1), ("published", 1)])
def test_ncti_is_put_together_within_the_pool(variant, sign):
    terms = np.array([[1.0, 5.0, 0.0], [2.0, 5.5, 2.0], [3.0, 6.0, 1.0]])
    found = scores.combine_ncti(terms, variant=variant)
    assert found == pytest.approx([0, 1 + sign * 1, 2 + sign * 0.5])
    alone = scores.combine_ncti(terms[:1], variant=variant)
    assert np.isnan(alone).all()


def test_seed_and_variant_reach_the_draw_the_sources_and_the_scores(target, sources):
    names = ("nca", "gradient_ratio", "logme")
    how = {"per_class": 20, "scores": names, "variant": "published", "seed": 7}
    found = rank(target, ["scratch", sources[0]], architecture=SMALL, **how)
    assert (found.drawn == target.drawn(20, seed=7)).all()
    table = found.table.set_index("source")
    assert dict(score(models.scratch(SMALL, seed=7), target, **how)) == dict(table.loc["scratch", [*names]])
    known = dict(table.loc[sources[0].name, [*names]])
    assert dict(score(sources[0], target, **how)) == known
    for other in ({"seed": 8}, {"variant": "corrected"}):
        assert dict(score(sources[0], target, **how | other)) != known


# --- one source on one target ------------------------------------------------------------------------------
def test_scores_hold_what_was_asked_and_why_some_is_missing(target, sources):
    card = score(sources[0], target, scores=("nca", "leep", "gradient_ratio", "ncti"), per_class=20)
    assert list(card) == ["nca", "leep", "gradient_ratio"] and len(card.ncti_terms) == 3
    assert 0 <= card["nca"] <= 1 and card["gradient_ratio"] > 0
    assert np.isnan(card["leep"]) and card.reasons["leep"]
    assert card.features.shape == (40, 1024) and card.labels.shape == (40,)
    record = card.provenance
    assert record["data"] == {target.name: target.content_hash}
    assert (record["images"], record["variant"], record["source"]) == (40, "corrected", "scratch 0")
    card = score(sources[-1], target, scores=("leep",), per_class=20)  # it has a head
    assert card["leep"] <= 0 and not card.reasons
    flat = models.SourceModel("flat", nn.Sequential(nn.Flatten(), nn.Linear(2352, 8)), None, "flat", "x")
    card = score(flat, target, per_class=20, scores=("gradient_ratio",))
    assert np.isnan(card["gradient_ratio"]) and "no two convolutions" in card.reasons["gradient_ratio"]


# --- a whole ranking ---------------------------------------------------------------------------------------
def test_a_ranking_is_ordered_and_complete_and_leaves_out_what_has_seen_the_target(target, sources):
    five = rank(target, sources, per_class=20, scores=QUICK_SCORES)
    (one,) = five.sets
    assert one.kind == "source_datasets" and list(five.left_out) == [sources[-1].name]
    table = five.table
    assert set(table["candidate_set"]) == {f"{SMALL}, different pre-training"}
    assert sorted(table["source"]) == [f"scratch {seed}" for seed in range(4)]
    assert list(table["combined"]) == sorted(table["combined"], reverse=True)
    assert table["rank"].iloc[0] == 1 and table["gap"].iloc[0] > 0
    assert list(table.columns[:5]) == ["candidate_set", "rank", "source", "combined", "gap"]
    assert table[list(FEATURE_SCORES)].notna().all(axis=None)
    assert table["note"].str.contains("leep").any()  # random networks have no source classes
    assert five.synthetic and five.provenance["data"]
    torch.manual_seed(99)  # the same seed gives the same numbers
    again = rank(target, sources, per_class=20, scores=QUICK_SCORES)
    pd.testing.assert_frame_equal(again.table, table, check_exact=True)


def test_a_source_trained_on_the_same_files_is_known_at_any_size_under_any_name_and_in_a_pool(tmp_path):
    folder = image_files.folder(tmp_path / "scans", {"a": 20, "b": 20})
    copied = shutil.copytree(folder, tmp_path / "copy of scans")
    learnt, cells = (datasets.load_dataset(str(name), size=28) for name in (copied, "procedural:cells"))
    sources = [models.scratch(SMALL, seed=seed, name=f"scratch {seed}") for seed in range(2)]
    for of in (learnt, datasets.pool([learnt, cells]), cells):
        sources.append(train_source(of, TINY, architecture=SMALL))
    found = rank(str(folder), sources, size=64, per_class=10, scores=QUICK_SCORES)
    assert set(found.left_out) == {source.name for source in sources[2:4]}
    namesake = image_files.folder(tmp_path / "another" / "scans", {"c": 20, "d": 20})
    assert datasets.load_dataset(namesake).lineage.isdisjoint(found.dataset.lineage)
    with pytest.raises(InputError, match="only 1 of 2 sources did not learn from scans itself"):
        rank(str(folder), sources[:3:2], size=28, per_class=10, scores=())


def test_sources_normalised_otherwise_or_without_batch_norm_are_warned_of(target, sources):
    def warnings(*models):
        (one,) = rank(target, models, per_class=20, scores=QUICK_SCORES).sets
        return one.warnings

    assert warnings(*sources[:2]) == ()
    other = replace(sources[1], normalisation=models.IMAGENET_NORMALISATION)
    (said,) = warnings(sources[0], sources[2], other)
    assert f"normalised otherwise ({other.name})" in said
    bare = nn.Sequential(nn.Conv2d(3, 4, 3), nn.Conv2d(4, 4, 3), nn.AdaptiveAvgPool2d(1))
    (said,) = warnings(sources[0], sources[2], models.SourceModel("bare", bare, None, SMALL, "nothing else"))
    assert "without batch norm beside networks with it (bare)" in said


def test_two_are_ordered_by_their_features(target, monkeypatch):
    def trained(source, *, progress=lambda *_: None, **_options):
        progress(1.0, "epoch 8 of 8")
        return source

    monkeypatch.setattr("companion.ranking.ranking.load_source", trained)
    pair = {name: models.scratch(name, seed=0) for name in (SMALL, "mobilenet_v3_small")}
    steps: list[float] = []
    found = rank(target, pair, per_class=10, scores=(), progress=lambda fraction, _: steps.append(fraction))
    assert steps == sorted(steps) and (steps[0], steps[-1]) == (0, 1)
    (one,) = found.sets
    assert one.kind == "mixed" and not one.ordered and found.best is one
    assert set(found.first(5)) == set(pair)  # as the mapping calls them
    assert one.table[["nca", "gradient_ratio", "feature_rank"]].notna().all(axis=None)
    assert found.recommendation[0].startswith("Fine-tune {} first, then {}: ".format(*found.first(2)))
    assert "No combined score: it needs 4 candidates" in str(
        found
    ) and f"; here are 1 of {SMALL}, 1 of" in str(found)
    assert len(ranking.stability(found, 5).table) == 2
    several = {split: np.eye(2, dtype=int)[labels] for split, labels in target.labels.items()}
    with pytest.raises(InputError, match="several labels an image"):  # before any source is loaded
        rank(replace(target, labels=several, task="multi-label"), ["imagenet", "radimagenet"])


def test_networks_are_taken_as_they_are_and_transformers_with_a_remark(target):
    found = rank(target, [models.build(SMALL, seed=seed) for seed in (0, 1)], per_class=10, scores=())
    assert sorted(found.table["source"]) == ["ShuffleNetV2 1", "ShuffleNetV2 2"]
    network = models.build(SMALL, seed=0)
    assert score(network, target, per_class=10, scores=("gradient_ratio",))["gradient_ratio"] > 0
    timm = models.timm()
    network = timm.create_model("vit_tiny_patch16_224", img_size=28, patch_size=7, depth=2, num_classes=0)
    model = source_models.from_timm(network.eval(), name="timm:vit", architecture="vit_tiny_patch16_224")
    scratch = models.scratch(SMALL, name="scratch")
    found = rank(target, [model, scratch], per_class=10, scores=("leep",))
    row = found.table.set_index("source").loc["timm:vit"]
    assert row["gradient_ratio_scale_invariant"] > 0 and np.isnan(row["leep"])
    (said,) = [line for line in found.remarks["timm:vit"] if "an extension" in line]
    assert "patch_embed.proj and blocks.0.attn.qkv" in said
    assert not any("an extension" in line for line in found.remarks["scratch"])


# --- candidates --------------------------------------------------------------------------------------------
@pytest.fixture(scope="module")
def four(tmp_path_factory) -> list[str]:
    """Four checkpoints of one architecture; the first says that it is ImageNet's."""
    return checkpoints(tmp_path_factory.mktemp("weights"), 4, "imagenet")


@pytest.fixture(scope="module")
def ranked(target, four) -> ranking.Ranking:
    return rank(target, four, per_class=20, scores=("nca", "gradient_ratio", "logme"))


@pytest.fixture(scope="module")
def repeated(ranked) -> ranking.Stability:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys.modules["companion.ranking.stability"], "score_images", _score_drawn)
        return ranking.stability(ranked, 5)


def _score_drawn(model, images, labels, **how):
    """The images of a half are of those that were scored, each with its own label."""
    known = datasets.load_dataset("procedural:lesions")
    drawn = {(image.tobytes(), label) for image, label in zip(*known.draw(20), strict=True)}
    assert {(image.tobytes(), label) for image, label in zip(images, labels, strict=True)} < drawn
    return score_images(model, images, labels, **how)


def test_sets_on_this_machine_are_trained_on_until_there_is_an_order(data, own_cache, monkeypatch, tmp_path):
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    (data / "breastmnist.npz").write_bytes(b"")
    chosen, left_out = ranking.default_sources("scans")
    assert chosen == ["train:breastmnist", "scratch"]
    assert {"imagenet", "torchvision:vgg11", "pathmnist", "radimagenet"} <= set(left_out)
    assert all(left_out.values()) and "(45 MB)" in left_out["imagenet"]
    assert not {"chestmnist", "medmnist"} & set(left_out)
    for flag in ("retinamnist", "pneumoniamnist", "bloodmnist"):
        (data / f"{flag}.npz").write_bytes(b"")
    chosen, left_out = ranking.default_sources("scans")
    assert chosen == ["train:breastmnist", "train:retinamnist", "train:pneumoniamnist", "scratch"]
    assert "not trained yet" in left_out["train:bloodmnist"]
    assert "train:retinamnist" not in ranking.default_sources("retinamnist")[0]


def test_what_is_here_is_a_candidate(data, own_cache, monkeypatch, tmp_path, four):
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    weights = data / "weights"
    source_models.save(models.scratch(SMALL), weights / "own.safetensors")
    save_file(models.build(SMALL).state_dict(), weights / "unknown.safetensors")
    by_hand = ("radimagenet.pth", "medmnist_without_breastmnist.safetensors", "cut.safetensors")
    imagenet = [source_models.imagenet_file(name)[1] for name in ("resnet18", "vgg11")]
    for path in (*imagenet, source_models.medmnist_file("pathmnist"), *(weights / name for name in by_hand)):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"weights")
    chosen, left_out = ranking.default_sources("breastmnist")
    released = ["imagenet", "torchvision:vgg11", "pathmnist", "medmnist", "radimagenet"]
    assert chosen == [*released, str(weights / "own.safetensors"), "scratch"]
    assert "torchvision:googlenet" in left_out
    chosen, left_out = ranking.default_sources("breastmnist", architecture="timm:resnet18")
    assert "torchvision:vgg11" in chosen and "imagenet" not in {*chosen, *left_out}


# --- agreement ---------------------------------------------------------------------------------------------
def _made_up(kind: str = "source_datasets", count: int = 4, **columns) -> CandidateSet:
    table = pd.DataFrame(
        {
            "rank": [1, 2, 3, 4],
            "source": list("abcd"),
            "proposed": [1.0, 0.6, 0.3, 0.0],
            "combined": np.nan,
            "feature_rank": [1.0, 2.0, 3.0, 4.0],
            "nca": [0.9, 0.8, 0.7, 0.6],
            "gradient_ratio": [4.0, 3.0, 2.0, 1.0],
            "logme": [1.0, 2.0, 3.0, 4.0],
            "leep": [np.nan, 1.0, np.nan, np.nan],
            "parc": 0.5,
        }
    )
    return CandidateSet(kind, "made up", table.assign(**columns).iloc[:count])


def test_agreement_by_hand():
    found = ranking.agreement(_made_up()).set_index("method")
    assert dict(found["first"]) == {"proposed": "a", "nca": "a", "gradient_ratio": "a", "logme": "d"}
    assert found.loc["proposed", "tau"] == 0 and found.loc["logme", "tau"] == -1
    three = ranking.agreement(_made_up(count=3)).set_index("method")
    assert three.loc["nca", "tau"] == -1 and len(three) == 4
    assert ranking.agreement(_made_up(count=2))["tau"].isna().all()
    assert "proposed" not in set(ranking.agreement(_made_up(proposed=np.nan))["method"])


def test_methods_are_inverted_among_architectures_as_where_they_are_judged():
    seven = [name for name in published.METRICS if name in REGISTRY]
    # By each of them the last is best, before inversion.
    made = _made_up("architectures", **dict.fromkeys(seven, np.arange(4.0)))
    first = ranking.agreement(made).set_index("method")["first"]
    plain, inverted = (evaluation.published_pairs("architectures", inverted=given) for given in (False, True))
    for name in seven:
        differs = not np.array_equal(plain[name], inverted[name], equal_nan=True)
        assert first[name] == ("a" if differs else "d"), name
    assert (first["nca"], first["gradient_ratio"]) == ("d", "d") and first["logme"] == "d"


# --- repeats -----------------------------------------------------------------------------------------------
def test_repeats_count(repeated, ranked):
    table = repeated.table
    assert list(table["source"]) == list(ranked.table["source"])
    assert table["first"].sum() >= 1 and table["first"].between(0, 1).all()
    assert (table["highest"] <= table["lowest"]).all() and table["highest"].min() == 1
    led = table.iloc[:-1]
    assert (led["gap_low"] <= led["gap"]).all() and (led["gap"] <= led["gap_high"]).all()
    assert table[["gap_low", "gap_high"]].iloc[-1].isna().all()
    assert repeated.summary.startswith("{} leads {} by ".format(*ranked.first(2)))
    with pytest.raises(InputError, match="give at least 5"):
        ranking.stability(ranked, 4)


def test_halves_are_drawn_without_replacement_by_class_and_keep_patients_whole():
    labels = np.arange(50) % 2
    parts = halves(labels, 6, seed=24)
    assert all(len(set(part.tolist())) == len(part) for part in parts)
    assert [len(part) for part in parts] == [25] * 6
    assert len({tuple(sorted(part)) for part in parts}) == 6
    rare = np.repeat([0, 1, 2], [40, 4, 2])
    for part in halves(rare, 6, seed=24):
        assert np.bincount(rare[part]).tolist() == [20, 2, 2]
    patients = np.array([f"p{number}" for number in np.arange(46) // 4])
    for part in halves(np.arange(46) // 4 % 2, 6, seed=24, patients=patients):
        whole = np.isin(patients, np.unique(patients[part]))
        assert sorted(part.tolist()) == np.flatnonzero(whole).tolist() and len(part) < 30


@pytest.mark.parametrize("whole_patients", [False, True])
@pytest.mark.parametrize("separate", [0.0, 0.3])
def test_the_interval_of_the_lead_covers_and_equal_sources_are_not_told_apart(separate, whole_patients):
    """Two terms that are means over images; the first two sources differ by `separate` in one of them, or not."""
    rng = np.random.default_rng(1)
    means = np.array([[1.0 + separate, 1.0], [1.0, 1.0], [0.4, 0.5], [0.0, 0.0]])
    scale = np.ptp(means, axis=0)
    true = ((means - means.min(0)) / scale).prod(1)
    held, apart, trials = 0, 0, 400
    patients = np.repeat(np.arange(40), 3) if whole_patients else None
    labels = np.arange(120) % 2 if patients is None else patients % 2
    parts = halves(labels, 20, seed=24, patients=patients)
    for _ in range(trials):
        own = rng.normal(means[:, :, None], 0.6, (4, 2, 120))
        if whole_patients:
            own += np.repeat(rng.normal(0, 0.6, (4, 2, 40)), 3, axis=2)

        def combined(part, own=own):
            return scores.combine(*own[:, :, part].mean(-1).T)

        whole = combined(np.arange(120))
        first, second = np.argsort(-whole)[:2]
        drawn = np.array([combined(part) for part in parts])
        low, high = lead(whole[first] - whole[second], drawn[:, first] - drawn[:, second])
        held += low <= true[first] - true[second] <= high
        apart += low > 0
    assert held / trials >= 0.93
    assert apart / trials <= 0.06 or separate


def _halves_of(terms: dict[str, float], repeats: int = 8) -> pd.DataFrame:
    """All terms of a source are the same in every half."""
    rows = pd.DataFrame([(s, half) for s in terms for half in range(repeats)], columns=["source", "half"])
    names = ("nca", "gradient_ratio", "gradient_ratio_scale_invariant")
    return rows.assign(**dict.fromkeys(names, rows["source"].map(terms)))


def test_halves_without_an_order_count_for_nobody():
    found = _halves_of(dict(zip("abcd", (0.9, 0.6, 0.4, 0.1), strict=True)))
    made = _made_up(combined=[1.0, 0.4, 0.1, 0.0])
    # In two halves one source lacks a term, so nobody has a place.
    found.loc[(found["source"] == "a") & (found["half"] < 2), "nca"] = np.nan
    values = values_in_halves(made, found)
    assert values.shape == (6, 4)
    table = spread(made, values)
    assert list(table["first"]) == [1, 0, 0, 0] and list(table["lowest"]) == [1, 2, 3, 4]
    assert table["gap"].iloc[0] == pytest.approx(0.6)
    said = summary(made, table, 6, 8, "images")
    assert "2 more had no order" in said and "hardly" in said
    assert "easily change" in summary(made, table.assign(gap_low=-0.1), 6, 6, "patients")
    assert values_in_halves(made, found.assign(nca=np.nan)).shape == (0, 4)
    wild = spread(made, values.assign(a=[1.0, 0.0] * 3))  # no lead is over 1
    assert (wild["gap_low"].min(), wild["gap_high"].max()) == (-1, 1)


# --- verification ------------------------------------------------------------------------------------------
def test_the_first_two_are_fine_tuned(monkeypatch, ranked, target):
    monkeypatch.setattr(verification, "SEEDS", 2)
    steps: list[float] = []
    found = ranking.verify(ranked, 2, progress=lambda fraction, _: steps.append(fraction))
    table = found.table
    assert list(table["source"]) == ranked.first(2) and list(table["place"]) == [1, 2]
    assert (table["low"] <= table["high"]).all() and table[["test_auc", "frozen_auc"]].notna().all(axis=None)
    assert [name for name in table if "auc of" in name] == [f"auc of {c}" for c in ranked.dataset.classes]
    assert steps == sorted(steps)
    assert "2 seeds, the better of 2 learning rates" in found.runs
    with pytest.raises(InputError, match="verify at least 2"):
        ranking.check_verifiable(target, 1)


TRUTH = np.arange(200) % 2
GOOD = np.stack([1 - TRUTH, TRUTH], axis=1) * 0.6 + 0.2
NOISE, OTHER_NOISE = (np.random.default_rng(seed).random((200, 1)) * [[1, -1]] + [[0, 1]] for seed in (0, 1))


@pytest.mark.parametrize(
    ("chances", "says", "apart"),
    [
        ([GOOD, NOISE], "a, first in the ranking, came in place 1 of 2 with a test AUC of 1.000, +0.", True),
        ([NOISE, GOOD], "a, first in the ranking, came in place 2 of 2 with a test AUC of 0.", True),
        ([NOISE, OTHER_NOISE], "a, first in the ranking, came in place", False),
    ],
    ids=["first", "second", "undecided"],
)
def test_the_summary_of_a_verification(chances, says, apart, target):
    tested = replace(
        target,
        images=dict(target.images) | {"test": np.zeros((200, 28, 28), np.uint8)},
        labels=dict(target.labels) | {"test": TRUTH},
    )
    found = verification.compare(dict(zip("ab", np.array(chances)[:, None], strict=True)), tested, seed=24)
    assert found.startswith(says) and found.endswith("cannot tell the two apart") != apart
    assert "95 % interval over 1 seeds and 200 test images" in found


# --- cost and report ---------------------------------------------------------------------------------------
def test_costs_are_measured_and_scale(ranked):
    spent = [one.seconds for one in ranked.scored]
    assert all(0 < each["network"] <= each["scoring"] for each in spent) and len(ranked.drawn) == 40
    assert ranked.fine_tuning_seconds("standard") > ranked.fine_tuning_seconds("quick") > 0
    assert ranked.stability_seconds(10) == pytest.approx(5 * sum(each["scoring"] for each in spent))
    both = ranked.fine_tuning_seconds("quick", ranked.first(2))
    assert both > ranked.fine_tuning_seconds("quick", ranked.first(1)) > 0
    assert ranked.verification_seconds(2) == pytest.approx(6 * both)


def test_the_recommendation_comes_first_and_names_the_baseline(ranked, repeated, four):
    first, second = ranked.first(2)
    lines = replace(ranked, stability=repeated).recommendation
    assert lines[0].startswith(f"Fine-tune {first} first, then {second}: ") and repeated.summary in lines[2]
    place = ranked.first(4).index(Path(four[0]).stem) + 1
    (trivial,) = [line for line in lines if line.startswith("The trivial choice is ImageNet: ")]
    assert f"ImageNet: {Path(four[0]).stem}, here in place {place} of 4." in trivial
    found = evidence.replicated(True, "procedural:lesions")
    here, simple = found.loc["here"], found.loc["baseline"]
    assert f"mean weighted τ {here['tau']:.2f} against {simple['tau']:.2f}" in trivial
    assert f"first choice {here['regret']:.3f} against {simple['regret']:.3f}." in trivial
    assert "--verify 2" in lines[-1] and "--repeats 10" in ranked.recommendation[2]
    assert str(ranked).startswith("SYNTHETIC") and str(ranked).splitlines()[1] == ranked.recommendation[0]
    (one,) = ranked.sets

    def said(**columns) -> str:
        changed = replace(one, kind=columns.pop("kind", one.kind), table=one.table.assign(**columns))
        return " ".join(replace(ranked, sets=[changed]).recommendation)

    assert "not among these" in said(pretraining="elsewhere") and "ImageNet" not in said(kind="architectures")
    assert f"The paper's own form of the score puts {second} first" in said(proposed=[0.0, 1.0, 0.5, 0.2])
    assert "The paper's own form" not in said(proposed=one.table["combined"])
    assert f"{second} is ahead: mean rank 1.0 against 2.0" in said(feature_rank=[2.0, 1.0, 3.0, 4.0])


def test_the_verdict_is_the_weakest_that_holds(ranked, repeated):
    none, first = pd.DataFrame(columns=["source", "elsewhere"]), ranked.first(1)[0]
    elsewhere = pd.DataFrame({"source": ["other", first], "elsewhere": [1.0, 2.0]})
    sure, unsure = (replace(repeated, table=repeated.table.assign(gap_low=low)) for low in (0.1, -0.1))
    verdict = report.verdict
    assert verdict(ranked, none, 0.5) == "too close to call"
    assert verdict(replace(ranked, stability=sure), none, 0.8) == "most of the evidence agrees"
    assert verdict(replace(ranked, stability=unsure), none, 0.8) == "too close to call"
    assert verdict(ranked, elsewhere, 0.8) == "the evidence conflicts, since other did better elsewhere"
    assert verdict(replace(ranked, verification=_checked("x")), elsewhere, 0.1).startswith(
        "see what fine-tuning gave"
    )


@pytest.mark.parametrize(
    ("name", "expected"),
    [("imagenet_mobilenet_v2", True), ("a1_in1k", True), ("radimagenet", False), ("pathmnist", False)],
)
def test_imagenet_is_known_by_a_file_s_name(name, expected):
    assert evidence.is_imagenet(name) == expected


def test_what_is_known_from_elsewhere_is_shown_beside_the_order(ranked):
    (one,) = ranked.sets
    assert ranking.elsewhere(one, "scans").empty
    names = ["bloodmnist", "imagenet", "medmnist", "nothing"]
    known = replace(one, table=one.table.assign(architecture="resnet18", pretraining=names))
    # The published ground truth is cited for sources like its own only.
    mean = evaluation.weighted_tau("source_datasets")["proposed"].mean()
    for about, cited in ((ranked, False), (replace(ranked, sets=[known]), True)):
        words = " ".join(line for section in about.sections for line in section.lines)
        assert (f"mean weighted τ of {mean:.2f}" in words) is ("τ 0.53, regret 0.0052" in words) is cited
    found = ranking.elsewhere(known, "bloodmnist").set_index("source")
    auc = published.table("source_datasets").pivot_table(index="target", columns="source", values="auc")
    ranks = auc.drop(index="bloodmnist")[names[:3]].rank(axis=1, ascending=False).mean()
    expected = dict(zip(one.table["source"], [ranks[name] for name in names[:3]], strict=False))
    assert found["elsewhere"].to_dict() == pytest.approx(expected) and set(found["targets"]) == {len(auc) - 1}
    assert sorted(found["here"]) == [1, 2, 3] and found["mean"].is_monotonic_increasing
    files = ["imagenet_mobilenet_v2", "ham10000", "a", "b"]
    table = one.table.assign(architecture="mobilenet_v2", source=files)
    assert list(ranking.elsewhere(replace(one, table=table), "busi")["targets"]) == [6, 6]
    renamed = replace(ranked, sets=[replace(one, table=table)], verification=_checked("x"))
    text = " ".join(renamed.recommendation)
    assert "Fine-tuned on 7 other targets, these had the mean places" in text


def _checked(summary: str) -> ranking.Verification:
    columns = ["source", "place", "test_auc", "low", "high", "frozen_auc", "auc of x"]
    rows = pd.DataFrame([("a", 1, 0.9, 0.8, 0.95, 0.7, 0.9)], columns=columns)
    return ranking.Verification(rows, summary, ("frozen does",), "six runs")


def test_everything_is_in_the_report(ranked, repeated, tmp_path):
    first, second, _, last = ranked.sources
    remarks = (("leep: none; why", "small"), ("leep: none; why",), (), ("small",))
    whole = replace(
        ranked,
        stability=repeated,
        verification=_checked("the first came first"),
        left_out={"imagenet": "not on this machine"},
        scored=[replace(one, remarks=said) for one, said in zip(ranked.scored, remarks, strict=True)],
    )
    text = str(whole)
    for wanted in (
        "5 random halves of the images",
        "Checked by fine-tuning: the first came first.",
        "Source Place Test AUC  From    To Frozen\n     a     1    0.900 0.800 0.950  0.700\n",
        "AUC by class, a: x 0.900",
        "frozen does",
        "imagenet: not on this machine",
        "normalisation mean 0.5 0.5 0.5, sd 0.5 0.5 0.5, as the file says",
        f"  {first}, {second}: leep: none; why\n",
        f"  {first}, {last}: small\n",
    ):
        assert wanted in text, wanted
    document = whole.as_document()
    assert json.loads(json.dumps(document, allow_nan=False)) == document
    assert next(iter(document)) == "recommendation" and document["order"] == ranked.first(4)
    assert (
        len(document["stability"]["table"]) == 4 and document["verification"]["table"][0]["test_auc"] == 0.9
    )
    assert document["left_out"] == whole.left_out and document["candidate_sets"][0]["agreement"]
    with_pictures, without = (
        whole.save(tmp_path / str(images), images=images)[-1].read_text() for images in (True, False)
    )
    assert "Some of the images" in with_pictures and "Some of the images" not in without
    assert "<script" not in with_pictures and "http" not in without and "Dataset(" not in without
    with pytest.raises(InputError, match=r"holds ranking\.csv already"):
        whole.save(tmp_path / "True")
    (one,) = ranked.sets
    hostile = replace(one, title="<script>", table=one.table.assign(source="<b>", architecture="<i>"))
    made = replace(ranked, sets=[hostile], scored=[replace(ranked.scored[0], name="<b>", remarks=("<u>",))])
    for page in (report.as_page(made, b""), made._repr_html_()):
        assert not any(tag in page for tag in ("<script>", "<b>", "<i>", "<u>"))


def test_the_command_says_the_cost_first_and_gives_the_same_numbers_as_the_call(
    command, four, repeated, ranked
):
    options = ("--per-class", 20, "--repeats", 5, "--json")
    code, out, err = command("rank", "procedural:lesions", *named(four), *options)
    assert code == 0 and err.count("s to go") == 4 and "\n5 repeats: about " in err
    document = json.loads(out)
    (one,) = document["candidate_sets"]
    rows, provenance = one["table"], document["provenance"]
    assert one["ordered"] and provenance["seed"] == 24 and provenance["data"]
    for column in ("source", "nca", "gradient_ratio"):
        assert [row[column] for row in rows] == list(ranked.table[column])
    assert [row["first"] for row in document["stability"]["table"]] == list(repeated.table["first"])
