"""The losses whose gradients are compared: the triplet loss of the score, and cross-entropy beside it."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from torch import nn
from torch.nn import functional

MARGIN = 0.05
LOSSES = ("triplet", "cross_entropy")


def triplet_loss(embeddings: torch.Tensor, labels: torch.Tensor, margin: float = MARGIN) -> torch.Tensor:
    """Triplet-margin loss over all triplets of a batch, averaged over those that are not zero.

    For anchor a, positive p (another image of a's class) and negative n (an image of another class) the loss is
    ``max(0, |z_a - z_p| - |z_a - z_n| + margin)`` with L2-normalised embeddings z. Listing the triplets takes
    O(b^3) memory; here they are only counted. Where a triplet is active its gradient is +1 on |z_a - z_p| and -1
    on |z_a - z_n|, so the loss is linear in the distances with integer weights, the numbers of active triplets a
    distance takes part in.

    Parameters
    ----------
    embeddings
        (b, d).
    labels
        (b,), integers.
    margin
        Above 0.

    Returns
    -------
    torch.Tensor
        Scalar; 0, with zero gradients, where no triplet is active.
    """
    unit = functional.normalize(embeddings)
    # The matrix-product shortcut loses half the digits between near neighbours, which is where triplets are.
    distances = torch.cdist(unit, unit, compute_mode="donot_use_mm_for_euclid_dist")
    with torch.no_grad():
        same = labels[:, None] == labels[None, :]
        positive = same & ~torch.eye(len(labels), dtype=torch.bool, device=labels.device)
        weights = torch.zeros_like(distances)
        count = torch.zeros((), dtype=distances.dtype, device=distances.device)
        for anchor in torch.arange(len(labels), device=labels.device).split(
            max(1, 2**24 // len(labels) ** 2)
        ):
            near, far = distances[anchor, :, None], distances[anchor, None, :]
            active = (near - far + margin > 0) & positive[anchor, :, None] & ~same[anchor, None, :]
            weights[anchor] = (active.sum(2) - active.sum(1)).to(distances.dtype)
            count += active.sum()
    return ((weights * distances).sum() + margin * count) / count.clamp(min=1)


def count_triplets(labels: np.ndarray) -> int:
    """Count the valid triplets of a batch: ordered (anchor, positive) pairs of one class times the images of others."""
    counts = np.unique(labels, return_counts=True)[1]
    return int((counts * (counts - 1) * (len(labels) - counts)).sum())


def random_head_cross_entropy(
    classes: int, seed: int
) -> Callable[[torch.Tensor, torch.Tensor], torch.Tensor]:
    """Cross-entropy under a random linear head, which is drawn once the number of features is known."""
    heads: list[nn.Linear] = []

    def loss(embeddings: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        if not heads:
            with torch.random.fork_rng(devices=[]):
                torch.manual_seed(seed)
                heads.append(
                    nn.Linear(embeddings.shape[1], classes).requires_grad_(False).to(embeddings.device)
                )
        return functional.cross_entropy(heads[0](embeddings), labels)

    return loss
