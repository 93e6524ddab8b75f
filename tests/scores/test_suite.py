"""The suite against single scores, the registry, subsampling and memory."""

import inspect
import sys
import tracemalloc
import warnings

import numpy as np
import pytest
from synthetic import evaluate, make

from companion import scores

NAMES = [name for name in scores.REGISTRY if "images" not in scores.REGISTRY[name].inputs]


@pytest.mark.parametrize("variant", ["published", "corrected"])
@pytest.mark.parametrize(
    "arguments",
    [
        dict(n=150, d=40, classes=3),
        dict(n=90, d=300, classes=2),
        dict(n=400, d=300, classes=4, unbalanced=True),
        dict(n=60, d=200, classes=2),
    ],
    ids=["tall", "wide", "many", "saturated"],
)
def test_suite_equals_single_scores(arguments, variant):
    features, labels, logits = make(**arguments)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        card = scores.suite(features, labels, logits, variant=variant)
    assert list(card) == [name for name in NAMES if name != "ncti"]
    for name in card:
        try:
            expected = evaluate(name, features, labels, logits, variant=variant)
        except ValueError as error:
            assert np.isnan(card[name])
            assert card.reasons[name] == f"{name}: {error}"
        else:
            np.testing.assert_allclose(card[name], expected, rtol=1e-10, err_msg=name)
    if "ncti" not in card.reasons:
        np.testing.assert_allclose(
            card.ncti_terms, evaluate("ncti", features, labels, logits, variant=variant), rtol=1e-10
        )


def test_suite_gives_reasons_where_a_score_is_undefined():
    features, labels, _ = make(60, 200, 2)
    card = scores.suite(features, labels, names=["sfda", "leep", "gradient_ratio", "knn"])
    assert list(card) == ["sfda", "leep", "gradient_ratio", "knn"]
    assert card.reasons["sfda"].startswith("sfda: saturated")
    assert card.reasons["leep"] == "leep: not applicable, the source gives no logits"
    assert card.reasons["gradient_ratio"].startswith("gradient_ratio: not applicable, it needs a model")
    assert set(card.reasons) == {"sfda", "leep", "gradient_ratio"}
    assert np.isnan([card[name] for name in card.reasons]).all()
    assert np.isfinite(card["knn"]) and card.ncti_terms is None and len(card) == 4 and "knn" in repr(card)
    with pytest.raises(TypeError):
        card["knn"] = 1.0
    card = scores.suite(features, labels, np.empty((60, 0)), names=["leep", "nce"])
    assert all("no classes" in card.reasons[name] for name in card)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (dict(names=["logmee"]), "^no score 'logmee'. Did you mean 'logme'"),
        (dict(names=["zzz"]), "^no score 'zzz'. There are nca, "),
        (dict(variant="right"), "^variant: "),
        (dict(logits=np.zeros((5, 3))), "^labels: 5 labels are needed, one for each row of logits"),
        (dict(max_points=1), "^size: at least one point for each of the 2.*found 1"),
    ],
)
def test_suite_refuses_what_it_cannot_read(options, message):
    features, labels, _ = make(60, 20, 2)
    with pytest.raises(ValueError, match=message):
        scores.suite(features, labels, **options)


def test_suite_can_score_a_stratified_subsample():
    features, labels, logits = make(800, 40, 3, unbalanced=True)
    rows = scores.stratified_subsample(labels, 300, random_state=4)
    names = ["logme", "parc", "knn", "leep"]
    found = scores.suite(features, labels, logits, names=names, max_points=300, random_state=4)
    expected = scores.suite(features[rows], labels[rows], logits[rows], names=names, random_state=4)
    assert dict(found) == dict(expected)
    whole = scores.suite(features, labels, logits, names=names)
    assert dict(scores.suite(features, labels, logits, names=names, max_points=800)) == dict(whole)
    for name, tolerance in {"logme": 0.1, "parc": 4.0, "knn": 0.1, "leep": 0.05}.items():
        assert found[name] == pytest.approx(whole[name], abs=tolerance)


def test_stratified_subsample_keeps_shares_and_every_class():
    labels = np.repeat(["a", "b", "c"], [600, 399, 1])
    rows = scores.stratified_subsample(labels, 100)
    kept = dict(zip(*np.unique(labels[rows], return_counts=True), strict=True))
    assert kept == {"a": 60, "b": 39, "c": 1}
    assert (np.diff(rows) > 0).all()
    assert (scores.stratified_subsample(labels, 100) == rows).all()
    assert (scores.stratified_subsample(labels, 100, random_state=1) != rows).any()
    assert (scores.stratified_subsample(labels, 5000) == np.arange(1000)).all()
    sizes = [len(scores.stratified_subsample(labels, size)) for size in range(3, 40)]
    assert sizes == list(range(3, 40))


def test_corrected_parc_subsamples_beyond_its_limit(monkeypatch):
    module = sys.modules["companion.scores.parc"]
    features, labels, _ = make(300, 40, 3)
    monkeypatch.setattr(module, "MAX_POINTS", 120)
    rows = scores.stratified_subsample(labels, 120, random_state=2)
    assert scores.parc(features, labels, random_state=2) == scores.parc(features[rows], labels[rows])
    with pytest.raises(ValueError, match="^features: published PARC needs .* 32 to 120 points"):
        scores.parc(features, labels, variant="published")


def test_registry_describes_every_score():
    for name, info in scores.REGISTRY.items():
        assert info.name == name and info.title and info.reference and info.doi_or_arxiv
        assert info.variants in ((), ("published", "corrected")) and info.pooled == (name == "ncti")
        if name == "gradient_ratio_scale_invariant":  # a variant of another score
            assert info.function.func is scores.gradient_ratio
            continue
        assert info.function is getattr(scores, "ncti_terms" if name == "ncti" else name)
        parameters = inspect.signature(info.function).parameters
        assert ("variant" in parameters) == bool(info.variants)
        positional = [own.name for own in parameters.values() if own.kind is not own.KEYWORD_ONLY]
        assert positional == [*["model"] * ("images" in info.inputs), *info.inputs]


@pytest.mark.parametrize("shape", [(150, 3000), (1500, 40)], ids=str)
@pytest.mark.parametrize("name", NAMES)
def test_peak_memory_is_no_worse_than_points_squared_plus_features(name, shape):
    n, d = shape
    features = np.random.default_rng(0).standard_normal((n, d))
    labels = np.arange(n) % 3
    logits = features[:, :10].copy()
    evaluate(name, features[:60, :20], labels[:60], logits[:60])  # imports and caches
    tracemalloc.start()
    try:
        evaluate(name, features, labels, logits)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 8 * 8 * (n * n + n * d)


@pytest.mark.parametrize("name", ["nleep", "linear_probe"])
def test_the_seed_reaches_the_scores_in_which_chance_enters(name):
    features, labels, _ = make(120, 20, 3, separation=0.05)
    function = scores.REGISTRY[name].function
    values = [function(features, labels, random_state=seed) for seed in range(6)]
    found = [scores.suite(features, labels, names=name, random_state=seed)[name] for seed in range(6)]
    assert found == pytest.approx(values)
    assert len(set(values)) > 1
