"""Linear probe: cross-validated accuracy of a logistic regression on the features."""

import warnings

import numpy as np
from numpy.typing import ArrayLike

from companion.scores._arrays import Seed, fresh
from companion.scores._prepared import prepare

FOLDS = 5


def linear_probe(features: ArrayLike, labels: ArrayLike, *, random_state: Seed = 0) -> float:
    r"""Accuracy of an L2-regularised multinomial logistic regression over 5 stratified folds.

    Features are centred and divided by one number, the root mean square length of a point over :math:`\sqrt d`; every
    fold (as many as the smallest class has points, if fewer than 5) is predicted by a regression fitted on the
    others, minimising

    .. math:: \sum_i -\log p(y_i\mid x_i) + \tfrac{1}{2}\lVert W\rVert^2 .

    Parameters
    ----------
    features, labels : array-like of shape (n, d) and (n,)
    random_state : int, RandomState or None, default 0
        Seed of the folds.

    Returns
    -------
    float
        In [0, 1]; higher is better.

    Raises
    ------
    ValueError
        A class with fewer than 2 points.

    Notes
    -----
    Cost: O(iterations · n min(n, d) C) time, O(nd) memory. Weaknesses: centring and scale see all folds (not their
    labels); the penalty is not tuned. Source: Alain, Bengio (2017). ICLR workshop, arXiv:1610.01644.
    """
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.linear_model import LogisticRegression
    from sklearn.model_selection import StratifiedKFold, cross_val_predict
    from threadpoolctl import threadpool_limits

    p = prepare(features, labels)
    p.require_pairs("a cross-validated probe")
    x = p.span * np.sqrt(p.n * p.d) / np.linalg.norm(p.centred)
    model = LogisticRegression(max_iter=200)
    splits = StratifiedKFold(min(FOLDS, int(p.counts.min())), shuffle=True, random_state=fresh(random_state))
    # Small products: one thread is no slower, and the result does not depend on how many there are.
    with warnings.catch_warnings(), threadpool_limits(1, user_api="blas"):
        warnings.simplefilter("ignore", ConvergenceWarning)
        return float((cross_val_predict(model, x, p.codes, cv=splits) == p.codes).mean())
