"""The decompositions that scores share: a few leading eigenvectors are those of the full decomposition."""

from __future__ import annotations

import sys

import numpy as np
import pytest
from synthetic import make

from companion.scores import _shared, parc


def gram(kind: str) -> np.ndarray:
    rng = np.random.default_rng(5)
    if kind == "features":
        x = make(400, 300, 5)[0].astype(float)
    elif kind == "noise":
        x = rng.standard_normal((300, 300))
    elif kind == "twins":  # every eigenvalue twice
        x = np.kron(np.eye(2), rng.standard_normal((150, 100)))
    elif kind == "few":  # fewer dimensions than are asked for
        x = rng.standard_normal((300, 12)) @ rng.standard_normal((12, 280))
    else:  # forty equal eigenvalues above the rest
        return np.diag(np.r_[np.full(40, 6.0), np.full(260, 5.0)])
    return (x - x.mean(axis=0)).T @ (x - x.mean(axis=0))


@pytest.mark.parametrize("k", [1, 32, 64])
@pytest.mark.parametrize("kind", ["features", "noise", "twins", "few", "equal"])
def test_leading_eigenpairs_are_those_of_the_full_decomposition(kind, k):
    matrix = gram(kind)
    values, vectors = _shared.leading_eigenpairs(matrix, k)
    expected = np.maximum(np.linalg.eigvalsh(matrix)[::-1][:k], 0)
    np.testing.assert_allclose(values, expected, atol=1e-12 * expected[0])
    np.testing.assert_allclose(matrix @ vectors, vectors * values, atol=1e-11 * expected[0])
    np.testing.assert_allclose(vectors.T @ vectors, np.eye(k), atol=1e-11)


@pytest.mark.parametrize("kind", ["features", "twins", "few"])
def test_leading_eigenpairs_do_not_depend_on_what_ran_before(kind):
    matrix = gram(kind)
    first = _shared.leading_eigenpairs(matrix, 32)
    _shared.leading_eigenpairs(gram("equal"), 8)
    for one, other in zip(first, _shared.leading_eigenpairs(matrix, 32), strict=True):
        assert np.array_equal(one, other)


def test_a_missed_copy_of_an_eigenvalue_is_noticed(monkeypatch):
    import scipy.sparse.linalg

    matrix = gram("features")
    expected = np.linalg.eigvalsh(matrix)[::-1][:5]
    honest = scipy.sparse.linalg.eigsh

    def forgetful(operator, k, **options):
        """Leave the second one out, as a Krylov space without its direction does."""
        if k == 1:
            return honest(operator, k=k, **options)
        values, vectors = honest(operator, k=k + 1, **options)
        kept = np.delete(np.arange(k + 1), -2)
        return values[kept], vectors[:, kept]

    monkeypatch.setattr(scipy.sparse.linalg, "eigsh", forgetful)
    np.testing.assert_allclose(_shared.leading_eigenpairs(matrix, 5)[0], expected, rtol=1e-10)


@pytest.mark.parametrize("shape", [(500, 300), (300, 500)], ids=str)
def test_parc_is_the_same_from_few_eigenvectors_and_from_all(shape):
    features, labels, _ = make(*shape, 4)
    prepared = _shared.Prepared(features, labels)
    assert prepared.rank  # the full decomposition is there from now on
    full = sys.modules["companion.scores.parc"].compute(prepared)
    assert parc(features, labels) == pytest.approx(full, rel=1e-9)
