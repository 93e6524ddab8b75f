"""NCE: negative conditional entropy of the target labels given the source model's predicted class."""

import numpy as np
from numpy.typing import ArrayLike

from companion.scores._arrays import check_labels, check_logits


def nce(logits: ArrayLike, labels: ArrayLike) -> float:
    r"""Negative conditional entropy of the target label given the most probable source class.

    With :math:`z_i=\arg\max_z Z_{iz}` (equal logits go to the first class) and empirical frequencies,

    .. math:: \mathrm{NCE} = -H(Y\mid Z) = \frac1n\sum_i\log\hat P(y_i\mid z_i) .

    Returns
    -------
    float
        In [-log C, 0]; higher is better.

    Raises
    ------
    ValueError
        A source without classes: not applicable.

    Notes
    -----
    Cost: O(n · source classes). Weaknesses: rises with the number of source classes hit, by counting alone. Source:
    Tran et al. (2019). ICCV, arXiv:1908.08142.
    """
    z = check_logits(logits)
    codes, classes = check_labels(labels, len(z), of="logits")
    predicted = z.argmax(axis=1)
    joint = np.zeros((len(classes), z.shape[1]))
    np.add.at(joint, (codes, predicted), 1.0)
    return float(np.log((joint / np.maximum(joint.sum(axis=0), 1.0))[codes, predicted]).mean())
