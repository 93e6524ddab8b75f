"""The gradient term of the proposed score: how much larger the gradient of the second convolution is."""

from __future__ import annotations

from typing import Any


def gradient_ratio(
    model: Any,
    images: Any,
    labels: Any,
    *,
    variant: str = "corrected",
    device: Any = None,
) -> float:
    r"""Ratio of the gradient norms of the second and the first convolution under a triplet-margin loss.

    .. math:: \frac{\tfrac1B\sum_b \lVert\partial L_b/\partial W_2\rVert_2}
                   {\tfrac1B\sum_b \lVert\partial L_b/\partial W_1\rVert_2}

    over batches b of n // 6 images in their order, with the triplet-margin loss (margin 0.05, L2-normalised
    penultimate features, all triplets of the batch, averaged over the non-zero ones) and the network in
    evaluation mode without its head.

    Parameters
    ----------
    model : SourceModel or torch.nn.Module
        The source model, or a plain network whose last linear layer is taken off.
    images : ndarray of shape (n, h, w) or (n, h, w, 3)
        uint8, in random order.
    labels : array-like of shape (n,)
    variant : {"corrected", "published", "scale_invariant"}, default "corrected"
        "published": every batch counts. "corrected": a batch without a valid triplet does not; such a batch adds
        zero to both means, so the ratio is the same. "scale_invariant": as "corrected", but the norm of a layer is
        :math:`\sqrt{\sum_k (\lVert W_k\rVert\,\lVert\partial L/\partial W_k\rVert)^2}` over its output channels k.
    device : str or torch.device, optional
        Where to run; the fastest there is by default.

    Returns
    -------
    float
        Above 0, without an upper bound. Higher is better among source datasets of one architecture; the paper
        inverts it among architectures.

    Raises
    ------
    ValueError
        No batch holds a valid triplet, no triplet is active, or the network has no two convolutions.

    Notes
    -----
    The only score that needs torch. Cost: one forward and one backward pass through the network, without the gradients
    of the other parameters.

    As published, it is a property of how a network is written, not of what it computes: multiply the weights of the
    first convolution by c and let the batch norm after it undo that, and the ratio is c times as large. Folding batch
    norm into the convolutions, as exporters do, and another standard deviation of the normalised input change it in the
    same way; the scale-invariant variant stays as it is. Both depend on the order of the images, on the batch size and
    so on n. As its own source a target never comes first by the published form: 0 of the 11 published targets. Source:
    Juodelyte et al. (2024), arXiv:2412.20172.
    """
    from torch import nn

    from companion.models import from_module
    from companion.scores.forward_pass import single_pass

    if isinstance(model, nn.Module):
        model = from_module(model)
    return single_pass(model, images, labels, device=device).ratio(variant)
