"""Linear probe: cross-validated accuracy of a logistic regression on the features."""

import warnings

import numpy as np
from numpy.typing import ArrayLike

from companion.scores._arrays import Seed, check_count, check_positive, fresh
from companion.scores._prepared import prepare


def linear_probe(
    features: ArrayLike, labels: ArrayLike, *, folds: int = 5, penalty: float = 1.0, random_state: Seed = 0
) -> float:
    r"""Accuracy of an L2-regularised multinomial logistic regression over stratified folds.

    Features are centred and divided by one number, the root mean square length of a point over :math:`\sqrt d`; every
    fold is predicted by a regression fitted on the others, minimising

    .. math:: \sum_i -\log p(y_i\mid x_i) + \tfrac{\lambda}{2}\lVert W\rVert^2 .

    Parameters
    ----------
    features, labels : array-like of shape (n, d) and (n,)
        Features of the target's points, and their labels.
    folds : int, default 5
        Folds; the size of the smallest class, if that is fewer.
    penalty : float, default 1.0
        The :math:`\lambda` above.
    random_state : int, RandomState or None, default 0
        Seed of the folds; None draws a fresh one.

    Returns
    -------
    float
        In [0, 1]; higher is better.

    Raises
    ------
    ValueError
        Bad arrays; a class with fewer than 2 points; `folds` below 2; `penalty` not positive.

    Notes
    -----
    Cost: O(folds · iterations · n min(n, d) C) time, O(nd) memory. Weaknesses: centring and scale see all folds (not
    their labels); the penalty is not tuned. Held out, so shuffled labels score near chance.

    References
    ----------
    Alain, Bengio (2017). Understanding intermediate layers using linear classifier probes. ICLR workshop,
    arXiv:1610.01644.
    """
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.linear_model import LogisticRegression
    from sklearn.model_selection import StratifiedKFold, cross_val_predict
    from threadpoolctl import threadpool_limits

    model = LogisticRegression(C=1.0 / check_positive(penalty, "penalty"), max_iter=200)
    folds = check_count(folds, "folds", least=2)
    p = prepare(features, labels)
    p.require_pairs("a cross-validated probe")
    x = p.span * np.sqrt(p.n * p.d) / np.linalg.norm(p.centred)
    splits = StratifiedKFold(min(folds, int(p.counts.min())), shuffle=True, random_state=fresh(random_state))
    # Small products: one thread is no slower, and the result does not depend on how many there are.
    with warnings.catch_warnings(), threadpool_limits(1, user_api="blas"):
        warnings.simplefilter("ignore", ConvergenceWarning)
        return float((cross_val_predict(model, x, p.codes, cv=splits) == p.codes).mean())
