"""One pass over the images of a target: features, logits, and the gradients of the first two convolutions.

The released code goes over the images twice, once for the features and once, asking for the gradient of every
parameter, for two norms. One pass is enough: in evaluation mode the features of an image do not depend on its batch, so
the forward pass that the gradients need gives the features too, and only two weights have to ask for a gradient.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from companion.models import SourceModel, best_device, one_core_left_free, refusing_size
from companion.scores.losses import LOSSES, count_triplets, random_head_cross_entropy, triplet_loss

BATCHES = 6  # batches of n // 6 images, so the seventh is what is left over
VARIANTS = ("published", "corrected", "scale_invariant")

# A batch of more pixels than this takes gigabytes at once: it goes through in pieces, see `_in_pieces`.
PIECE_PIXELS = 120 * 224 * 224


@dataclass(frozen=True)
class ForwardPass:
    """What one pass over n images gives; a batch has n // 6 images.

    Attributes
    ----------
    features
        float32, (n, d): penultimate features.
    logits
        float32, (n, source classes); None where the model has no head.
    first, second
        float64, (batches,): L2 norm of the weight gradient of the first and of the second convolution; empty where the
        network has no two convolutions. Both are 0 in a batch without an active triplet.
    first_scaled, second_scaled
        float64, (batches,): the same with the gradient of every output channel multiplied by the norm of that channel's
        weights, which does not depend on how the network is written.
    triplets
        int64, (batches,): valid triplets (anchor and positive of one class, negative of another).
    """

    features: np.ndarray
    logits: np.ndarray | None
    first: np.ndarray
    second: np.ndarray
    first_scaled: np.ndarray
    second_scaled: np.ndarray
    triplets: np.ndarray

    def ratio(self, variant: str = "corrected") -> float:
        """Mean norm of the second convolution over that of the first; see `companion.scores.gradient_ratio`.

        Raises
        ------
        ValueError
            If no batch holds a valid triplet, or none of the triplets is active.
        """
        if variant not in VARIANTS:
            raise ValueError(f"variant: {variant!r} is none of {', '.join(map(repr, VARIANTS))}")
        if not self.triplets.any():
            n = len(self.features)
            raise ValueError(
                "labels: no batch holds a triplet (two images of one class and one of another); "
                f"{n} images make batches of {max(1, n // BATCHES)}: give more images, shuffled"
            )
        scaled = variant == "scale_invariant"
        first, second = (self.first_scaled, self.second_scaled) if scaled else (self.first, self.second)
        counted = self.triplets >= (variant != "published")
        if not first[counted].any():
            raise ValueError(
                "images: no triplet is active (every image is nearer to its class than to the others by more than the "
                "margin), so both gradients are 0 and their ratio is undefined"
            )
        return float(second[counted].mean() / first[counted].mean())


@one_core_left_free()
def single_pass(
    model: SourceModel,
    images: np.ndarray,
    labels: np.ndarray,
    *,
    batch_size: int | None = None,
    loss: str = "triplet",
    device: Any = None,
    random_state: int = 0,
    progress: Callable[[int], None] | None = None,
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
    batch_size
        Images a batch; by default n // 6.
    loss
        ``"triplet"``, or ``"cross_entropy"`` with a random linear head (for comparison only).
    device
        Where to run; the fastest there is by default.
    random_state
        Seed of the random head.
    progress
        Called with the number of images done.

    Raises
    ------
    ValueError
        If images and labels do not match, or the loss is unknown.
    InputError
        If the network cannot take images of that size.
    """
    codes = np.unique(np.asarray(labels).reshape(-1), return_inverse=True)[1]
    n = len(codes)
    if len(images) != n or n == 0:
        raise ValueError(f"labels: as many as images are needed, found {n} for {len(images)} images")
    if loss not in LOSSES:
        raise ValueError(f"loss: {loss!r} is none of {', '.join(map(repr, LOSSES))}")
    device = best_device(device)
    network = copy.deepcopy(model.backbone).eval().requires_grad_(False)
    network.to(device=device, memory_format=torch.channels_last)  # type: ignore[call-overload]
    parameters = dict(network.named_parameters())
    weights = [parameters[f"{name}.weight"] for name in (model.first_conv, model.second_conv) if name]
    for weight in weights:
        weight.requires_grad_()
    objective = (
        triplet_loss if loss == "triplet" else random_head_cross_entropy(int(codes.max()) + 1, random_state)
    )
    targets = torch.from_numpy(codes).to(device)

    def embed(part: slice) -> torch.Tensor:
        inputs = model.prepare(images[part], device).contiguous(memory_format=torch.channels_last)
        with refusing_size(model.architecture, inputs.shape[-1]):
            return network(inputs).flatten(1)

    batch = batch_size or max(1, n // BATCHES)
    held = max(1, PIECE_PIXELS // int(np.prod(images.shape[1:3])))
    found, norms, triplets = [], [], []
    for start in range(0, n, batch):
        part = slice(start, min(start + batch, n))
        embeddings, gradients = _in_pieces(embed, part, held, weights, lambda z: objective(z, targets[part]))  # noqa: B023
        found.append(embeddings)
        norms.append([_norms(*pair) for pair in zip(weights, gradients, strict=True)])
        triplets.append(count_triplets(codes[part]))
        if progress:
            progress(part.stop)
    features = torch.cat(found)
    with torch.no_grad():
        logits = None if model.head is None else copy.deepcopy(model.head).to(device)(features)
    by_layer = np.array(norms, dtype=float).reshape(-1, 2, 2).transpose(2, 1, 0)
    (first, second), (first_scaled, second_scaled) = by_layer
    return ForwardPass(
        features.float().cpu().numpy(),
        None if logits is None else logits.float().cpu().numpy(),
        first,
        second,
        first_scaled,
        second_scaled,
        np.array(triplets, dtype=np.int64),
    )


def _in_pieces(
    embed: Callable[[slice], torch.Tensor],
    batch: slice,
    held: int,
    weights: Sequence[torch.Tensor],
    objective: Callable[[torch.Tensor], torch.Tensor],
) -> tuple[torch.Tensor, list[torch.Tensor]]:
    """Embeddings of a batch and the gradients of its loss, with the memory of at most `held` images.

    The loss needs the embeddings of the whole batch, but their gradient is all that it tells the network. So where the
    batch is larger than `held`, the embeddings come first, without a graph; then the images go through once more, piece
    by piece, and the gradients of the pieces add up to those of the batch.
    """
    pieces = [slice(start, min(start + held, batch.stop)) for start in range(batch.start, batch.stop, held)]
    if len(pieces) == 1 and weights:
        embeddings = embed(batch)
        return embeddings.detach(), list(torch.autograd.grad(objective(embeddings), weights))
    with torch.no_grad():
        whole = torch.cat([embed(piece) for piece in pieces])
    if not weights:
        return whole, []
    leaf = whole.clone().requires_grad_()
    (slopes,) = torch.autograd.grad(objective(leaf), leaf)
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
