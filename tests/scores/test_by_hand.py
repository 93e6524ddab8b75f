"""Scores of tiny cases that can be worked out on paper."""

import importlib
import sys

import numpy as np
import pytest
import sklearn.neighbors
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis
from synthetic import make

from companion import scores


def test_leep_of_source_classes_that_say_nothing_is_minus_the_label_entropy():
    labels = np.array([0, 0, 0, 1])
    entropy = -(0.75 * np.log(0.75) + 0.25 * np.log(0.25))
    assert scores.leep(np.zeros((4, 3)), labels) == pytest.approx(-entropy)


def test_leep_of_certain_source_classes_is_nce():
    labels = np.array([0, 0, 1, 1])
    logits = 1000.0 * np.eye(2)[[0, 0, 0, 1]]
    # source class 0 holds labels 0, 0, 1 and source class 1 holds label 1
    expected = (2 * np.log(2 / 3) + np.log(1 / 3) + np.log(1.0)) / 4
    assert scores.leep(logits, labels) == pytest.approx(expected)
    assert scores.nce(logits, labels) == pytest.approx(expected)


def test_leep_of_two_points():
    logits = np.log([[0.8, 0.2], [0.4, 0.6]])
    # P(y, z) = [[.4, .1], [.2, .3]]; P(z) = [.6, .4]; P(0|z) = [2/3, 1/4]; P(1|z) = [1/3, 3/4]
    first = 0.8 * 2 / 3 + 0.2 * 1 / 4
    second = 0.4 * 1 / 3 + 0.6 * 3 / 4
    assert scores.leep(logits, ["no", "yes"]) == pytest.approx((np.log(first) + np.log(second)) / 2)


def test_leep_ignores_source_classes_of_zero_probability():
    labels = np.array([0, 0, 1, 1])
    logits = np.array([[1.0, 0.0], [0.5, 0.2], [0.0, 1.0], [0.3, 0.6]])
    impossible = np.hstack([logits, np.full((4, 2), -1e6)])
    assert scores.leep(impossible, labels) == pytest.approx(scores.leep(logits, labels))


def test_nce_counts():
    logits = np.eye(2)[[0, 0, 1, 1, 1, 1]]
    labels = [0, 1, 0, 0, 0, 1]
    expected = (2 * np.log(1 / 2) + 3 * np.log(3 / 4) + np.log(1 / 4)) / 6
    assert scores.nce(logits, labels) == pytest.approx(expected)


def test_hscore_in_one_dimension_is_the_share_of_variance_between_classes():
    features = np.array([[0.0], [2.0], [4.0], [6.0]])
    # total variance 5, class means 1 and 5: between 4; no shrinkage in one dimension
    assert scores.hscore(features, [0, 0, 1, 1]) == pytest.approx(4 / 5)


def test_hscore_with_shrinkage_by_hand():
    features = np.array([[3.0, 0.0], [1.0, 0.0], [-1.0, 0.0], [-3.0, 0.0]])
    # covariance diag(5, 0): mu 2.5, distance² (2.5² + 2.5²)/2 = 6.25; noise Σ(x² - 5)²/(2·16) = 64/32 = 2
    alpha = 2 / 6.25
    variance = (1 - alpha) * 5 + alpha * 2.5
    assert scores.hscore(features, [0, 0, 1, 1]) == pytest.approx((1 - alpha) * 4 / variance)


def test_transrate_in_one_dimension(monkeypatch):
    features = np.array([[-1.0], [-1.0], [1.0], [1.0]])
    # every class has the same mean square as the whole: nothing is gained, whatever the distortion
    assert scores.transrate(features, [0, 0, 1, 1]) == pytest.approx(0.0, abs=1e-12)
    features = np.array([[-1.0], [0.0], [0.0], [1.0]])
    rate = [0.5 * np.log(1 + s / 0.5) for s in (0.5, 1.0, 0.0)]
    monkeypatch.setattr(sys.modules["companion.scores.transrate"], "DISTORTION", 0.5)
    assert scores.transrate(features, [0, 1, 1, 0]) == pytest.approx(rate[0] - (rate[1] + rate[2]) / 2)


def test_gbc_of_two_spherical_classes():
    features = np.array([[-3.0], [-1.0], [1.0], [3.0]])
    # means -2 and 2, variances 1: distance 16/8 = 2, both orders of the pair
    assert scores.gbc(features, [0, 0, 1, 1]) == pytest.approx(-2 * np.exp(-2.0))


