"""The statements about the replication, on tables with planted answers."""

from __future__ import annotations

import zlib

import numpy as np
import pandas as pd
import pytest

from companion import evaluation
from companion.errors import InputError
from companion.evaluation import judging as room

TARGETS = room.MEDICAL
SIZES = {
    "scratch": 0,
    "breastmnist": 546,
    "pneumoniamnist": 4708,
    "retinamnist": 1080,
    "mednist_64": 3600,
    "cifar10_32": 3000,
    "tiny_imagenet": 12000,
    "leave-target-out": 6000,
}


def planted(auc_of, score_of, noise: float = 0.002) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Runs and scores of three folds with the AUC and scores that two functions of (source, target) give."""
    rng = np.random.default_rng(0)
    runs, scores = [], []
    for target in TARGETS:
        for source in SIZES:
            if source == target:
                continue
            for fold in (1, 2, 3):
                auc = auc_of(source, target) + noise * rng.standard_normal()
                for lr in (0.001, 0.01):
                    row = {
                        "key": f"{source}{target}{fold}{lr}",
                        "source": source,
                        "target": target,
                        "fold": fold,
                    }
                    runs.append(
                        row
                        | {"lr": lr, "status": "finished", "val_loss": lr, "val_auc": auc, "test_auc": auc}
                    )
                names = ("logme", "parc", "sfda", "leep", "nleep", "nca", "gradient_ratio")
                values = {
                    name: score_of(name, source, target) + 1e-6 * rng.standard_normal() for name in names
                }
                terms = {f"ncti_term_{k}": rng.random() for k in (1, 2, 3)}
                scores.append(
                    {
                        "source": source,
                        "target": target,
                        "fold": fold,
                        **values,
                        **terms,
                        "training_images": SIZES[source],
                        "seconds": 1.0,
                    }
                )
    return pd.DataFrame(runs), pd.DataFrame(scores)


def quality(source: str, target: str) -> float:
    """An order of the sources that differs by target and has nothing to do with size."""
    order = list(SIZES)
    return order.index(source) * (3 + 2 * TARGETS.index(target)) % len(order) / 100


def judged(auc_of, score_of, **options) -> dict[str, str]:
    found = evaluation.judge_statements(*planted(auc_of, score_of, **options), draws=300)
    assert (found["low"] <= found["high"]).all()
    return dict(zip(found["statement"], found["verdict"], strict=True))


def test_planted_support():
    def auc(source, target):
        return (
            0.7
            + (source != "scratch") * (0.1 + quality(source, target))
            + (source == "leave-target-out") * 0.1
        )

    def score(name, source, target):
        return auc(source, target) if name in ("nca", "gradient_ratio") else -auc(source, target)

    found = judged(auc, score)
    assert found[room.HELPS] == found[room.DIVERSITY] == room.SUPPORTED
    assert found[room.FEATURES] in (room.SUPPORTED, room.UNDECIDED)  # NCTI's terms are noise


def test_planted_contradiction():
    def auc(source, target):
        return 0.7 + 0.05 * (source == "scratch") + SIZES[source] / 1e5 - 0.2 * (source == "leave-target-out")

    def score(name, source, target):
        return -auc(source, target) if name in ("nca", "gradient_ratio") else auc(source, target)

    found = judged(auc, score)
    assert found[room.HELPS] == found[room.DIVERSITY] == room.CONTRADICTED
    assert found[room.FEATURES] == found[room.TRIVIAL] == room.CONTRADICTED


def test_a_size_effect_contradicts_and_noise_decides_nothing():
    found = judged(lambda s, t: 0.6 + SIZES[s] / 1e5, lambda n, s, t: quality(s, t), noise=1e-5)
    assert found[room.SIZE] == room.CONTRADICTED
    rng = np.random.default_rng(3)
    noise = judged(lambda s, t: 0.7, lambda n, s, t: rng.random(), noise=0.05)
    assert noise[room.FEATURES] == noise[room.HELPS] == room.UNDECIDED


@pytest.mark.parametrize(
    ("statement", "low", "high", "least", "most", "verdict"),
    [
        (room.SIZE, 0.02, 0.5, 0.1, 0.4, room.CONTRADICTED),
        (room.SIZE, 0.02, 0.5, -0.01, 0.4, room.UNDECIDED),  # one target carries it
        (room.SIZE, -0.01, 0.01, 0.0, 0.0, room.UNDECIDED),  # noise is no support
        (room.HELPS, 0.1, 0.2, 0.1, 0.2, room.SUPPORTED),
        (room.HELPS, 0.1, 0.2, -0.01, 0.2, room.UNDECIDED),
        (room.HELPS, -0.2, -0.1, -0.2, 0.01, room.UNDECIDED),
        (room.HELPS, -0.2, -0.1, -0.2, -0.1, room.CONTRADICTED),
    ],
)
def test_no_verdict_rests_on_one_target_or_on_an_interval_around_0(
    statement, low, high, least, most, verdict
):
    block = pd.DataFrame([{"low": low, "high": high, "least": least, "most": most}])
    assert room._VERDICTS[statement](block) == verdict


def test_the_values_without_one_target_are_told():
    runs, scores = planted(lambda s, t: 0.7 + quality(s, t), lambda n, s, t: quality(s, t))
    found = evaluation.judge_statements(runs, scores, draws=2).set_index("statement").loc[room.SIZE]
    each = (
        runs.merge(scores).query("source != 'scratch'").groupby(["target", "source"]).mean(numeric_only=True)
    )
    taus = [
        evaluation.tau(block["training_images"], block["test_auc"]) for _, block in each.groupby("target")
    ]
    fewer = [np.mean(np.delete(taus, place)) for place in range(4)]
    assert [found["value"], found["least"], found["most"]] == pytest.approx(
        [np.mean(taus), min(fewer), max(fewer)]
    )


def test_scores_are_compared_on_the_sources_that_have_both():
    def score(name, source, target):  # right, but for random weights, for which LEEP is not defined
        if source == "scratch":
            return np.nan if name == "leep" else 9.0
        return quality(source, target)

    runs, scores = planted(lambda s, t: 0.5 + quality(s, t), score, noise=0.0)
    found = evaluation.judge_statements(runs, scores, draws=2)
    value = found.set_index("quantity")["value"]
    two = scores.assign(sfda=scores["sfda"].where(scores["source"].isin(["scratch", "cifar10_32"])))
    assert np.isnan(
        evaluation.judge_statements(runs, two, draws=2).set_index("quantity")["value"].filter(like="sfda")
    ).all()
    assert value["τ_w of the proposed score less that of leep"] == pytest.approx(0, abs=1e-9)


def test_the_first_value_is_of_the_data_themselves():
    runs, scores = planted(
        lambda s, t: 0.7 + 0.01 * (s != "scratch"), lambda n, s, t: quality(s, t), noise=0.0
    )
    found = evaluation.judge_statements(runs, scores, draws=2).set_index("statement")
    assert found.loc[room.HELPS, "value"] == pytest.approx(0.01)
    size = found.loc[room.SIZE, "value"]
    by_hand = [
        evaluation.tau(
            [SIZES[s] for s in SIZES if s not in (t, "scratch")],
            [0.71 for s in SIZES if s not in (t, "scratch")],
        )
        for t in TARGETS
    ]
    assert np.isnan(size) and np.isnan(by_hand).all()  # equal AUC: no order to judge
    again = evaluation.judge_statements(runs, scores, draws=2).set_index("statement")
    assert found.equals(again)


def test_an_unfinished_replication_is_not_judged():
    runs, scores = planted(lambda s, t: 0.7, lambda n, s, t: 0.5)
    with pytest.raises(InputError, match="lacks runs or scores of retinamnist"):
        evaluation.judge_statements(
            runs[runs["key"] != "scratchretinamnist10.001"].query(
                "not (source == 'scratch' and target == 'retinamnist' and fold == 1)"
            ),
            scores,
        )
    runs.attrs["provenance"] = {"runs": {"stored": 5, "planned": 168}}
    with pytest.raises(InputError, match="has 5 of 168 runs"):
        evaluation.judge_statements(runs, scores)


def test_the_orders_are_those_of_scipy():
    runs, scores = planted(
        lambda s, t: 0.7 + quality(s, t), lambda n, s, t: zlib.crc32(f"{n}{s}".encode()) % 97 / 97, noise=0.01
    )
    found = evaluation.judge_statements(runs, scores, draws=2).set_index(["statement", "quantity"])["value"]
    auc = runs.groupby(["target", "source"])["test_auc"].mean()
    logme = scores.groupby(["target", "source"])[["logme", "nca", "gradient_ratio"]].mean()
    expected = []
    for target in TARGETS:
        block = logme.loc[target]
        proposed = [(c - c.min()) / (c.max() - c.min()) for c in (block["nca"], block["gradient_ratio"])]
        truth = auc[target].reindex(block.index)
        expected.append(
            evaluation.tau(proposed[0] * proposed[1], truth) - evaluation.tau(block["logme"], truth)
        )
    assert found[room.FEATURES, "τ_w of the proposed score less that of logme"] == pytest.approx(
        np.mean(expected)
    )
