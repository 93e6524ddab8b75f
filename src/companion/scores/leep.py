"""LEEP: log expected empirical prediction, from the source model's class probabilities."""

import numpy as np
from numpy.typing import ArrayLike

from companion.scores._arrays import Matrix, check_labels, check_logits


def leep(logits: ArrayLike, labels: ArrayLike) -> float:
    r"""Mean log-likelihood of the labels under the source classes' empirical predictor.

    With :math:`\theta = \mathrm{softmax}(Z)` the source-class probabilities and
    :math:`\hat P(y,z) = \tfrac1n\sum_{i: y_i=y}\theta_{iz}`,

    .. math:: \mathrm{LEEP} = \frac1n\sum_i \log\sum_z \hat P(y_i \mid z)\,\theta_{iz} .

    A source class of zero probability everywhere contributes zero.

    Returns
    -------
    float
        At most 0; higher is better. Source outputs that say nothing give minus the entropy of the labels.

    Raises
    ------
    ValueError
        A source without classes (headless checkpoint, random weights): not applicable.

    Notes
    -----
    Cost: O(n · source classes · C). Weaknesses: depends on the source's label set, not on the features that fine-tuning
    starts from; evaluated on the points it is fitted to. Source: Nguyen et al. (2020). ICML, arXiv:2002.12462.
    """
    from scipy.special import softmax

    z = check_logits(logits)
    codes, classes = check_labels(labels, len(z), of="logits")
    return float(np.log(expected_likelihood(softmax(z, axis=1), np.eye(len(classes))[codes])).mean())


def expected_likelihood(theta: Matrix, indicator: Matrix) -> Matrix:
    """Probability that the empirical predictor gives each point's own label, shape (n,)."""
    joint = indicator.T @ theta
    marginal = joint.sum(axis=0)
    conditional = joint / np.where(marginal > 0, marginal, 1.0)
    return (theta * (indicator @ conditional)).sum(axis=1)
