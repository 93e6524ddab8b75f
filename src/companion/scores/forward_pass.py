"""One pass over the images of a target: features, logits, and the gradients of the first two convolutions.

The released code goes over the images twice, once for the features and once, asking for the gradient of every
parameter, for two norms. One pass is enough: in evaluation mode the features of an image do not depend on its batch, so
the forward pass that the gradients need gives the features too, and only two weights have to ask for a gradient.
"""

from __future__ import annotations

import copy
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch.nn import functional

from companion.models import SourceModel, best_device, one_core_left_free, refusing_size, without_statistics

BATCHES = 6  # batches of n // 6 images, so the seventh is what is left over
VARIANTS = ("published", "corrected", "scale_invariant")
MARGIN = 0.05

# A batch of more pixels than this takes gigabytes at once: it goes through in pieces, see `_in_pieces`.
PIECE_PIXELS = 120 * 224 * 224
# Through the network a processor takes fewer at a time, whose maps its caches hold: a fifth faster at 224 px.
CACHED_PIXELS = 8 * 224 * 224


def triplet_loss(embeddings: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    """Triplet-margin loss over all triplets of a batch, averaged over those that are not zero.

    For anchor a, positive p (another image of a's class) and negative n (an image of another class) the loss is
    ``max(0, |z_a - z_p| - |z_a - z_n| + 0.05)`` with L2-normalised embeddings z, (b, d), and integer labels, (b,); 0,
    with zero gradients, where no triplet is active. Listing the triplets takes O(b^3) memory; here they are only
    counted: where one is active its gradient is +1 on |z_a - z_p| and -1 on |z_a - z_n|, so the loss is linear in the
    distances, each weighted by the number of active triplets it takes part in.
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
            active = (near - far + MARGIN > 0) & positive[anchor, :, None] & ~same[anchor, None, :]
            weights[anchor] = (active.sum(2) - active.sum(1)).to(distances.dtype)
            count += active.sum()
    return ((weights * distances).sum() + MARGIN * count) / count.clamp(min=1)


def count_triplets(labels: np.ndarray) -> int:
    """Ordered (anchor, positive) pairs of one class times the images of others, in one batch."""
    counts = np.unique(labels, return_counts=True)[1]
    return int((counts * (counts - 1) * (len(labels) - counts)).sum())


@dataclass(frozen=True)
class ForwardPass:
    """What one pass over n images gives; a batch has n // 6 images.

    Attributes
    ----------
    features
        float32, (n, d): penultimate features.
    logits
        float32, (n, source classes); None where the model has no head.
    norms
        float64, (batches, 2): L2 norms of the weight gradients of the first and of the second convolution, both 0 in a
        batch without an active triplet; (batches, 0) where the network has no two convolutions.
    scaled_norms
        The same with the gradient of every output channel multiplied by the norm of that channel's weights, which does
        not depend on how the network is written.
    triplets
        int64, (batches,): valid triplets (anchor and positive of one class, negative of another).
    seconds
        What the pass took.
    """

    features: np.ndarray
    logits: np.ndarray | None
    norms: np.ndarray
    scaled_norms: np.ndarray
    triplets: np.ndarray
    seconds: float

    def ratio(self, variant: str = "corrected") -> float:
        """Mean norm of the second convolution over that of the first; see `companion.scores.gradient_ratio`.

        Raises
        ------
        ValueError
            If the network has no two convolutions, no batch holds a valid triplet, or no triplet is active.
        """
        if variant not in VARIANTS:
            raise ValueError(f"variant: {variant!r} is none of {', '.join(map(repr, VARIANTS))}")
        if not self.norms.size:
            raise ValueError("model: the network has no two convolutions, so there is no gradient ratio")
        if not self.triplets.any():
            raise ValueError(
                f"labels: no batch holds a triplet (two images of one class and one of another); {len(self.features)} "
                f"images make batches of {max(1, len(self.features) // BATCHES)}: give more images, shuffled"
            )
        norms = self.scaled_norms if variant == "scale_invariant" else self.norms
        first, second = norms[self.triplets >= (variant != "published")].T
        if not first.any():
            raise ValueError(
                "images: no triplet is active (every image is nearer to its class than to the others by more than the "
                "margin), so both gradients are 0 and their ratio is undefined"
            )
        return float(second.mean() / first.mean())


@one_core_left_free()
def single_pass(
    model: SourceModel, images: np.ndarray, labels: np.ndarray, *, device: Any = None
) -> ForwardPass:
    """Features, logits and the gradients of the first two convolutions, from one pass over the images.

    Parameters
    ----------
    model
        The source. It is left as it is; a copy is run, in evaluation mode.
    images
        uint8, (n, h, w) or (n, h, w, 3), in the order in which they form batches.
    labels
        (n,), integers or strings.
    device
        Where to run; the fastest there is by default.

    Raises
    ------
    ValueError
        If images and labels do not match.
    InputError
        If the network cannot take images of that size.
    """
    began = time.perf_counter()
    codes = np.unique(np.asarray(labels).reshape(-1), return_inverse=True)[1]
    n = len(codes)
    if len(images) != n or n == 0:
        raise ValueError(f"labels: as many as images are needed, found {n} for {len(images)} images")
    device = best_device(device)
    network = without_statistics(copy.deepcopy(model.backbone)).eval().requires_grad_(False)
    network.to(device=device, memory_format=torch.channels_last)  # type: ignore[call-overload]
    layers: Any = [network.get_submodule(name) for name in (model.first_conv, model.second_conv) if name]
    weights = [layer.weight.requires_grad_() for layer in layers]
    targets = torch.from_numpy(codes).to(device)
    batch, pixels = max(1, n // BATCHES), int(np.prod(images.shape[1:3]))
    held = max(1, PIECE_PIXELS // pixels)
    at_once = max(1, CACHED_PIXELS // pixels) if device.type == "cpu" else held

    def embed(part: slice) -> torch.Tensor:
        inputs = model.prepare(images[part], device).contiguous(memory_format=torch.channels_last)
        with refusing_size(model.architecture, inputs.shape[-1]):
            return torch.cat([network(some).flatten(1) for some in inputs.split(at_once)])

    found, norms, triplets = [], [], []
    for start in range(0, n, batch):
        part = slice(start, min(start + batch, n))
        embeddings, gradients = _in_pieces(embed, part, held, weights, targets[part])
        found.append(embeddings)
        norms.append([_norms(*pair) for pair in zip(weights, gradients, strict=True)])
        triplets.append(count_triplets(codes[part]))
    features = torch.cat(found)
    with torch.no_grad():
        logits = None if model.head is None else copy.deepcopy(model.head).to(device)(features)
    plain, scaled = np.array(norms, dtype=float).reshape(len(norms), len(weights), 2).transpose(2, 0, 1)
    return ForwardPass(
        features.float().cpu().numpy(),
        None if logits is None else logits.float().cpu().numpy(),
        plain,
        scaled,
        np.array(triplets, dtype=np.int64),
        time.perf_counter() - began,
    )


def _in_pieces(
    embed: Callable[[slice], torch.Tensor],
    batch: slice,
    held: int,
    weights: Sequence[torch.Tensor],
    targets: torch.Tensor,
) -> tuple[torch.Tensor, list[torch.Tensor]]:
    """Embeddings of a batch and the gradients of its loss, with the memory of at most `held` images.

    The loss needs the embeddings of the whole batch, but their gradient is all that it tells the network. So where the
    batch is larger than `held`, the embeddings come first, without a graph; then the images go through once more, piece
    by piece, and the gradients of the pieces add up to those of the batch.
    """
    pieces = [slice(start, min(start + held, batch.stop)) for start in range(batch.start, batch.stop, held)]
    if len(pieces) == 1 and weights:
        embeddings = embed(batch)
        return embeddings.detach(), list(torch.autograd.grad(triplet_loss(embeddings, targets), weights))
    with torch.no_grad():
        whole = torch.cat([embed(piece) for piece in pieces])
    if not weights:
        return whole, []
    leaf = whole.clone().requires_grad_()
    (slopes,) = torch.autograd.grad(triplet_loss(leaf, targets), leaf)
    gradients = [torch.zeros_like(weight) for weight in weights]
    for piece, slope in zip(pieces, slopes.split(held), strict=True):
        for total, part in zip(gradients, torch.autograd.grad(embed(piece), weights, slope), strict=True):
            total += part
    return whole, gradients


def _norms(weight: torch.Tensor, gradient: torch.Tensor) -> tuple[float, float]:
    """Norm of a weight gradient, and its norm with every output channel multiplied by the norm of its weights."""
    of_channels = gradient.flatten(1).norm(dim=1)
    scaled = of_channels * weight.detach().flatten(1).norm(dim=1)
    return float(of_channels.norm()), float(scaled.norm())