def test_knn_counts_the_others_only_and_shares_ties(monkeypatch):
    monkeypatch.setattr(sys.modules["companion.scores.knn"], "NEIGHBOURS", 1)
    features = np.array([[0.0], [1.0], [10.0], [11.0]])
    assert scores.knn(features, [0, 0, 1, 1]) == 1.0
    assert scores.knn(features, [0, 1, 0, 1]) == 0.0
    # both others at the same distance share the one place: half a vote each, a tie between two classes
    assert scores.knn([[-1.0], [0.0], [0.0], [1.0]], [0, 0, 1, 1]) == pytest.approx(0.25)


def test_rank_correlation_of_parc_by_hand():
    module = sys.modules["companion.scores.parc"]
    # Rows sum to zero, so correlations are cosines; below the diagonal: .93, -.5, -.79, -.14, -.5, .93.
    points = np.array([[3.0, -1.0, -2.0], [3.0, -2.0, -1.0], [-2.0, 3.0, -1.0], [-1.0, 3.0, -2.0]])
    ranks = np.array([5.5, 2.5, 1.0, 4.0, 2.5, 5.5])
    same = np.array([1, 0, 0, 0, 0, 1])
    below = np.tril_indices(4, -1)
    found = module._rank_correlation(np.corrcoef(points)[below].round(12), same == 1)
    assert found == pytest.approx(np.corrcoef(ranks, same)[0, 1])


@pytest.mark.parametrize("score", [scores.nca, scores.lda])
def test_separated_classes_count_the_place_of_a_point_itself_or_not(score):
    features = np.vstack([np.zeros((3, 2)), np.full((3, 2), 9.0)]) + 0.01 * np.arange(12).reshape(6, 2)
    labels = [0, 0, 0, 1, 1, 1]
    # five neighbours: with itself 3 of 5 are of its class, without itself 2 of 5
    assert score(features, labels, variant="published") == pytest.approx(3 / 5)
    assert score(features, labels) == pytest.approx(2 / 5)
    four = [0, 1, 3, 4]  # fewer others than five: all of them, of which one is of its class
    assert score(features[four], np.array(labels)[four]) == pytest.approx(1 / 3)


def test_logme_of_one_column_by_direct_evidence():
    features = np.array([[1.0], [2.0], [-1.0], [0.5]])
    labels = np.array([1, 1, 0, 0])
    evidences = []
    for y in (1.0 - labels, labels.astype(float)):
        alpha = beta = 1.0
        square, product = float((features**2).sum()), float(features[:, 0] @ y)
        for _ in range(11):
            t = alpha / beta
            weight = product / (square + t)
            gamma = square / (square + t)
            residual = float(((y - features[:, 0] * weight) ** 2).sum())
            alpha, beta = gamma / (weight**2 + 1e-5), (4 - gamma) / (residual + 1e-5)
            if abs(alpha / beta - t) <= 1e-3 * t:
                break
        evidences.append(
            0.5 * np.log(alpha)
            + 2 * np.log(beta)
            - 0.5 * np.log(alpha + beta * square)
            - 0.5 * (beta * residual + alpha * weight**2)
            - 2 * np.log(2 * np.pi)
        )
    assert scores.logme(features, labels) == pytest.approx(np.mean(evidences) / 4)


def test_nca_asks_for_the_paper_s_projection(monkeypatch):
    asked, real = [], sklearn.neighbors.NeighborhoodComponentsAnalysis
    monkeypatch.setattr(
        sklearn.neighbors,
        "NeighborhoodComponentsAnalysis",
        lambda *given, **options: asked.append(real(*given, **options)) or asked[0],
    )
    features, labels, _ = make(120, 64, 3)
    module = importlib.import_module("companion.scores.nca")
    assert module.embed(features, labels).shape == (120, 50)
    assert (asked[0].n_components, asked[0].max_iter, asked[0].tol) == (50, 50, 1e-5)
    assert module.NEIGHBOURS == 5


def test_lda_s_axes_are_scikit_learn_s_also_where_classes_differ_in_size():
    features, labels, _ = make(200, 10, 4, unbalanced=True)
    ours = importlib.import_module("companion.scores.lda").project(features, labels)
    theirs = LinearDiscriminantAnalysis(solver="svd").fit_transform(features.astype(float), labels)
    between = np.corrcoef(ours.T, theirs.T)[:3, 3:]
    assert np.abs(np.diag(between)) == pytest.approx(1, abs=1e-6)
