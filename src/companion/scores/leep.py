"""LEEP: log expected empirical prediction, from the source model's class probabilities."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike

from companion.scores._arrays import check_labels, check_logits
from companion.scores._shared import Matrix, softmax


def leep(logits: ArrayLike, labels: ArrayLike) -> float:
    r"""Mean log-likelihood of the labels under the source classes' empirical predictor.

    With :math:`\theta = \mathrm{softmax}(Z)` the source-class probabilities and
    :math:`\hat P(y,z) = \tfrac1n\sum_{i: y_i=y}\theta_{iz}`,

    .. math:: \mathrm{LEEP} = \frac1n\sum_i \log\sum_z \hat P(y_i \mid z)\,\theta_{iz} .

    A source class of zero probability everywhere contributes zero.

    Parameters
    ----------
    logits : array-like of shape (n, source classes)
        Outputs of the source model's own head on the target's points, before softmax.
    labels : array-like of shape (n,) or (n, 1)
        Target labels.

    Returns
    -------
    float
        At most 0; higher is better. Source outputs that say nothing give minus the entropy of the labels.

    Raises
    ------
    ValueError
        Bad arrays, or a source without classes (headless checkpoint, random weights): not applicable.

    Notes
    -----
    Cost: O(n · source classes · C) time, O(n (source classes + C)) memory. No chance enters. The published
    and the corrected score are the same.

    Weaknesses: it depends on the source's label set, not on the features that fine-tuning starts from, and is
    fitted and read on the same points: shuffled labels (10 source classes) gave -0.691 where minus the
    entropy is -0.693 (n = 900, C = 2) and -2.387 where it is -2.398 (n = 1100, C = 11).

    References
    ----------
    Nguyen, Hassner, Seeger, Archambeau (2020). LEEP: a new measure to evaluate transferability of learned
    representations. ICML, arXiv:2002.12462.
    """
    z = check_logits(logits)
    codes, classes = check_labels(labels, len(z), of="logits")
    likelihood = expected_likelihood(softmax(z), codes, len(classes))
    return float(np.mean(np.log(likelihood)))


def expected_likelihood(theta: Matrix, codes: np.ndarray, n_classes: int) -> Matrix:
    """Probability that the empirical predictor gives each point's own label, shape (n,)."""
    joint = np.zeros((n_classes, len(theta)))
    joint[codes, np.arange(len(theta))] = 1.0
    joint = joint @ theta / len(theta)
    marginal = joint.sum(axis=0)
    conditional = np.divide(joint, marginal, out=np.zeros_like(joint), where=marginal > 0)
    return np.einsum("ij,ij->i", theta, conditional[codes])
