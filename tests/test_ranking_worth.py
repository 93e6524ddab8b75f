"""What stands beside a ranking: who can be ranked, do methods agree, how sure it is, was it right, what it took."""

from __future__ import annotations

import json
import re

import numpy as np
import pandas as pd
import pytest
from companion.ranking.table import training_size
from safetensors.torch import save_file

from companion import cli, datasets, evaluation, models, published, rank, ranking, report, scores, sources
from companion.datasets import files, images
from companion.errors import InputError
from companion.ranking import verification
from companion.ranking.stability import _combined, _rows, _summary, halves, lead
from companion.scores import REGISTRY
from companion.training import FINE_TUNING_PROTOCOLS
from image_files import folder

SMALL = "shufflenet_v2_x0_5"


@pytest.fixture(scope="module")
def target() -> datasets.Dataset:
    return datasets.load_dataset("procedural:lesions")


@pytest.fixture(scope="module")
def four(tmp_path_factory) -> list[str]:
    """Four checkpoints of one architecture; the first says that it is ImageNet's."""
    folder = tmp_path_factory.mktemp("weights")
    paths = []
    for seed in range(4):
        model = models.scratch(SMALL, seed=seed)
        model.pretraining = "imagenet" if seed == 0 else f"set {seed}"
        paths.append(str(sources.save(model, folder / f"model{seed}.safetensors")))
    return paths


@pytest.fixture(scope="module")
def table(target, four) -> pd.DataFrame:
    return rank(target, four, per_class=20, scores=("nca", "gradient_ratio", "logme"))


@pytest.fixture(scope="module")
def repeated(table, target, four) -> pd.DataFrame:
    return ranking.stability(table, target, four, 5, per_class=20)


# --- candidates --------------------------------------------------------------------------------------------


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
        sources.imagenet_file("resnet18")[1],
        sources.imagenet_file("vgg11")[1],
        sources.medmnist_file("pathmnist"),
        data / "weights" / "radimagenet.pth",
        data / "weights" / "medmnist_without_breastmnist.safetensors",
    ):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"weights")
    sources.save(models.scratch(SMALL), data / "weights" / "own.safetensors")
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
    root = folder(tmp_path / "scans", {"a": 30, "b": 30})
    monkeypatch.setattr(files, "IN_MEMORY", 0)
    read, decoded = images.read, []
    monkeypatch.setattr(
        images, "read", lambda path, *given, **more: decoded.append(path) or read(path, *given, **more)
    )
    pair = [models.scratch(SMALL, seed=seed, name=f"scratch {seed}") for seed in range(2)]
    table = rank(root, pair, size=28, per_class=12, scores=())
    assert len(decoded) == len(set(decoded)) == table.attrs["cost"]["images"] == 24


def test_without_sources_the_call_takes_the_candidates(own_cache, monkeypatch, tmp_path):
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    with pytest.raises(InputError, match="only random weights can be had here"):
        rank("procedural:lesions")
    monkeypatch.setattr(
        "companion.ranking.at_hand.candidates", lambda *_a, **_o: ([_had("scratch"), _had("x")], [])
    )
    with pytest.raises(InputError, match="no source 'x'"):
        rank("procedural:lesions", architecture=SMALL, per_class=12, scores=())


def _had(name: str) -> ranking.Candidate:
    return ranking.Candidate(name, "", "", None)


# --- agreement ---------------------------------------------------------------------------------------------


def _made_up(kind: str = "source_datasets") -> pd.DataFrame:
    found = pd.DataFrame(
        {
            "pool": "p",
            "source": list("abcd"),
            "proposed": [1.0, 0.6, 0.3, 0.0],
            "nca": [0.9, 0.8, 0.7, 0.6],
            "gradient_ratio": [4.0, 3.0, 2.0, 1.0],
            "logme": [1.0, 2.0, 3.0, 4.0],
            "leep": [np.nan, 1.0, np.nan, np.nan],
            "parc": 0.5,
        }
    )
    found.attrs["pools"] = [{"pool": "p", "kind": kind, "order": "determined", "sources": 4}]
    return found


