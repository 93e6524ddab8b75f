"""Ranking: candidate sets, when an order is worth nothing, and what stands beside it."""

from __future__ import annotations

import json
import re
import shutil
import sys
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import torch
from safetensors.torch import save_file
from torch import nn

import image_files
from companion import cli, datasets, evaluation, models, published, rank, ranking, score, scores
from companion import sources as source_models
from companion.datasets import files, images
from companion.errors import InputError
from companion.ranking import report, verification
from companion.ranking.candidates import training_size
from companion.ranking.sets import CandidateSet
from companion.ranking.stability import _combined, _spread, _summary, halves, lead
from companion.scores import REGISTRY
from companion.scores.forward_pass import ForwardPass
from companion.training import FINE_TUNING_PROTOCOLS, SourceProtocol, train_source

SMALL = "shufflenet_v2_x0_5"
RANKING = sys.modules["companion.ranking.ranking"]
QUICK_SCORES = ("nca", "gradient_ratio", "gradient_ratio_scale_invariant", "leep")


def stub(architecture: str, pretraining: str) -> models.SourceModel:
    """Return a source that is only grouped, never run."""
    return models.SourceModel(f"{architecture}/{pretraining}", nn.Identity(), None, architecture, pretraining)


def terms(nca, gradient_ratio) -> pd.DataFrame:
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
def five(target, sources) -> ranking.Ranking:
    return rank(target, sources, per_class=20, scores=QUICK_SCORES)


# --- pools -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("given", "sets"),
    [
        ([("a", "x"), ("a", "y"), ("a", "z")], [("source_datasets", [0, 1, 2])]),
        ([("a", "x"), ("b", "x"), ("c", "x")], [("architectures", [0, 1, 2])]),
        # The one in both is ranked in both, one that shares nothing with any stands alone; nothing is merged.
        (
            [("a", "y"), ("a", "x"), ("b", "x"), ("c", "z")],
            [("source_datasets", [0, 1]), ("architectures", [1, 2]), ("source_datasets", [3])],
        ),
    ],
)
def test_candidate_sets(given, sets):
    found = ranking.candidate_sets([stub(*names) for names in given])
    assert [(kind, members) for kind, _, members in found] == sets
    assert len({title for _, title, _ in found}) == len(sets)


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
    assert plain["source"].iloc[0] == "s3" and plain["proposed"].iloc[0] == 1 and reason == ""
    inverted, _ = ranking.order(given, kind="architectures")
    assert inverted["source"].iloc[0] == "s0" and inverted["proposed"].iloc[0] == 1
    assert list(plain["rank"]) == [1, 2, 3, 4]
    assert plain["gap"].iloc[:-1].to_numpy() == pytest.approx(-np.diff(plain["proposed"]))
    assert np.isnan(plain["gap"].iloc[-1])
    assert set(plain["order"]) == {"determined"}
    assert list(given.columns) == ["source", "nca", "gradient_ratio"]  # what was given is not changed


