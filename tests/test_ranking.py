"""Ranking: cards, pools, and when an order is worth nothing."""

from __future__ import annotations

import re
import shutil
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import torch
from torch import nn

import image_files
from companion import datasets, evaluation, models, published, rank, ranking, score, scores
from companion.errors import InputError
from companion.scores.forward_pass import ForwardPass
from companion.training import SourceProtocol, train_source

SMALL = "shufflenet_v2_x0_5"
QUICK_SCORES = ("nca", "gradient_ratio", "gradient_ratio_scale_invariant", "leep")


def stub(architecture: str, pretraining: str) -> models.SourceModel:
    """Return a source that is only grouped, never run."""
    return models.SourceModel(f"{architecture}/{pretraining}", nn.Identity(), None, architecture, pretraining)


def cards(nca, gradient_ratio) -> pd.DataFrame:
    return pd.DataFrame(
        {"source": [f"s{i}" for i in range(len(nca))], "nca": nca, "gradient_ratio": gradient_ratio}
    )


@pytest.fixture(scope="module")
def target() -> datasets.Dataset:
    return datasets.load_dataset("procedural:lesions")


@pytest.fixture(scope="module")
def sources(target) -> list[models.SourceModel]:
    """Four random networks, and one trained on the target itself."""
    protocol = SourceProtocol("tiny", epochs=1, images_per_epoch=64, batch_size=32)
    found = [models.scratch(SMALL, seed=seed, name=f"scratch {seed}") for seed in range(4)]
    return [*found, train_source(target, protocol, architecture=SMALL)]


@pytest.fixture(scope="module")
def table(target, sources) -> pd.DataFrame:
    return rank(target, sources, per_class=20, scores=QUICK_SCORES)


# --- pools -------------------------------------------------------------------------------------------------


def test_one_architecture_makes_one_pool():
    (pool,) = ranking.pools([stub("resnet18", name) for name in ("imagenet", "path", "derma")])
    assert (pool.kind, pool.of, pool.members) == ("source_datasets", "resnet18", (0, 1, 2))


def test_one_pretraining_makes_one_pool():
    (pool,) = ranking.pools([stub(name, "imagenet") for name in ("resnet18", "vgg11", "densenet121")])
    assert (pool.kind, pool.of, pool.members) == ("architectures", "imagenet", (0, 1, 2))


def test_the_two_kinds_are_never_merged():
    found = ranking.pools(
        [
            stub("resnet18", "path"),
            stub("resnet18", "imagenet"),
            stub("vgg11", "imagenet"),
            stub("densenet121", "derma"),
        ]
    )
    assert [(pool.kind, pool.members) for pool in found] == [
        ("source_datasets", (0, 1)),
        ("architectures", (1, 2)),  # the one in both is ranked in both
        ("source_datasets", (3,)),  # shares nothing with any
    ]
    assert len({pool.title for pool in found}) == 3


# --- the combination ---------------------------------------------------------------------------------------


def test_min_max_by_hand():
    assert list(scores.min_max(np.array([1.0, 3.0, 2.0]))) == [0, 1, 0.5]
    assert list(scores.min_max(np.array([1.0, 3.0, 2.0]), invert=True)) == [1, 0, 0.5]
    found = scores.min_max(np.array([1.0, np.nan, 3.0]))
    assert found[0] == 0 and np.isnan(found[1]) and found[2] == 1
    assert np.isnan(scores.min_max(np.array([2.0, 2.0]))).all()
    assert scores.min_max(np.array([])).shape == (0,)


def test_the_architectures_pool_is_turned_round():
    given = cards([0.1, 0.4, 0.6, 0.9], [1.0, 3.0, 2.0, 4.0])
    plain, reason = ranking.rank_pool(given, kind="source_datasets")
    assert plain["source"].iloc[0] == "s3" and plain["proposed"].iloc[0] == 1 and reason == ""
    turned, _ = ranking.rank_pool(given, kind="architectures")
    assert turned["source"].iloc[0] == "s0" and turned["proposed"].iloc[0] == 1
    assert list(plain["rank"]) == [1, 2, 3, 4]
    assert plain["gap"].iloc[:-1].to_numpy() == pytest.approx(-np.diff(plain["proposed"]))
    assert np.isnan(plain["gap"].iloc[-1])
    assert set(plain["order"]) == {"determined"}
    assert list(given.columns) == ["source", "nca", "gradient_ratio"]  # what was given is not changed


