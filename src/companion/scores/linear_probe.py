"""Linear probe: cross-validated accuracy of a logistic regression on the features."""

from __future__ import annotations

import warnings

import numpy as np
from numpy.typing import ArrayLike

from companion.scores._arrays import check_count, check_positive
from companion.scores._shared import Prepared, one_thread
from companion.scores.nca import require_pairs

FOLDS = 5
MAX_ITER = 200


def linear_probe(
    features: ArrayLike,
    labels: ArrayLike,
    *,
    folds: int = FOLDS,
    penalty: float = 1.0,
    random_state: int | np.random.RandomState | None = 0,
) -> float:
    r"""Accuracy of an L2-regularised multinomial logistic regression over stratified folds.

    Features are centred and divided by one number, the root mean square length of a point over :math:`\sqrt
    d`; every fold is predicted by a regression fitted on the others, minimising

    .. math:: \sum_i -\log p(y_i\mid x_i) + \tfrac{\lambda}{2}\lVert W\rVert^2 .

    Parameters
    ----------
    features : array-like of shape (n, d)
        Features.
    labels : array-like of shape (n,) or (n, 1)
        Target labels.
    folds : int, default 5
        Folds; the size of the smallest class, if that is fewer.
    penalty : float, default 1.0
        The :math:`\lambda` above.
    random_state : int, RandomState or None, default 0
        Seed of the folds.

    Returns
    -------
    float
        Accuracy in [0, 1]; higher is better.

    Raises
    ------
    ValueError
        Bad arrays; a class with fewer than 2 points; `folds` below 2; `penalty` not positive.

    Notes
    -----
    Cost: O(folds · iterations · n min(n, d) C) time, O(nd) memory. For n < d the regression is fitted in the
    span of the features, where its weights lie. Invariant to rotation, shift and scale up to the optimiser's
    tolerance; the folds depend on the order of the rows. Held out, so shuffled labels score near chance:
    .50–.51 (n = 900, C = 2), .094–.095 (n = 1100, C = 11).

    Weaknesses: centring and scale see all folds (not their labels); the penalty is not tuned.

    References
    ----------
    Alain, Bengio (2017). Understanding intermediate layers using linear classifier probes. ICLR workshop,
    arXiv:1610.01644.
    """
    prepared = Prepared(features, labels)
    return compute(prepared, folds=folds, penalty=penalty, random_state=random_state)


def compute(
    prepared: Prepared,
    *,
    folds: int = FOLDS,
    penalty: float = 1.0,
    random_state: int | np.random.RandomState | None = 0,
) -> float:
    """Linear-probe accuracy of prepared arrays."""
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.linear_model import LogisticRegression
    from sklearn.model_selection import StratifiedKFold

    penalty = check_positive(penalty, "penalty")
    folds = check_count(folds, "folds", least=2)
    require_pairs(prepared, "a cross-validated probe")
    if random_state is None:
        random_state = int(np.random.default_rng().integers(2**31))
    x, y = prepared.reduced, prepared.codes
    x = x / np.sqrt(prepared.spectrum.sum() / (prepared.n * prepared.d))
    splitter = StratifiedKFold(
        min(folds, int(prepared.counts.min())), shuffle=True, random_state=random_state
    )
    right = 0
    with warnings.catch_warnings(), one_thread(prepared.n):
        warnings.simplefilter("ignore", ConvergenceWarning)
        for train, test in splitter.split(x, y):
            model = LogisticRegression(C=1.0 / penalty, max_iter=MAX_ITER).fit(x[train], y[train])
            right += int((model.predict(x[test]) == y[test]).sum())
    return right / prepared.n
