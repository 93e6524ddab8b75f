"""The gradient term, and the one pass over the images that gives features, logits and gradients together.

The released code walks over the images twice: once for the features, once more, with every parameter asking
for its gradient, for the two norms. One pass is enough. In evaluation mode an image's features do not depend on
its batch, so the forward pass that the gradients need gives the features too; and the weight gradient of a
convolution needs only its input and the gradient of its output, so no parameter has to ask for anything.
"""

from __future__ import annotations

import copy
from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple, cast

import numpy as np
import torch
from torch import nn
from torch.nn import functional
from torch.nn.grad import conv2d_weight

from companion.models import SourceModel, best_device, one_core_left_free, refusing_size, split_head

MARGIN = 0.05
BATCHES = 6  # batches of n // 6 images, so the seventh is what is left over
LOSSES = ("triplet", "cross_entropy")

# Images are pushed through in groups of whole batches of about this many pixels. Larger groups amortise what a
# layer costs per call, but the allocator hands their memory back after each and pages it in anew.
GROUP_PIXELS = 100 * 64 * 64

# A batch of more pixels than this takes gigabytes at once: it goes through in pieces, twice, see `_Run._in_pieces`.
PIECE_PIXELS = 120 * 224 * 224

# Kernels of this many weights work on small maps. There their batch norm costs less than folding it, and their
# weights stay in the default format, see `_SmallMapConvolution`.
LARGE_KERNEL = 256 * 256 * 9
SMALL_MAP = 16  # pixels
LARGEST_MATRIX = 2**21  # entries; a larger one costs more to fill than it saves