def test_agreement_by_hand():
    found = ranking.agreement(_made_up()).set_index("method")
    assert list(found.index) == ["proposed", "nca", "gradient_ratio", "logme"]
    assert dict(found["first"]) == {"proposed": "a", "nca": "a", "gradient_ratio": "a", "logme": "d"}
    assert found.loc["proposed", "tau"] == pytest.approx(1 / 3) and found.loc["logme", "tau"] == -1


def test_methods_are_inverted_among_architectures_as_where_they_are_judged():
    made = _made_up("architectures").drop(columns=["leep", "parc"])
    seven = [name for name in published.METRICS if name in REGISTRY]
    made[seven] = np.repeat(
        np.arange(4.0)[:, None], len(seven), axis=1
    )  # by each of them the last is best, before inversion
    first = ranking.agreement(made).set_index("method")["first"]
    straight, turned = (
        evaluation.published_pairs("architectures", inverted=given) for given in (False, True)
    )
    for name in seven:
        inverted = not np.array_equal(straight[name], turned[name], equal_nan=True)
        assert first[name] == ("a" if inverted else "d"), name
    assert (first["nca"], first["gradient_ratio"]) == ("d", "d") and first["logme"] == "d"


def test_three_sources_are_enough_for_methods_to_agree():
    three = _made_up().iloc[:3]
    found = ranking.agreement(three).set_index("method")
    assert found.loc["nca", "tau"] == pytest.approx(1 / 3) and len(found) == 4
    assert ranking.agreement(three.iloc[:2])["tau"].isna().all()


def test_a_pool_without_an_order_has_no_proposed_first():
    made = _made_up()
    made.attrs["pools"][0]["order"] = "undetermined"
    assert "proposed" not in set(ranking.agreement(made)["method"])


# --- repeats -----------------------------------------------------------------------------------------------


def test_repeats_count(repeated, table):
    assert list(repeated["source"]) == list(table["source"])
    assert repeated["first"].sum() >= 1 and repeated["first"].between(0, 1).all()
    assert (repeated["highest"] <= repeated["lowest"]).all() and repeated["highest"].min() == 1
    assert (repeated["gap_low"] <= repeated["gap"])[:-1].all() and (repeated["gap"] <= repeated["gap_high"])[
        :-1
    ].all()
    assert repeated[["gap", "gap_low", "gap_high"]].iloc[-1].isna().all()
    assert repeated.attrs["seconds"] > 0 and list(repeated.attrs["summaries"]) == [table["pool"].iloc[0]]


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
    names = ["a", "b", "c", "d"]
    terms = {
        name: np.array([[value, value]] * 8) for name, value in zip(names, (0.9, 0.6, 0.4, 0.1), strict=True)
    }
    terms["a"][:2, 1] = np.nan  # in two halves one source lacks a term, so nobody has a place
    combined = _combined(names, terms, 8, kind="source_datasets")
    assert combined.shape == (6, 4) and np.isfinite(combined).all()
    gaps = [*-np.diff(combined[0]), np.nan]
    rows = _rows(pd.DataFrame({"pool": "p", "source": names, "rank": [1, 2, 3, 4], "gap": gaps}), combined)
    assert [row["first"] for row in rows] == [1, 0, 0, 0] and [row["lowest"] for row in rows] == [1, 2, 3, 4]
    assert "2 more had no order" in _summary(rows, 6, 8, "images") and "hardly" in _summary(
        rows, 6, 8, "images"
    )
    assert "easily change" in _summary([rows[0] | {"gap_low": -0.1}, rows[1]], 6, 6, "patients")
    terms["b"][:, 0] = np.nan
    assert _combined(names, terms, 8, kind="source_datasets").shape == (0, 4)


def test_too_few_repeats_are_refused(table, target, four):
    with pytest.raises(InputError, match="give at least 5"):
        ranking.stability(table, target, four, 4)


def test_what_the_ground_truth_says_depends_on_who_is_in_the_pool(table):
    from companion import evaluation

    small = table.assign(pretraining="elsewhere")
    small.attrs = table.attrs
    said = report.contexts(small)
    assert "among the sources other than ImageNet, RadImageNet and pooled MedMNIST" in said
    assert "mean weighted τ of 0.25" in said  # note 10 of the reproduction
    mean = evaluation.weighted_tau("source_datasets")["proposed"].mean()
    assert "imagenet" in set(table["pretraining"])
    assert f"mean weighted τ of {mean:.2f}" in report.contexts(table) and "other than" not in report.contexts(
        table
    )