@pytest.mark.parametrize(
    ("nca", "gradient_ratio", "reason"),
    [
        ([0.1, 0.5, 0.9], [1.0, 2.0, 3.0], r"3 source\(s\) in the pool, .* needs 4"),
        ([0.5, 0.5, 0.5, 0.5], [1.0, 2.0, 3.0, 4.0], "nca is the same for every source"),
        ([0.1, 0.2, 0.3, 0.4], [2.0, 2.0, 2.0, 2.0], "gradient_ratio is the same for every source"),
        ([0.1, 0.2, np.nan, 0.4], [1.0, 2.0, 3.0, 4.0], "nca is not defined for every source"),
        ([0.1, 0.7, 0.7, 0.9], [1.0, 2.0, 2.0, 3.0], "s1, s2 have the same combined score"),
    ],
    ids=["under four", "constant nca", "constant ratio", "missing", "tied"],
)
def test_an_undetermined_order_shows_the_raw_terms(nca, gradient_ratio, reason):
    found, said = ranking.rank_pool(cards(nca, gradient_ratio), kind="source_datasets")
    assert re.search(reason, said)
    assert found["rank"].isna().all() and set(found["order"]) == {"undetermined"}
    back = found.sort_values("source")
    np.testing.assert_array_equal(back["nca"], nca)
    np.testing.assert_array_equal(back["gradient_ratio"], gradient_ratio)


def test_two_at_zero_are_the_rule_and_no_tie_of_the_first():
    found, said = ranking.rank_pool(cards([0.1, 0.5, 0.7, 0.9], [3.0, 1.0, 2.0, 4.0]), kind="source_datasets")
    assert list(found["rank"]) == [1, 2, 3, 3]
    assert list(found["order"]) == ["determined", "determined", "undetermined", "undetermined"]
    assert "tied at 0" in said


@pytest.mark.parametrize("setting", published.SETTINGS)
def test_the_combination_is_the_published_one(setting):
    released = published.table(setting)
    taus = evaluation.weighted_tau(setting)["proposed"]
    for target, block in released[released["target"].isin(taus.index)].groupby("target"):
        if target == "dermamnist" and setting == "source_datasets":
            continue  # there the published min-max takes in the target's own cell: see test_published
        ranked, _ = ranking.rank_pool(block[block["source"] != target], kind=setting)
        assert evaluation.tau(ranked["proposed"], ranked["auc"]) == pytest.approx(taus[target], abs=1e-12)


@pytest.mark.parametrize(("variant", "sign"), [("corrected", -1), ("published", 1)])
def test_ncti_is_put_together_within_the_pool(variant, sign):
    terms = np.array([[1.0, 5.0, 0.0], [2.0, 5.5, 2.0], [3.0, 6.0, 1.0]])
    found = scores.combine_ncti(terms, variant=variant)
    assert found == pytest.approx([0, 1 + sign * 1, 2 + sign * 0.5])
    alone = scores.combine_ncti(terms[:1], variant=variant)
    assert np.isnan(alone).all()


def test_the_seed_reaches_the_draw_the_sources_and_the_scores(monkeypatch, target, sources):
    drawn, loaded, scored, ratios = [], [], [], []
    draw, suite, ratio = datasets.Dataset.draw, scores.suite, ForwardPass.ratio
    load = ranking.table.load_source
    monkeypatch.setattr(
        datasets.Dataset, "draw", lambda *given, seed: drawn.append(seed) or draw(*given, seed=seed)
    )
    monkeypatch.setattr(
        ranking.table, "load_source", lambda *given, **how: loaded.append(how["seed"]) or load(*given, **how)
    )
    monkeypatch.setattr(
        scores,
        "suite",
        lambda *given, **how: scored.append((how["random_state"], how["variant"])) or suite(*given, **how),
    )
    monkeypatch.setattr(
        ForwardPass, "ratio", lambda done, variant: ratios.append(variant) or ratio(done, variant)
    )
    how = {"per_class": 20, "scores": ("nca", "gradient_ratio"), "variant": "published", "seed": 7}
    rank(target, ["scratch", sources[0]], architecture=SMALL, **how)
    score(sources[0], target, **how)
    assert drawn == [7, 7] and loaded == [7]
    assert scored == [(7, "published")] * 3 and ratios == ["published"] * 3