class Pass(NamedTuple):
    """What one pass over n images gives."""

    features: np.ndarray
    """float32, (n, d): penultimate features."""
    logits: np.ndarray | None
    """float32, (n, source classes), or None where the model has no head."""
    first: np.ndarray
    """float64, (batches,): L2 norm of the weight gradient of the first convolution."""
    second: np.ndarray
    """float64, (batches,): the same of the second."""
    triplets: np.ndarray
    """int64, (batches,): valid triplets of the batch (anchor and positive of one class, negative of another)."""

    def ratio(self, variant: str = "corrected") -> float:
        """Mean second norm over mean first norm; see `gradient_ratio`."""
        counted = self.triplets > 0 if variant == "corrected" else np.ones(len(self.triplets), dtype=bool)
        if not self.triplets.any():
            raise ValueError(
                "labels: no batch holds a triplet (two images of one class and one of another); "
                f"{len(self.features)} images make batches of {_batch_size(len(self.features))}: "
                "give more images, shuffled"
            )
        first, second = self.first[counted].mean(), self.second[counted].mean()
        if first == 0:
            raise ValueError(
                "images: the gradient of the first convolution is zero, so the ratio is undefined"
            )
        return float(second / first)


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
        active_triplets = torch.zeros((), dtype=distances.dtype, device=distances.device)
        for anchor in torch.arange(len(labels), device=labels.device).split(
            max(1, 2**24 // len(labels) ** 2)
        ):
            near, far = distances[anchor, :, None], distances[anchor, None, :]
            active = (near - far + margin > 0) & positive[anchor, :, None] & ~same[anchor, None, :]
            weights[anchor] = (active.sum(2) - active.sum(1)).to(distances.dtype)
            active_triplets += active.sum()
    total = (weights * distances).sum() + margin * active_triplets
    return total / active_triplets.clamp(min=1)


def count_triplets(labels: np.ndarray) -> int:
    """Count the valid triplets of a batch: ordered (anchor, positive) pairs of one class times the images of others."""
    counts = np.unique(labels, return_counts=True)[1]
    return int((counts * (counts - 1) * (len(labels) - counts)).sum())


def _batch_size(n: int) -> int:
    return max(1, n // BATCHES)


def _fold_batch_norms(network: nn.Module) -> dict[str, torch.Tensor]:
    """Fold each batch norm into the convolution before it; in evaluation mode the two are one linear map.

    A network that cannot be traced is left as it is: folding only saves time.

    Returns
    -------
    dict
        Name of a folded convolution -> factor per output channel by which its weights were multiplied.
    """
    factors: dict[str, torch.Tensor] = {}
    try:
        graph = torch.fx.symbolic_trace(network).graph
    except Exception:  # tracing runs the model's own code, which may raise anything
        return factors
    modules = dict(network.named_modules())
    calls = Counter(node.target for node in graph.nodes if node.op == "call_module")
    for node in graph.nodes:
        if node.op != "call_module" or type(modules[node.target]) is not nn.BatchNorm2d:
            continue
        before, norm = node.args[0], modules[node.target]
        if (
            before.op == "call_module"
            and type(modules[before.target]) is nn.Conv2d
            and len(before.users) == calls[before.target] == calls[node.target] == 1
            and norm.running_var is not None
            and modules[before.target].weight.numel() < LARGE_KERNEL
        ):
            factor = torch.rsqrt(norm.running_var + norm.eps)
            factor = factor if norm.weight is None else factor * norm.weight
            _fold(modules[before.target], norm, factor)
            _replace(network, node.target, nn.Identity())
            factors[before.target] = factor
    return factors


def _fold(convolution: nn.Conv2d, norm: nn.BatchNorm2d, factor: torch.Tensor) -> None:
    """Give `convolution` the weights and the bias that do the work of both."""
    assert norm.running_mean is not None  # it comes and goes with running_var, which made the factor
    shift = -norm.running_mean if convolution.bias is None else convolution.bias - norm.running_mean
    bias = shift * factor if norm.bias is None else shift * factor + norm.bias
    weight = convolution.weight * factor.view(-1, 1, 1, 1)
    convolution.weight = nn.Parameter(weight, requires_grad=False)
    convolution.bias = nn.Parameter(bias.detach(), requires_grad=False)


def _copy(network: nn.Module) -> nn.Module:
    """Modules of its own, frozen, with the network's tensors: neither this module nor a pass writes into one."""
    shared: dict[int, Any] = {
        id(tensor): nn.Parameter(tensor.detach(), requires_grad=False) for tensor in network.parameters()
    }
    return copy.deepcopy(network, shared | {id(tensor): tensor for tensor in network.buffers()})


def _prepare(backbone: nn.Module, device: torch.device | str) -> tuple[nn.Module, dict[str, torch.Tensor]]:
    """Return a frozen copy of `backbone` for fast passes in evaluation mode, and the factors of its folding."""
    network = _copy(backbone).eval()
    factors = _fold_batch_norms(network)
    on_cpu = torch.device(device).type == "cpu"
    for module in network.modules():
        if type(module) is nn.Conv2d and not (on_cpu and module.weight.numel() >= LARGE_KERNEL):
            module.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    return network.to(device), factors


class _SmallMapConvolution(nn.Module):
    """A frozen convolution that knows cheaper ways over a map of a few pixels.

    Where the map has fewer pixels than the kernel, most of the kernel falls on the padding: over one pixel 8 of
    the 9 products of a 3 x 3 kernel, over 2 x 2 pixels 20 of 36. A matrix product leaves them out. Over a map that
    is a little larger, rearranging the weights for the channels-last format costs more than rearranging the map.
    """

    def __init__(self, convolution: nn.Conv2d) -> None:
        super().__init__()
        self.convolution = convolution
        self._matrices: dict[tuple[int, int], tuple[torch.Tensor, tuple[int, int]]] = {}

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        size = (inputs.shape[2], inputs.shape[3])
        pixels, kernel = size[0] * size[1], self.convolution.kernel_size[0] * self.convolution.kernel_size[1]
        if pixels >= kernel or pixels**2 * self.convolution.weight.numel() > kernel * LARGEST_MATRIX:
            return self.convolution(inputs.contiguous() if pixels <= SMALL_MAP else inputs)
        if size not in self._matrices:
            self._matrices[size] = self._matrix(*size)
        matrix, after = self._matrices[size]
        flat = inputs.permute(0, 2, 3, 1).reshape(len(inputs), -1)
        bias = self.convolution.bias
        outputs = (flat @ matrix).view(len(inputs), *after, -1)
        return (outputs if bias is None else outputs + bias).permute(0, 3, 1, 2)

    def _matrix(self, rows: int, columns: int) -> tuple[torch.Tensor, tuple[int, int]]:
        """(rows x columns x channels in, rows x columns x channels out) and the size of the map after."""
        conv = self.convolution
        assert not isinstance(conv.padding, str)  # such a convolution is never wrapped
        (down, right), (top, left), (high, wide) = conv.stride, conv.padding, conv.kernel_size
        after = ((rows + 2 * top - high) // down + 1, (columns + 2 * left - wide) // right + 1)
        kernel = conv.weight.permute(2, 3, 1, 0)  # kernel row, kernel column, in, out
        matrix = kernel.new_zeros(rows, columns, conv.in_channels, *after, conv.out_channels)
        for row, column in np.ndindex(rows, columns):
            for to_row, to_column in np.ndindex(*after):
                at = (row + top - to_row * down, column + left - to_column * right)
                if 0 <= at[0] < high and 0 <= at[1] < wide:
                    matrix[row, column, :, to_row, to_column] = kernel[at]
        return matrix.view(rows * columns * conv.in_channels, -1), after


def _shrink_convolutions(network: nn.Module, *, keep: set[nn.Conv2d]) -> None:
    for name, module in list(network.named_modules()):
        if (
            type(module) is nn.Conv2d
            and module not in keep
            and module.kernel_size != (1, 1)
            and module.groups == 1
            and module.dilation == (1, 1)
            and module.padding_mode == "zeros"
            and not isinstance(module.padding, str)
        ):
            _replace(network, name, _SmallMapConvolution(module))


def _replace(network: nn.Module, name: str, module: nn.Module) -> None:
    parent, _, attribute = name.rpartition(".")
    setattr(network.get_submodule(parent), attribute, module)


class _Watch:
    """Keeps what the weight gradient of a convolution needs: its input and the gradient of its output."""

    def __init__(self, convolution: nn.Conv2d, *, starts: bool, factor: torch.Tensor | None) -> None:
        self.convolution = convolution
        self.input: torch.Tensor
        self.gradient: torch.Tensor
        self._starts = starts
        self._factor = None if factor is None else factor.view(-1, 1, 1, 1).to(convolution.weight.device)
        convolution.register_forward_hook(self._forward)

    def _forward(
        self, _module: nn.Module, inputs: tuple[torch.Tensor, ...], output: torch.Tensor
    ) -> torch.Tensor:
        self.input = inputs[0].detach()
        if self._starts:
            # The graph begins here, at a zero that is added: nothing before the first convolution's output is
            # differentiated, and the output is no leaf, so that the next layer may overwrite it.
            output = output.add_(torch.zeros(1, device=output.device, requires_grad=True))
        if output.requires_grad:
            # Registered before any layer overwrites the output, so this is the gradient of the convolution itself.
            output.register_hook(self._backward)
        return output

    def _backward(self, gradient: torch.Tensor) -> None:
        self.gradient = gradient

    def weight_gradient(self, images: slice) -> torch.Tensor:
        conv = self.convolution
        gradient = conv2d_weight(
            self.input[images],
            conv.weight.shape,
            self.gradient[images],
            conv.stride,
            conv.padding,
            conv.dilation,
            conv.groups,
        )
        if self._factor is not None:
            gradient = gradient * self._factor  # back to the weights as they were before folding
        return gradient


def _groups(n: int, batch: int, pixels: int) -> Iterator[list[slice]]:
    """Whole batches, in groups of even size and about `GROUP_PIXELS`; the short last batch joins a group."""
    starts = list(range(0, n, batch))
    whole = max(1, n // batch)
    count = -(-whole * batch * pixels // GROUP_PIXELS)
    for members in np.array_split(np.arange(whole), min(whole, count)):
        group = [slice(starts[index], starts[index] + batch) for index in members]
        if members[-1] == whole - 1:
            group += [slice(start, n) for start in starts[whole:]]
        yield group


@one_core_left_free()
def single_pass(
    model: SourceModel,
    images: np.ndarray,
    labels: np.ndarray,
    *,
    batch_size: int | None = None,
    loss: str = "triplet",
    device: torch.device | str | None = None,
    random_state: int = 0,
    progress: Callable[[int], None] | None = None,
) -> Pass:
    """Features, logits and the gradient norms of the two convolutions, from one pass over the images.

    Parameters
    ----------
    model
        The source. It is left as it is; a prepared copy is run, in evaluation mode.
    images
        uint8, (n, h, w) or (n, h, w, 3), in the order in which they are batched.
    labels
        (n,), integers or strings.
    batch_size
        Images a gradient batch; by default n // 6.
    loss
        ``"triplet"``, or ``"cross_entropy"`` with a random linear head (for comparison only).
    device
        Where to run; the fastest there is by default.
    random_state
        Seed of the random head.
    progress
        Called with the number of images done.

    Returns
    -------
    Pass
        ``first`` and ``second`` are empty where the network has no two convolutions.

    Raises
    ------
    ValueError
        If images and labels do not match.
    InputError
        If the network cannot take images of that size.
    """
    labels = np.unique(np.asarray(labels).reshape(-1), return_inverse=True)[1]
    if len(images) != len(labels) or len(labels) == 0:
        raise ValueError(
            f"labels: as many as images are needed, found {len(labels)} for {len(images)} images"
        )
    if loss not in LOSSES:
        raise ValueError(f"loss: {loss!r} is none of {', '.join(map(repr, LOSSES))}")
    run = _Run(
        model, images, labels, _objective(loss, int(labels.max()) + 1, random_state), best_device(device)
    )
    groups = list(
        _groups(len(labels), batch_size or _batch_size(len(labels)), int(np.prod(images.shape[1:3])))
    )
    done: list[_GroupResult] = []
    for group in groups:
        done.append(run(group))
        if progress:
            progress(group[-1].stop)
    norms = np.array([pair for result in done for pair in result.norms], dtype=float).reshape(-1, 2)
    return Pass(
        features=np.concatenate([result.features for result in done]),
        logits=None if model.head is None else np.concatenate([result.logits for result in done]),
        first=norms[:, 0],
        second=norms[:, 1],
        triplets=np.array(
            [count_triplets(labels[part]) for group in groups for part in group], dtype=np.int64
        ),
    )


class _GroupResult(NamedTuple):
    features: np.ndarray
    logits: np.ndarray | None
    norms: list[list[float]]


class _Run:
    """What the groups of one pass have in common."""

    def __init__(
        self, model: SourceModel, images: np.ndarray, labels: np.ndarray, objective: Any, device: torch.device
    ) -> None:
        self.model, self.images, self.objective, self.device = model, images, objective, device
        self.targets = torch.from_numpy(labels).to(device)
        self.head = None if model.head is None else copy.deepcopy(model.head).to(device)
        self.network, factors = _prepare(model.backbone, device)
        self.watches = [
            _Watch(
                cast(nn.Conv2d, self.network.get_submodule(name)),
                starts=not position,
                factor=factors.get(name),
            )
            for position, name in enumerate((model.first_conv, model.second_conv))
            if name
        ]
        _shrink_convolutions(self.network, keep={watch.convolution for watch in self.watches})

    def __call__(self, group: list[slice]) -> _GroupResult:
        held = max(1, PIECE_PIXELS // int(np.prod(self.images.shape[1:3])))
        if group[0].stop - group[0].start > held:
            parts = [self._in_pieces(part, held) for part in group]
            features = torch.cat([features for features, _ in parts])
            norms = [norms for _, norms in parts if norms]
        else:
            features, norms = self._at_once(group)
        with torch.no_grad():
            logits = None if self.head is None else self.head(features).cpu().numpy()
        return _GroupResult(features.cpu().numpy(), logits, norms)

    def _embed(self, images: slice) -> torch.Tensor:
        inputs = self.model.prepare(self.images[images], self.device)
        return _forward(self.network, inputs.contiguous(memory_format=torch.channels_last), self.model)

    def _at_once(self, group: list[slice]) -> tuple[torch.Tensor, list[list[float]]]:
        """Features of a group, and the norms of each of its batches."""
        begin, end = group[0].start, group[-1].stop
        with torch.set_grad_enabled(bool(self.watches)):
            embeddings = self._embed(slice(begin, end))
        norms = []
        if self.watches:
            inside = [slice(part.start - begin, part.stop - begin) for part in group]
            targets = self.targets[begin:end]
            # Batches share the forward and the backward pass; their losses, and so their gradients, do not mix.
            losses = [self.objective(embeddings[part], targets[part]) for part in inside]
            torch.stack(losses).sum().backward()
            norms = [[_norm(watch.weight_gradient(part)) for watch in self.watches] for part in inside]
        return embeddings.detach().float(), norms

    def _in_pieces(self, batch: slice, held: int) -> tuple[torch.Tensor, list[float]]:
        """Features of one batch and its norms, with the memory of `held` images.

        The loss needs the embeddings of the whole batch, but their slopes are all that it tells the network. So the
        embeddings come first, without a graph; then the images go through once more, piece by piece, each with its
        slopes, and the pieces' weight gradients add up to the batch's.
        """
        pieces = [
            slice(start, min(start + held, batch.stop)) for start in range(batch.start, batch.stop, held)
        ]
        with torch.no_grad():
            embeddings = torch.cat([self._embed(piece) for piece in pieces])
        if not self.watches:
            return embeddings.float(), []
        leaf = embeddings.clone().requires_grad_()
        (slopes,) = torch.autograd.grad(self.objective(leaf, self.targets[batch]), leaf)
        totals = [torch.zeros_like(watch.convolution.weight) for watch in self.watches]
        for piece in pieces:
            inside = slice(piece.start - batch.start, piece.stop - batch.start)
            self._embed(piece).backward(slopes[inside])
            for total, watch in zip(totals, self.watches, strict=True):
                total += watch.weight_gradient(slice(None))
        return embeddings.float(), [_norm(total) for total in totals]


def _norm(gradient: torch.Tensor) -> float:
    return float(torch.linalg.vector_norm(gradient))


def _forward(network: nn.Module, inputs: torch.Tensor, model: SourceModel) -> torch.Tensor:
    with refusing_size(model.architecture, inputs.shape[-1]):
        return network(inputs).flatten(1)


def _objective(loss: str, classes: int, seed: int) -> Callable[[torch.Tensor, torch.Tensor], torch.Tensor]:
    if loss == "triplet":
        return triplet_loss
    heads: dict[int, nn.Linear] = {}

    def cross_entropy(embeddings: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        width = embeddings.shape[1]
        if width not in heads:
            with torch.random.fork_rng(devices=[]):
                torch.manual_seed(seed)
                heads[width] = nn.Linear(width, classes).requires_grad_(False).to(embeddings.device)
        return functional.cross_entropy(heads[width](embeddings), labels)

    return cross_entropy


def gradient_ratio(
    model: SourceModel | nn.Module,
    images: np.ndarray,
    labels: np.ndarray,
    *,
    variant: str = "corrected",
    loss: str = "triplet",
    batch_size: int | None = None,
    device: Any = None,
    random_state: int = 0,
) -> float:
    r"""Ratio of the gradients of the second and the first convolution: the proposed score's adaptability term.

    .. math:: \frac{\tfrac1B\sum_b \lVert\partial L_b/\partial W_2\rVert_2}
                   {\tfrac1B\sum_b \lVert\partial L_b/\partial W_1\rVert_2}

    over batches b of n // 6 images in their order, with the triplet-margin loss (margin 0.05, L2-normalised
    penultimate features, all triplets of the batch, averaged over the non-zero ones) and the network in
    evaluation mode without its head.

    Parameters
    ----------
    model
        The source model, or a plain torch network whose last linear layer is taken off.
    images
        uint8, (n, h, w) or (n, h, w, 3), shuffled.
    labels
        (n,), integers or strings.
    variant
        ``"published"``: every batch counts. ``"corrected"``: a batch without a valid triplet does not. Such a
        batch adds zero to both means, so the ratio is the same; the mean norms are not.
    loss
        ``"triplet"`` (the score) or ``"cross_entropy"`` with a random linear head, for comparison.
    batch_size
        Images a batch; by default n // 6.
    device, random_state
        Where to run, by default the fastest there is; seed of the random head.

    Returns
    -------
    float
        Above 0, without an upper bound. Higher is better among source datasets of one architecture; the paper
        turns it round among architectures.

    Raises
    ------
    ValueError
        If no batch holds a valid triplet, or the network has no two convolutions.

    Notes
    -----
    Cost: one forward and one backward pass through the network, without the gradients of its parameters.
    Known weaknesses: it depends on the order of the images, on the batch size and so on n, and on the scale of
    the first two layers' weights. As its own source a target never comes first by it: 0 of the 11 published
    targets.

    References
    ----------
    Juodelyte et al., arXiv 2412.20172.
    """
    if variant not in ("published", "corrected"):
        raise ValueError(f"variant: {variant!r} is none of 'published', 'corrected'")
    if isinstance(model, nn.Module):
        network = copy.deepcopy(model)
        head = split_head(network)
        model = SourceModel(type(model).__name__, network, head, type(model).__name__, "unknown")
    if model.first_conv is None:
        raise ValueError(f"model: {model.name} has no two convolutions, so there is no gradient ratio")
    done = single_pass(
        model, images, labels, batch_size=batch_size, loss=loss, device=device, random_state=random_state
    )
    return done.ratio(variant)