def test_what_lies_level_with_the_second_is_named(table):
    (pool,) = table.attrs["pools"]
    rows = table.assign(proposed=[0.5, 0.0, 0.0, 0.0])
    first, *others = rows["source"]
    assert report.verdict(pool, rows).startswith(f"{first} leads {' and '.join(others)} by")


# --- verification ------------------------------------------------------------------------------------------


def test_the_first_two_are_fine_tuned(monkeypatch, table, target, four):
    protocol = FINE_TUNING_PROTOCOLS["quick"]
    tiny = type(protocol)(
        "quick", epochs=1, patience=1, lr=(0.01,), batch_size=(32,), train_per_class=16, val_per_class=8
    )
    monkeypatch.setitem(FINE_TUNING_PROTOCOLS, "quick", tiny)
    told: list[float] = []
    found = ranking.verify(table, target, four, 2, progress=lambda fraction, _: told.append(fraction))
    assert list(found["source"]) == list(table["source"][:2])
    assert found["test_auc"].between(0, 1).all() and told == sorted(told)
    assert found.attrs["test_images"] == 300 and found["source"].iloc[0] in found.attrs["verdict"]


TRUTH = np.arange(200) % 2
GOOD = np.stack([1 - TRUTH, TRUTH], axis=1) * 0.6 + 0.2
NOISE, OTHER_NOISE = (np.random.default_rng(seed).random((200, 1)) * [[1, -1]] + [[0, 1]] for seed in (0, 1))


@pytest.mark.parametrize(
    ("probabilities", "says"),
    [
        (
            [GOOD, NOISE],
            r"the ranking was right: a came first of 2, \d\.\d+ AUC ahead of b \(95 % interval over the ",
        ),
        ([NOISE, GOOD], r"the ranking was wrong: its first, a, came in place 2 of 2, \d\.\d+ AUC behind b"),
        ([NOISE, OTHER_NOISE], r"the first, a, .* b cannot be told apart on 200 test images"),
        ([GOOD, None], "training of b diverged: nothing can be said"),
    ],
    ids=["right", "wrong", "undecided", "diverged"],
)
def test_the_verdict(probabilities, says):
    aucs = [
        np.nan if found is None else verification.macro_auc(verification.auc_per_class(TRUTH, found))
        for found in probabilities
    ]
    found = pd.DataFrame({"source": ["a", "b"], "test_auc": aucs})
    given = [GOOD if each is None else each for each in probabilities]
    assert re.match(says, verification._verdict(found, given, TRUTH, seed=24))


def test_what_cannot_be_verified_is_told_before_any_work(target):
    with pytest.raises(InputError, match="verify at least 2"):
        ranking.images_to_verify(target, 1)
    with pytest.raises(InputError, match="'best' is none of quick"):
        ranking.images_to_verify(target, 2, "best")
    made = _made_up()
    made.attrs["pools"][0]["order"] = "undetermined"
    with pytest.raises(InputError, match="no pool has an order"):
        ranking.first_sources(made, 2)


# --- cost and report ---------------------------------------------------------------------------------------


def test_costs_are_measured_and_scale(table, target):
    cost = table.attrs["cost"]
    assert set(cost["by_source"]) == set(table["source"]) and cost["images"] == 40
    assert all(0 < spent["network"] <= spent["scoring"] for spent in cost["by_source"].values())
    assert cost["seconds"] >= sum(spent["scoring"] for spent in cost["by_source"].values())
    assert cost["fine_tuning"]["standard"] > cost["fine_tuning"]["quick"] > 0
    assert ranking.stability_cost(table, 10) == pytest.approx(10 * ranking.stability_cost(table, 1))
    one = ranking.fine_tuning_seconds(cost, target, FINE_TUNING_PROTOCOLS["quick"], [table["source"].iloc[0]])
    assert 0 < one < cost["fine_tuning"]["quick"]