@pytest.mark.parametrize(
    ("nca", "gradient_ratio", "reason"),
    [
        ([0.1, 0.5, 0.9], [1.0, 2.0, 3.0], r"3 source\(s\) in the candidate set, .* needs 4"),
        ([0.5, 0.5, 0.5, 0.5], [1.0, 2.0, 3.0, 4.0], "nca is the same for every source"),
        ([0.1, 0.2, 0.3, 0.4], [2.0, 2.0, 2.0, 2.0], "gradient_ratio is the same for every source"),
        ([0.1, 0.2, np.nan, 0.4], [1.0, 2.0, 3.0, 4.0], "nca is not defined for every source"),
        ([0.1, 0.7, 0.7, 0.9], [1.0, 2.0, 2.0, 3.0], "s1, s2 have the same combined score"),
    ],
    ids=["under four", "constant nca", "constant ratio", "missing", "tied"],
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
    assert "tied at 0" in said


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


def test_the_seed_reaches_the_draw_the_sources_and_the_scores(monkeypatch, target, sources):
    drawn, loaded, scored, ratios = [], [], [], []
    draw, suite, ratio = datasets.Dataset.draw, scores.suite, ForwardPass.ratio
    load = RANKING.load_source
    monkeypatch.setattr(
        datasets.Dataset, "draw", lambda *given, seed: drawn.append(seed) or draw(*given, seed=seed)
    )
    monkeypatch.setattr(
        RANKING, "load_source", lambda *given, **how: loaded.append(how["seed"]) or load(*given, **how)
    )
    monkeypatch.setattr(
        "companion.scores.from_images.suite",
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


def test_a_ranking_is_ordered_and_complete(five):
    table = five.table
    ranked = table[table["candidate_set"] == f"{SMALL}, different pre-training"]
    assert sorted(ranked["source"]) == [f"scratch {seed}" for seed in range(4)]
    assert list(ranked["proposed"]) == sorted(ranked["proposed"], reverse=True)
    assert ranked["rank"].iloc[0] == 1 and ranked["gap"].iloc[0] > 0
    assert list(table.columns[:7]) == ["candidate_set", "rank", "source", "proposed", "gap", "order", "nca"]
    assert table["note"].str.contains("leep").any()  # random networks have no source classes
    assert five.synthetic and five.provenance["data"]


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
    found = rank(str(folder), sources, size=64, per_class=10, scores=QUICK_SCORES)
    assert found.sets[-1].kind == "left_out"
    assert set(found.sets[-1].table["source"]) == {source.name for source in sources[2:4]}


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


def test_a_source_trained_on_the_target_is_left_out(five, sources):
    assert [one.kind for one in five.sets] == ["source_datasets", "left_out"]
    table = five.sets[-1].table
    assert list(table["source"]) == [sources[-1].name] and not five.sets[-1].ordered
    assert table["proposed"].isna().all() and table["nca"].notna().all()


def test_the_same_seed_gives_the_same_numbers(five, target, sources):
    torch.manual_seed(99)
    again = rank(target, sources, per_class=20, scores=QUICK_SCORES)
    pd.testing.assert_frame_equal(again.table, five.table, check_exact=True)
    other = rank(target, sources, per_class=20, scores=QUICK_SCORES, seed=1)
    assert not np.array_equal(other.table["gradient_ratio"], five.table["gradient_ratio"])


def test_images_that_are_tested_and_trained_on_are_told(target, sources):
    tested = target.images["test"].copy()
    tested[:3] = target.images["train"][:3]
    leaking = replace(target, images=dict(target.images) | {"test": tested})
    found = rank(leaking, sources[:2], per_class=10, scores=()).notes
    assert len(found) == 1 and found[0].startswith("3 image(s) lie in more than one split")
    assert rank(target, sources[:2], per_class=10, scores=()).notes == []


def test_progress_rises_to_one(target, sources):
    told: list[tuple[float, str]] = []
    rank(target, sources[:2], per_class=10, scores=(), progress=lambda *step: told.append(step))
    fractions = [fraction for fraction, _ in told]
    assert fractions == sorted(fractions) and (fractions[0], fractions[-1]) == (0, 1)
    assert all(text and "\n" not in text for _, text in told)


def test_two_architectures_under_four_are_shown_and_not_ordered(target):
    pair = [models.scratch(name, seed=0, name=name) for name in (SMALL, "mobilenet_v3_small")]
    found = rank(target, pair, per_class=10, scores=())
    (one,) = found.sets
    assert one.kind == "architectures" and not one.ordered and found.ordered is None
    assert one.table[["nca", "gradient_ratio"]].notna().all(axis=None)
    assert re.search(
        r"No order: architectures pre-trained on .*: 2 source\(s\) in the candidate set", str(found)
    )


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (["scratch"], "a ranking needs at least two sources: got 1"),
        (["scratch", "scratch"], "source 'scratch' is named twice"),
        (["scratch", "scrach"], r"Did you mean 'scratch'\?"),
        ("scratch", "sources: a list is needed, got 'scratch' alone"),
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


# --- candidates --------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def four(tmp_path_factory) -> list[str]:
    """Four checkpoints of one architecture; the first says that it is ImageNet's."""
    folder = tmp_path_factory.mktemp("weights")
    paths = []
    for seed in range(4):
        model = models.scratch(SMALL, seed=seed)
        model.pretraining = "imagenet" if seed == 0 else f"set {seed}"
        paths.append(str(source_models.save(model, folder / f"model{seed}.safetensors")))
    return paths


@pytest.fixture(scope="module")
def ranked(target, four) -> ranking.Ranking:
    return rank(target, four, per_class=20, scores=("nca", "gradient_ratio", "logme"))


@pytest.fixture(scope="module")
def repeated(ranked) -> ranking.Stability:
    return ranking.stability(ranked, 5)


def test_on_an_empty_machine_only_random_weights_can_be_had(data, own_cache, monkeypatch, tmp_path):
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    chosen, left_out = ranking.candidates("scans", 224)
    assert [candidate.source for candidate in chosen] == ["scratch"]
    by_name = {candidate.source: candidate for candidate in left_out}
    assert {"imagenet", "torchvision:vgg11", "pathmnist", "radimagenet"} <= set(by_name)
    assert "chestmnist" not in by_name and "medmnist" not in by_name
    assert all(candidate.reason and candidate.origin and candidate.licence for candidate in left_out)
    assert by_name["imagenet"].megabytes == 45


def test_what_is_here_is_a_candidate(data, own_cache, monkeypatch, tmp_path, four):
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    for path in (
        source_models.imagenet_file("resnet18")[1],
        source_models.imagenet_file("vgg11")[1],
        source_models.medmnist_file("pathmnist"),
        data / "weights" / "radimagenet.pth",
        data / "weights" / "medmnist_without_breastmnist.safetensors",
    ):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"weights")
    source_models.save(models.scratch(SMALL), data / "weights" / "own.safetensors")
    save_file(models.build(SMALL).state_dict(), data / "weights" / "unknown.safetensors")
    (data / "weights" / "cut.safetensors").write_bytes(b"x")
    chosen, left_out = ranking.candidates("breastmnist", 28)
    assert [candidate.source for candidate in chosen] == [
        "imagenet",
        "torchvision:vgg11",
        "pathmnist",
        "medmnist",
        "radimagenet",
        str(data / "weights" / "own.safetensors"),
        "scratch",
    ]
    reasons = {candidate.source.rsplit("/")[-1]: candidate.reason for candidate in left_out}
    assert "does not say its architecture" in reasons["unknown.safetensors"]
    assert "not a whole checkpoint" in reasons["cut.safetensors"]


def test_sets_on_this_machine_are_trained_on_until_there_is_an_order(data, own_cache, monkeypatch, tmp_path):
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    for flag in ("breastmnist", "retinamnist", "pneumoniamnist", "bloodmnist"):
        (data / f"{flag}.npz").write_bytes(b"")
    chosen, _ = ranking.candidates("scans", 224)
    assert [c.source for c in chosen] == [
        "train:breastmnist",
        "train:retinamnist",
        "train:pneumoniamnist",
        "scratch",
    ]
    assert {c.input_size for c in chosen[:3]} == {28}
    assert "train:retinamnist" not in {c.source for c in ranking.candidates("retinamnist", 28)[0]}


@pytest.mark.parametrize(("size", "expected"), [(28, 28), (32, 28), (64, 64), (100, 64), (224, 64)])
def test_sources_are_trained_at_the_size_of_the_target_up_to_64(data, size, expected):
    assert training_size("train:procedural:cells", size) == expected


def test_the_only_size_on_this_machine_is_taken(data):
    (data / "breastmnist.npz").write_bytes(b"")
    assert training_size("train:breastmnist", 224) == 28
    assert training_size("train:breastmnist+procedural:cells", 224) == 28
    assert training_size("train:retinamnist", 224) == 64  # to be downloaded, so in the better size


def test_sources_share_one_decoding(tmp_path, monkeypatch):
    root = image_files.folder(tmp_path / "scans", {"a": 30, "b": 30})
    monkeypatch.setattr(files, "IN_MEMORY", 0)
    read, decoded = images.read, []
    monkeypatch.setattr(
        images, "read", lambda path, *given, **more: decoded.append(path) or read(path, *given, **more)
    )
    pair = [models.scratch(SMALL, seed=seed, name=f"scratch {seed}") for seed in range(2)]
    found = rank(root, pair, size=28, per_class=12, scores=())
    assert len(decoded) == len(set(decoded)) == found.cost["images"] == 24


def test_without_sources_the_call_takes_the_candidates(own_cache, monkeypatch, tmp_path):
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    with pytest.raises(InputError, match="only random weights can be had here"):
        rank("procedural:lesions")
    monkeypatch.setattr(
        sys.modules["companion.ranking.candidates"],
        "candidates",
        lambda *_a, **_o: ([_had("scratch"), _had("x")], []),
    )
    with pytest.raises(InputError, match="no source 'x'"):
        rank("procedural:lesions", architecture=SMALL, per_class=12, scores=())


def _had(name: str) -> ranking.Candidate:
    return ranking.Candidate(name, "", "", None)


# --- agreement ---------------------------------------------------------------------------------------------


def _made_up(kind: str = "source_datasets", count: int = 4, **columns) -> CandidateSet:
    table = pd.DataFrame(
        {
            "rank": [1, 2, 3, 4],
            "source": list("abcd"),
            "proposed": [1.0, 0.6, 0.3, 0.0],
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
    assert found.loc["proposed", "tau"] == pytest.approx(1 / 3) and found.loc["logme", "tau"] == -1
    three = ranking.agreement(_made_up(count=3)).set_index("method")
    assert three.loc["nca", "tau"] == pytest.approx(1 / 3) and len(three) == 4
    assert ranking.agreement(_made_up(count=2))["tau"].isna().all()
    assert "proposed" not in set(ranking.agreement(_made_up(rank=pd.NA))["method"])


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
    assert repeated.seconds > 0 and list(repeated.summaries) == [ranked.sets[0].title]
    with pytest.raises(InputError, match="give at least 5"):
        ranking.stability(ranked, 4)


def test_halves_are_drawn_without_replacement_by_class_and_keep_patients_whole():
    labels = np.arange(50) % 2
    parts = halves(labels, 6, seed=24)
    assert all(len(set(part.tolist())) == len(part) for part in parts)
    assert [len(part) for part in parts] == [25] * 6 and len(
        {tuple(sorted(part.tolist())) for part in parts}
    ) == 6
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
    for _ in range(trials):
        own = rng.normal(means[:, :, None], 0.6, (4, 2, 120))
        patients = np.repeat(np.arange(40), 3) if whole_patients else None
        if whole_patients:
            own += np.repeat(rng.normal(0, 0.6, (4, 2, 40)), 3, axis=2)

        def combined(part, own=own):
            return scores.combine(*own[:, :, part].mean(-1).T)

        whole = combined(np.arange(120))
        first, second = np.argsort(-whole)[:2]
        parts = halves(
            np.arange(120) % 2 if patients is None else patients % 2, 20, seed=24, patients=patients
        )
        drawn = np.array([combined(part) for part in parts])
        low, high = lead(whole[first] - whole[second], drawn[:, first] - drawn[:, second])
        held += low <= true[first] - true[second] <= high
        apart += low > 0
    assert held / trials >= 0.93
    assert apart / trials <= 0.06 or separate


def test_halves_without_an_order_count_for_nobody():
    values = (0.9, 0.6, 0.4, 0.1)
    terms = {name: np.full((8, 2), value) for name, value in zip("abcd", values, strict=True)}
    made = _made_up()
    terms["a"][:2, 1] = np.nan  # in two halves one source lacks a term, so nobody has a place
    combined = _combined(made, terms, 8)
    assert combined.shape == (6, 4) and np.isfinite(combined).all()
    table = _spread(replace(made, table=made.table.assign(gap=[*-np.diff(combined[0]), np.nan])), combined)
    assert list(table["first"]) == [1, 0, 0, 0] and list(table["lowest"]) == [1, 2, 3, 4]
    said = _summary(table, 6, 8, "images")
    assert "2 more had no order" in said and "hardly" in said
    assert "easily change" in _summary(table.assign(gap_low=-0.1), 6, 6, "patients")
    terms["b"][:, 0] = np.nan
    assert _combined(made, terms, 8).shape == (0, 4)


# --- verification ------------------------------------------------------------------------------------------


def test_the_first_two_are_fine_tuned(monkeypatch, ranked):
    tiny = replace(FINE_TUNING_PROTOCOLS["quick"], epochs=1, patience=1, train_per_class=16, val_per_class=8)
    monkeypatch.setitem(FINE_TUNING_PROTOCOLS, "quick", tiny)
    told: list[float] = []
    found = ranking.verify(ranked, 2, progress=lambda fraction, _: told.append(fraction))
    assert list(found.table["source"]) == list(ranked.table["source"][:2])
    assert found.table["test_auc"].between(0, 1).all() and told == sorted(told)
    assert found.test_images == 300 and found.table["source"].iloc[0] in found.summary


TRUTH = np.arange(200) % 2
GOOD = np.stack([1 - TRUTH, TRUTH], axis=1) * 0.6 + 0.2
NOISE, OTHER_NOISE = (np.random.default_rng(seed).random((200, 1)) * [[1, -1]] + [[0, 1]] for seed in (0, 1))


@pytest.mark.parametrize(
    ("probabilities", "says"),
    [
        (
            [GOOD, NOISE],
            r"the first, a, came first of 2, \d\.\d+ AUC ahead of b \(95 % interval over the ",
        ),
        ([NOISE, GOOD], r"the first, a, came in place 2 of 2, \d\.\d+ AUC behind b"),
        ([NOISE, OTHER_NOISE], r"the first, a, .* b cannot be told apart on 200 test images"),
        ([GOOD, None], "training of b diverged: nothing can be said"),
    ],
    ids=["right", "wrong", "undecided", "diverged"],
)
def test_the_summary_of_a_verification(probabilities, says):
    aucs = [
        np.nan if found is None else verification.macro_auc(verification.auc_per_class(TRUTH, found))
        for found in probabilities
    ]
    found = pd.DataFrame({"source": ["a", "b"], "test_auc": aucs})
    given = [GOOD if each is None else each for each in probabilities]
    assert re.match(says, verification._summary(found, given, TRUTH, seed=24))


def test_what_cannot_be_verified_is_reported_before_any_work(target, ranked):
    with pytest.raises(InputError, match="verify at least 2"):
        ranking.check_verifiable(target, 1)
    with pytest.raises(InputError, match="'best' is none of quick"):
        ranking.check_verifiable(target, 2, "best")
    with pytest.raises(InputError, match="no candidate set has an order"):
        replace(ranked, sets=[_made_up(rank=pd.NA)]).first(2)


# --- cost and report ---------------------------------------------------------------------------------------


def test_costs_are_measured_and_scale(ranked):
    cost = ranked.cost
    assert set(cost["by_source"]) == set(ranked.table["source"]) and cost["images"] == 40
    assert all(0 < spent["network"] <= spent["scoring"] for spent in cost["by_source"].values())
    assert cost["seconds"] >= sum(spent["scoring"] for spent in cost["by_source"].values())
    assert ranked.fine_tuning_seconds("standard") > ranked.fine_tuning_seconds("quick") > 0
    assert ranking.stability_cost(ranked, 10) == pytest.approx(10 * ranking.stability_cost(ranked, 1))
    one = ranked.fine_tuning_seconds("quick", [ranked.table["source"].iloc[0]])
    assert 0 < one < ranked.fine_tuning_seconds("quick")


def test_the_recommendation_comes_first_and_names_the_baseline(ranked, repeated, four):
    first, second = ranked.table["source"][:2]
    lines = report.recommendation(replace(ranked, stability=repeated))
    assert lines[0].startswith(f"Fine-tune {first} first, then {second}: of 4 candidates")
    assert repeated.summaries[ranked.sets[0].title] in lines[1]
    place = list(ranked.table["source"]).index(four[0]) + 1
    assert f"The baseline is ImageNet first: {four[0]}, here in place {place} of 4." in lines
    assert "To check, fine-tune both: about" in lines[-1]
    (one,) = ranked.sets
    other = replace(one, table=one.table.assign(pretraining="elsewhere"))
    assert "is not among these" in " ".join(report.recommendation(replace(ranked, sets=[other])))
    inverted = replace(one, kind="architectures")
    assert "baseline" not in " ".join(report.recommendation(replace(ranked, sets=[inverted])))


def test_what_the_ground_truth_says_depends_on_who_is_in_the_candidate_set(ranked):
    (one,) = ranked.sets
    assert "imagenet" in set(one.table["pretraining"])
    mean = evaluation.weighted_tau("source_datasets")["proposed"].mean()
    (said,) = report.context(ranked)
    assert f"mean weighted τ of {mean:.2f}" in said and "other than" not in said
    (said,) = report.context(replace(ranked, sets=[replace(one, table=one.table.assign(pretraining="x"))]))
    assert "among the sources other than ImageNet, RadImageNet and pooled MedMNIST" in said
    assert "mean weighted τ of 0.25" in said  # note 10 of the reproduction


@pytest.mark.parametrize(
    ("seconds", "said"), [(0.31, "0.3 s"), (42, "42 s"), (600, "10 min"), (9000, "2.5 h")]
)
def test_durations(seconds, said):
    assert report.duration(seconds) == said


def test_everything_is_in_the_report(ranked, repeated, tmp_path):
    table = pd.DataFrame({"source": ["a"], "rank": [1], "test_auc": [0.9], "epochs": [3], "seconds": [1.0]})
    first, second, third, last = ranked.sources
    whole = replace(
        ranked,
        stability=repeated,
        verification=ranking.Verification(table, "the first came first", "quick", 300),
        left_out=[ranking.Candidate("imagenet", "there", "some", 224, "not on this machine", 45)],
        remarks={
            first: ["leep: none; why", "small"],
            second: ["leep: none; why"],
            third: [],
            last: ["small"],
        },
    )
    text = str(whole)
    for wanted in (
        "How stable the order is (5 random halves of the images)",
        "95 % interval over images",
        "the first came first",
        "imagenet (45 MB): not on this machine",
        "fine-tuning each of them once would take about",
        "that of always taking ImageNet was",
        "licence",
        f"  {first}, {second}: leep: none; why\n",
        f"  {first}, {last}: small\n",
    ):
        assert wanted in text, wanted
    document = whole.as_document()
    assert json.loads(json.dumps(document, allow_nan=False)) == document
    assert (
        len(document["stability"]["table"]) == 4 and document["verification"]["table"][0]["test_auc"] == 0.9
    )
    assert document["left_out"][0]["source"] == "imagenet" and document["candidate_sets"][0]["agreement"]
    with_pictures, without = (
        whole.save(tmp_path / str(images), images=images)[-1].read_text() for images in (True, False)
    )
    assert "Some of the images" in with_pictures and "Some of the images" not in without
    assert "<script" not in with_pictures and "http" not in without
    with pytest.raises(InputError, match=r"holds ranking\.csv already"):
        whole.save(tmp_path / "True")


def test_hostile_names_are_escaped(ranked):
    (one,) = ranked.sets
    hostile = replace(one, title="<script>", table=one.table.assign(source="<b>", architecture="<i>"))
    cost = ranked.cost | {"by_source": {"<b>": {"network": 1.0}}}
    made = replace(ranked, sets=[hostile], remarks={"<b>": ["<u>"]}, cost=cost)
    for page in (report.as_page(made, b""), made._repr_html_()):
        assert not any(tag in page for tag in ("<script>", "<b>", "<i>", "<u>"))


def _run(capsys, *arguments):
    with pytest.raises(SystemExit) as stopped:
        cli.main([*map(str, arguments)])
    printed = capsys.readouterr()
    return int(stopped.value.code or 0), printed.out, printed.err


def test_the_command_says_the_cost_first_and_gives_the_same_numbers_as_the_call(
    capsys, four, repeated, ranked
):
    named = [word for path in four for word in ("--source", path)]
    code, out, err = _run(
        capsys, "rank", "procedural:lesions", *named, "--per-class", 20, "--repeats", 5, "--json"
    )
    assert code == 0 and err.startswith("5 repeats: about ") and err.count("\n") == 1
    document = json.loads(out)
    rows = document["candidate_sets"][0]["rows"]
    for column in ("source", "nca", "gradient_ratio"):
        assert [row[column] for row in rows] == list(ranked.table[column])
    assert [row["first"] for row in document["stability"]["table"]] == list(repeated.table["first"])


def test_without_an_order_nothing_is_repeated_or_verified(capsys, four):
    named = [word for path in four[:2] for word in ("--source", path)]
    code, out, err = _run(
        capsys, "rank", "procedural:lesions", *named, "--per-class", 20, "--repeats", 5, "--verify", 2
    )
    assert code == 0 and "order undetermined" in out and "nothing to repeat or to verify" in err