# --- one source on one target ------------------------------------------------------------------------------


def test_a_card_holds_what_was_asked_and_why_some_is_missing(target, sources):
    card = score(sources[0], target, scores=("nca", "leep", "gradient_ratio", "ncti"), per_class=20)
    assert list(card) == ["nca", "leep", "gradient_ratio"]
    assert 0 <= card["nca"] <= 1 and card["gradient_ratio"] > 0
    assert np.isnan(card["leep"]) and card.reasons["leep"]
    assert len(card.ncti_terms) == 3
    assert card.features.shape == (40, 1024) and card.labels.shape == (40,)
    record = card.provenance
    assert record["data"] == {target.name: target.content_hash}
    assert (record["images"], record["variant"], record["source"]) == (40, "corrected", "scratch 0")


def test_a_source_with_a_head_has_leep(target, sources):
    card = score(sources[-1], target, scores=("leep",), per_class=20)
    assert card["leep"] <= 0 and not card.reasons


def test_a_network_without_convolutions_gets_the_reason(target):
    flat = nn.Sequential(nn.Flatten(), nn.Linear(3 * 28 * 28, 8).requires_grad_(False))
    card = score(
        models.SourceModel("flat", flat, None, "flat", "x"), target, per_class=20, scores=("gradient_ratio",)
    )
    assert np.isnan(card["gradient_ratio"]) and "no two convolutions" in card.reasons["gradient_ratio"]


def test_too_few_images_for_a_triplet_leave_the_reason(target, sources):
    card = score(sources[0], target, per_class=6, scores=("gradient_ratio",))
    assert np.isnan(card["gradient_ratio"]) and "no batch holds a triplet" in card.reasons["gradient_ratio"]


def test_an_unknown_score_is_refused(target, sources):
    with pytest.raises(InputError, match=r"no score 'logm'\. Did you mean 'logme'\?"):
        score(sources[0], target, scores=("logm",))


# --- a whole ranking ---------------------------------------------------------------------------------------


def test_a_ranking_is_ordered_and_complete(table):
    ranked = table[table["pool"] == f"{SMALL}, different pre-training"]
    assert sorted(ranked["source"]) == [f"scratch {seed}" for seed in range(4)]
    assert list(ranked["proposed"]) == sorted(ranked["proposed"], reverse=True)
    assert ranked["rank"].iloc[0] == 1 and ranked["gap"].iloc[0] > 0
    assert list(table.columns[:7]) == ["pool", "rank", "source", "proposed", "gap", "order", "nca"]
    assert table["note"].str.contains("leep").any()  # random networks have no source classes
    assert table.attrs["synthetic"]
    assert table.attrs["provenance"]["data"]


def test_a_source_trained_on_the_same_files_is_known_at_any_size_under_any_name_and_in_a_pool(tmp_path):
    protocol = SourceProtocol("tiny", epochs=1, images_per_epoch=32, batch_size=32)
    folder = image_files.folder(tmp_path / "scans", {"a": 20, "b": 20})
    copied = shutil.copytree(folder, tmp_path / "copy of scans")
    learnt, cells = (datasets.load_dataset(str(name), size=28) for name in (copied, "procedural:cells"))
    sources = [
        *(models.scratch(SMALL, seed=seed, name=f"scratch {seed}") for seed in range(2)),
        *(
            train_source(of, protocol, architecture=SMALL)
            for of in (learnt, datasets.pool([learnt, cells]), cells)
        ),
    ]
    table = rank(str(folder), sources, size=64, per_class=10, scores=QUICK_SCORES)
    left_out = table[table["pool"].str.startswith("left out")]
    assert set(left_out["source"]) == {source.name for source in sources[2:4]}