def test_the_trivial_answer_stands_beside(table, four):
    (pool,) = table.attrs["pools"]
    place = list(table["source"]).index(four[0]) + 1
    assert report.trivial(pool, table).startswith(f"the trivial answer: {four[0]} first; here it has place")
    assert place <= 4
    assert "is not among these" in report.trivial(pool, table[table["source"] != four[0]])
    assert report.trivial(pool | {"kind": "architectures"}, table) == ""


@pytest.mark.parametrize(
    ("seconds", "said"), [(0.31, "0.3 s"), (42, "42 s"), (600, "10 min"), (9000, "2.5 h")]
)
def test_durations(seconds, said):
    assert report.duration(seconds) == said


def test_a_note_that_several_sources_share_stands_once(table):
    noted = table.copy()
    noted["note"] = ["leep: none; why; trained at 28 px", "leep: none; why", "", "trained at 28 px"]
    text = report.as_text(noted)
    first, second, _, last = noted["source"]
    assert (
        f"  {first}, {second}: leep: none; why\n" in text and f"  {first}, {last}: trained at 28 px\n" in text
    )


def test_everything_is_in_the_report(table, repeated, target, tmp_path):
    verification_found = pd.DataFrame(
        {"source": ["a"], "rank": [1], "test_auc": [0.9], "epochs": [3], "seconds": [1.0]}
    )
    verification_found.attrs |= {"verdict": "the ranking was right", "protocol": "quick", "test_images": 300}
    left_out = [ranking.Candidate("imagenet", "there", "some", 224, "not on this machine", 45)]
    extras = report.Extras(left_out, repeated, verification_found, target)
    text = report.as_text(table, extras)
    for wanted in (
        "the trivial answer",
        "put first:",
        "How stable the order is (5 random halves of the images)",
        "95 % interval over images",
        "the ranking was right",
        "imagenet (45 MB): not on this machine",
        "fine-tuning each of them once would take about",
        "always taking ImageNet gave away",
        "licence",
    ):
        assert wanted in text, wanted
    document = report.as_document(table, extras)
    assert json.loads(json.dumps(document, allow_nan=False)) == document
    assert len(document["stability"]["rows"]) == 4 and document["verification"]["rows"][0]["test_auc"] == 0.9
    assert document["left_out"][0]["source"] == "imagenet" and document["agreement"]
    with_pictures, without = (
        report.write(table, tmp_path / name, extras=given)[-1].read_text()
        for name, given in (("with", extras), ("without", report.Extras(left_out, repeated)))
    )
    assert "Some of the images" in with_pictures and "Some of the images" not in without
    assert "<script" not in with_pictures and "http" not in without.replace(
        "https://download.pytorch.org", ""
    )


def _run(capsys, *arguments):
    with pytest.raises(SystemExit) as stopped:
        cli.main([*map(str, arguments)])
    printed = capsys.readouterr()
    return int(stopped.value.code or 0), printed.out, printed.err


def test_the_command_says_the_cost_first_and_gives_the_same_numbers_as_the_call(
    capsys, four, repeated, table
):
    named = [word for path in four for word in ("--source", path)]
    code, out, err = _run(
        capsys, "rank", "procedural:lesions", *named, "--per-class", 20, "--repeats", 5, "--json"
    )
    assert code == 0 and err.startswith("5 repeats: about ") and err.count("\n") == 1
    document = json.loads(out)
    rows = document["pools"][0]["rows"]
    assert [row["source"] for row in rows] == list(table["source"])
    assert [row["nca"] for row in rows] == list(table["nca"])
    assert [row["gradient_ratio"] for row in rows] == list(table["gradient_ratio"])
    assert [row["first"] for row in document["stability"]["rows"]] == list(repeated["first"])


def test_without_an_order_nothing_is_repeated_or_verified(capsys, four):
    named = [word for path in four[:2] for word in ("--source", path)]
    code, out, err = _run(
        capsys, "rank", "procedural:lesions", *named, "--per-class", 20, "--repeats", 5, "--verify", 2
    )
    assert code == 0 and "order undetermined" in out and "nothing to repeat or to verify" in err