def test_sources_normalised_otherwise_or_without_batch_norm_are_warned_of(target, sources):
    assert (
        ranking.rank(target, sources[:2], per_class=20, scores=QUICK_SCORES).attrs["pools"][0]["warnings"]
        == []
    )
    other = replace(sources[1], normalisation=models.IMAGENET_NORMALISATION)
    (pool,) = rank(target, [sources[0], sources[2], other], per_class=20, scores=QUICK_SCORES).attrs["pools"]
    assert len(pool["warnings"]) == 1 and f"normalised otherwise ({other.name})" in pool["warnings"][0]
    bare = models.SourceModel(
        "bare",
        nn.Sequential(nn.Conv2d(3, 4, 3), nn.Conv2d(4, 4, 3), nn.AdaptiveAvgPool2d(1)),
        None,
        SMALL,
        "nothing else",
    )
    table = rank(target, [sources[0], sources[2], bare], per_class=20, scores=QUICK_SCORES)
    assert "without batch norm beside networks with it (bare)" in table.attrs["pools"][0]["warnings"][0]


def test_a_source_trained_on_the_target_is_left_out(table, sources):
    left_out = table[table["source"] == sources[-1].name]
    assert list(left_out["pool"]) == ["left out: trained on the target itself"]
    assert left_out["rank"].isna().all() and left_out["proposed"].isna().all()
    assert left_out["nca"].notna().all()
    kinds = [pool["kind"] for pool in table.attrs["pools"]]
    assert kinds == ["source_datasets", "left_out"]


def test_the_same_seed_gives_the_same_numbers(table, target, sources):
    torch.manual_seed(99)
    again = rank(target, sources, per_class=20, scores=QUICK_SCORES)
    pd.testing.assert_frame_equal(again, table, check_exact=True)
    other = rank(target, sources, per_class=20, scores=QUICK_SCORES, seed=1)
    assert not np.array_equal(other["gradient_ratio"], table["gradient_ratio"])


def test_images_that_are_tested_and_trained_on_are_told(target, sources):
    tested = target.images["test"].copy()
    tested[:3] = target.images["train"][:3]
    leaking = replace(target, images=dict(target.images) | {"test": tested})
    found = rank(leaking, sources[:2], per_class=10, scores=()).attrs["notes"]
    assert len(found) == 1 and found[0].startswith("3 image(s) lie in more than one split")
    assert rank(target, sources[:2], per_class=10, scores=()).attrs["notes"] == []


def test_progress_rises_to_one(target, sources):
    told: list[tuple[float, str]] = []
    rank(target, sources[:2], per_class=10, scores=(), progress=lambda *step: told.append(step))
    fractions = [fraction for fraction, _ in told]
    assert fractions == sorted(fractions) and (fractions[0], fractions[-1]) == (0, 1)
    assert all(text and "\n" not in text for _, text in told)


def test_two_architectures_under_four_are_shown_and_not_ordered(target):
    pair = [models.scratch(name, seed=0, name=name) for name in (SMALL, "mobilenet_v3_small")]
    found = rank(target, pair, per_class=10, scores=())
    assert set(found["order"]) == {"undetermined"} and found["rank"].isna().all()
    assert found[["nca", "gradient_ratio"]].notna().all(axis=None)
    assert [pool["kind"] for pool in found.attrs["pools"]] == ["architectures"]


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (["scratch"], "a ranking needs at least two sources: got 1"),
        (["scratch", "scratch"], "source 'scratch' is named twice"),
        (["scratch", "scrach"], r"Did you mean 'scratch'\?"),
    ],
)
def test_sources_that_cannot_be_ranked_are_refused(target, names, message):
    with pytest.raises(InputError, match=message):
        rank(target, names, architecture=SMALL, per_class=10, scores=())


def test_an_unusable_target_is_told_before_any_source_is_loaded():
    rng = np.random.default_rng(0)
    several = datasets.Dataset(
        name="several",
        images={"train": rng.integers(0, 256, (12, 28, 28)).astype(np.uint8)},
        labels={"train": rng.integers(0, 2, (12, 3))},
        classes=("a", "b", "c"),
        task="multi-label",
        origin="made up",
    )
    with pytest.raises(InputError, match="several labels an image"):
        rank(several, ["imagenet", "radimagenet"])
