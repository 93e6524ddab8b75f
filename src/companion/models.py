"""Networks: build one, load a checkpoint, and know where its two convolutions, features and head are.

A network here is split in two: the *backbone*, which ends in the penultimate features, and the *head*, the
last linear layer, which may be missing. MobileNetV3 alone is split before its whole classifier, as in the released
code. Names of architectures are torchvision's, or ``timm:NAME`` (an extra).
"""

from __future__ import annotations

import contextlib
import copy
import importlib
import os
import re
import sys
import warnings
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import torch
from torch import nn

from companion.errors import EnvironmentFailure, InputError, did_you_mean, require_extra

Normalisation = tuple[tuple[float, ...], tuple[float, ...]]  # mean and standard deviation per channel
IMAGENET_NORMALISATION = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
PLAIN_NORMALISATION = ((0.5, 0.5, 0.5), (0.5, 0.5, 0.5))

# The paper's nine.
ARCHITECTURES = (
    *("densenet121", "efficientnet_v2_s", "googlenet", "mnasnet1_0", "mobilenet_v3_small", "vgg11"),
    *("convnext_tiny", "shufflenet_v2_x0_5", "resnet18"),
)

# What else a checkpoint that does not say its architecture is tried against.
USUAL = (
    *("resnet34", "resnet50", "resnet101", "resnet152", "mobilenet_v2", "mobilenet_v3_large", "densenet169"),
    *("efficientnet_b0", "efficientnet_b1", "efficientnet_b2", "efficientnet_b3", "efficientnet_b4", "vgg16"),
    *("vgg16_bn", "vgg19", "convnext_small", "convnext_base", "vit_b_16", "swin_t", "inception_v3"),
)

_declared: list[torch.library.Library] = []  # the declarations live exactly as long as these objects


def torchvision() -> ModuleType:
    """Import torchvision, also where its compiled operators do not match the torch beside it.

    A CPU torch next to a torchvision built for CUDA cannot load torchvision's operators, and the import then fails over
    detection operators that no model here uses. Declaring their schemas lets it through.
    """
    try:
        return importlib.import_module("torchvision")
    except RuntimeError as error:
        if "torchvision::" not in str(error):
            raise
    for name in [name for name in sys.modules if name.partition(".")[0] == "torchvision"]:
        del sys.modules[name]
    _declared.append(torch.library.Library("torchvision", "FRAGMENT"))
    for name in ("nms", "qnms"):
        with contextlib.suppress(RuntimeError):  # declared by the half-finished import already
            _declared[-1].define(f"{name}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
    return importlib.import_module("torchvision")


def timm() -> ModuleType:
    """Import timm, an extra, which imports torchvision itself."""
    torchvision()
    return require_extra("timm", "timm")


@dataclass
class SourceModel:
    """A pre-trained network, ready to be scored or fine-tuned.

    Models with one architecture and different pre-training can be ranked against each other, and so can models with one
    pre-training and different architectures. MobileNetV3's head is its whole classifier, as in the released code: the
    features of ``"mobilenet_v3_small"`` are 576 wide, not the 1024 of its hidden layer.
    """

    name: str  # what it was asked for as
    backbone: nn.Module  # from normalised images (n, 3, h, w) to penultimate features (n, d)
    head: nn.Module | None  # last linear layer, features to source-class logits
    architecture: str
    pretraining: str  # what it was trained on
    normalisation: Normalisation = PLAIN_NORMALISATION  # for images scaled to 0..1
    # The two layers whose gradients are compared, by their names in `backbone`: see `first_layers`.
    first_conv: str | None = None
    second_conv: str | None = None
    provenance: dict[str, Any] = field(default_factory=dict)  # where the weights came from

    def __post_init__(self) -> None:
        if self.first_conv is None:
            self.first_conv, self.second_conv = first_layers(self.backbone)

    @classmethod
    def split(cls, network: nn.Module, **about: Any) -> SourceModel:
        """Make a source of a whole network, which loses its head: see `split_head`."""
        head = split_head(network)
        return cls(backbone=network.eval(), head=head, **about)

    def __repr__(self) -> str:
        return f"SourceModel({self.name!r}: {self.architecture}, pre-trained on {self.pretraining})"

    @property
    def batch_norm(self) -> bool:
        """Whether the network has batch norm of its own, not folded into its convolutions."""
        return any(isinstance(part, nn.BatchNorm2d) for part in self.backbone.modules())

    def prepare(self, images: np.ndarray, device: torch.device | str = "cpu") -> torch.Tensor:
        """Normalised float32 batch (n, 3, h, w) from uint8 images (n, h, w) or (n, h, w, 3)."""
        return to_batch(images, self.normalisation, device)

    def features(
        self, images: np.ndarray, *, device: torch.device | str | None = None, batch: int = 256
    ) -> np.ndarray:
        """Penultimate features (n, d), float32, of uint8 images, in evaluation mode and without gradients.

        They are computed on `device`, the fastest there is by default, by a copy of the network.
        """
        device = best_device(device)
        network = copy.deepcopy(self.backbone).eval().to(device)
        with torch.inference_mode(), one_core_left_free():
            parts = [
                network(self.prepare(images[start : start + batch], device)).flatten(1).cpu().numpy()
                for start in range(0, len(images), batch)
            ]
        return np.concatenate(parts)

    def predict(self, images: np.ndarray, *, device: torch.device | str | None = None) -> np.ndarray:
        """Class probabilities, (n, classes), of uint8 images (n, h, w) or (n, h, w, 3), by the model's own head.

        Raises
        ------
        InputError
            If the model has no head.
        """
        if self.head is None:
            raise InputError(
                f"{self.name} has no head, so it predicts nothing: fine-tune it first (companion tune)"
            )
        features = torch.from_numpy(self.features(images, device=device))
        with torch.inference_mode():
            return copy.deepcopy(self.head).cpu().eval()(features).softmax(1).numpy()


def to_batch(
    images: np.ndarray, normalisation: Normalisation, device: torch.device | str = "cpu"
) -> torch.Tensor:
    """Turn uint8 images (n, h, w[, 3]) into a normalised float32 batch; grey images are repeated to three channels."""
    images = np.asarray(images)
    if images.dtype != np.uint8 or images.ndim not in (3, 4) or images.ndim == 4 and images.shape[3] != 3:
        raise InputError(
            f"images have shape {images.shape} and type {images.dtype}: wanted uint8, (n, h, w) or (n, h, w, 3)"
        )
    batch = torch.from_numpy(np.ascontiguousarray(images)).to(device)
    batch = batch.unsqueeze(1).expand(-1, 3, -1, -1) if batch.ndim == 3 else batch.permute(0, 3, 1, 2)
    mean, deviation = (torch.tensor(values, device=device).view(1, 3, 1, 1) for values in normalisation)
    return batch.float().div_(255).sub_(mean).div_(deviation)


def first_layers(network: nn.Module) -> tuple[str | None, str | None]:
    """Names of the first two 2-D convolutions, in the order of the network's definition.

    For the paper's nine architectures these are the layers the released code names. A network with fewer, such as a
    vision transformer, has its first two layers with a weight matrix instead (patch embedding and first block): an
    extension that nobody has validated, and `extended` says where it is in use. None where there are no two.
    """
    found = [
        (name, module)
        for name, module in network.named_modules()
        if isinstance(module, nn.Conv2d | nn.Linear) and module.weight.requires_grad
    ]
    names = [name for name, module in found if isinstance(module, nn.Conv2d)]
    if len(names) < 2:
        names = [name for name, _ in found]
    return (names[0], names[1]) if len(names) > 1 else (None, None)


def extended(model: SourceModel) -> bool:
    """Whether a model's gradient ratio is of layers that the paper does not speak of: see `first_layers`."""
    names = [name for name in (model.first_conv, model.second_conv) if name is not None]
    return any(not isinstance(model.backbone.get_submodule(name), nn.Conv2d) for name in names)


def family(architecture: str) -> str:
    """Architecture without its patch and input size: networks that differ in nothing else are compared."""
    return re.sub(r"(_patch\d+.*|_\d{3})$", "", architecture.removeprefix("timm:"))


def split_head(network: nn.Module) -> nn.Module | None:
    """Replace the head of `network` by the identity and return it; None where a timm network has none.

    Raises
    ------
    InputError
        If the network has no linear layer.
    """
    if isinstance(network, torchvision().models.MobileNetV3):
        whole, network.classifier = network.classifier, nn.Identity()
        return whole.eval()
    if hasattr(network, "reset_classifier"):  # timm's
        timms: Any = network
        head = timms.get_classifier()
        timms.reset_classifier(0)
        return head if isinstance(head, nn.Linear) else None
    linear = [(name, module) for name, module in network.named_modules() if isinstance(module, nn.Linear)]
    if not linear:
        raise InputError(f"{type(network).__name__} has no linear layer: where its features end is not known")
    name, head = linear[-1]
    parent, _, attribute = name.rpartition(".")
    setattr(network.get_submodule(parent), attribute, nn.Identity())
    return head


def from_module(
    network: nn.Module, *, name: str = "", normalisation: Normalisation = PLAIN_NORMALISATION
) -> SourceModel:
    """Make a source of any network that takes images (n, 3, h, w); it is copied.

    Its last linear layer is the head where the network's output is that layer's; otherwise the output is the features.

    Raises
    ------
    InputError
        If the network does not return a tensor.
    """
    kind, whole = type(network).__name__, copy.deepcopy(network).eval()
    backbone = copy.deepcopy(whole)
    parameter = next(whole.parameters(), None)
    probe = torch.rand(1, 3, 224, 224, device=None if parameter is None else parameter.device)
    head = None
    with torch.inference_mode():
        output = whole(probe)
        if not isinstance(output, torch.Tensor):
            returned = f"{kind} returns {type(output).__name__}"
            raise InputError(f"{returned}: wrap it so that it returns features or logits")
        with contextlib.suppress(InputError, RuntimeError):  # no linear layer, or one of another place
            last = split_head(backbone)
            if last and torch.allclose(last(backbone(probe).flatten(1)), output.flatten(1), atol=1e-5):
                head = last
    return SourceModel(
        name=name or kind,
        backbone=backbone if head else whole,
        head=head,
        architecture=kind,
        pretraining=name or "unknown",
        normalisation=normalisation,
        provenance={"origin": "a network given in Python", "normalisation_from": "assumed"},
    )


def folded(model: SourceModel) -> SourceModel:
    """The same network with every batch norm folded into the convolution before it, as exporters write it."""
    from torch.fx.experimental.optimization import fuse

    return replace(model, backbone=fuse(copy.deepcopy(model.backbone).eval()))


class _Affine(nn.Module):
    """Batch norm in evaluation mode, as the factor and the summand of each channel that it is."""

    factor: torch.Tensor
    summand: torch.Tensor

    def __init__(self, norm: nn.BatchNorm2d) -> None:
        super().__init__()
        state = {
            name: value.detach()[:, None, None] for name, value in norm.state_dict().items() if value.ndim
        }
        factor = state["weight"] / (state["running_var"] + norm.eps).sqrt()
        self.register_buffer("factor", factor)
        self.register_buffer("summand", state["bias"] - state["running_mean"] * factor)

    def forward(self, maps: torch.Tensor) -> torch.Tensor:
        return torch.addcmul(self.summand, maps, self.factor)


def without_statistics(network: nn.Module) -> nn.Module:
    """Put what batch norm does in evaluation mode in its place, inside `network`; it is returned.

    torch's own keeps its input for the gradient of its parameters, wanted or not: a third of the memory of a pass.
    """
    for part in list(network.modules()):
        for name, child in part.named_children():
            if type(child) is nn.BatchNorm2d and child.affine and child.track_running_stats:
                setattr(part, name, _Affine(child))
    return network


def check_architecture(architecture: str) -> None:
    """Raise `InputError`, with the nearest name, for what is no classification network; ``timm:NAME`` is timm's."""
    if architecture.startswith("timm:"):
        library, name = timm(), architecture.removeprefix("timm:")
        if not library.is_model(name):
            raise InputError(f"timm has no model {name!r}.{did_you_mean(name, library.list_models())}")
        return
    known = torchvision().models.list_models(module=torchvision().models)
    if architecture not in known:
        near = did_you_mean(architecture, known)
        raise InputError(f"torchvision has no classification model {architecture!r}.{near}")


def build(architecture: str, *, classes: int = 1000, seed: int | None = None) -> nn.Module:
    """Build a classification network with random weights.

    Parameters
    ----------
    architecture
        A torchvision name, for example ``"resnet18"``, or ``"timm:NAME"`` (extra ``timm``).
    classes
        Outputs of the last layer.
    seed
        Seed of the weights; the global random state is left as it was.

    Raises
    ------
    InputError
        If there is no classification model of that name.
    """
    check_architecture(architecture)
    options: dict[str, Any] = {"num_classes": classes}
    if architecture in ("googlenet", "inception_v3"):
        options |= {"aux_logits": False, "init_weights": True}
    with torch.random.fork_rng(devices=[]):
        if seed is not None:
            torch.manual_seed(seed)
        if architecture.startswith("timm:"):
            return timm().create_model(architecture.removeprefix("timm:"), **options)
        return torchvision().models.get_model(architecture, weights=None, **options)


@contextlib.contextmanager
def refusing_size(architecture: str, size: int) -> Iterator[None]:
    """Turn an error of the block into an `InputError` where it means that images of `size` pixels are too small.

    Maps that vanish raise a RuntimeError about sizes, a transformer's own check raises an AssertionError.
    """
    try:
        yield
    except (RuntimeError, AssertionError) as error:
        if size >= 224 or not (
            isinstance(error, AssertionError) or re.search("input (of )?size", str(error))
        ):
            raise
        larger = "load the data at a larger size, at 224 px if need be"
        raise InputError(f"{architecture} cannot take images of {size} px: {larger}") from error


def check_takes(network: nn.Module, architecture: str, size: int, device: torch.device | str) -> torch.Tensor:
    """What a network makes of an image; an `InputError`, before anything is trained, if `size` pixels are too few."""
    with refusing_size(architecture, size), torch.inference_mode():
        return network.eval()(torch.zeros(1, 3, size, size, device=device))


def scratch(architecture: str = "resnet18", *, seed: int = 0, name: str = "scratch") -> SourceModel:
    """Return a network with random, seeded weights and no head: the source "no pre-training at all"."""
    model = SourceModel.split(
        build(architecture, seed=seed),
        name=name,
        architecture=architecture,
        pretraining=f"nothing (random weights, seed {seed})",
        provenance={"origin": "random initialisation", "seed": seed, "licence": "none needed"},
    )
    return replace(model, head=None)


def _unwrap(state: Any, path: Path) -> dict[str, torch.Tensor]:
    """Return the state dict inside the usual wrappings, with the usual prefixes taken off."""
    for key in ("net", "state_dict", "model_state_dict", "model"):
        if isinstance(state, Mapping) and isinstance(state.get(key), Mapping):
            state = state[key]
    if not isinstance(state, Mapping) or not all(isinstance(value, torch.Tensor) for value in state.values()):
        raise InputError(f"{path} holds no state dict (a mapping from parameter names to tensors)")
    state = dict(state)
    for prefix in ("module.", "model.", "net.", "backbone.", "encoder."):
        if state and all(key.startswith(prefix) for key in state):
            state = {key.removeprefix(prefix): value for key, value in state.items()}
    return state


def read_state(path: str | os.PathLike) -> tuple[dict[str, torch.Tensor], dict[str, str]]:
    """Read a checkpoint's tensors and, from safetensors, its metadata. No code in it is ever run.

    Raises
    ------
    InputError
        If the file is missing, cut off, not a checkpoint, or a pickle with anything but tensors in it.
    """
    path = Path(path)
    if not path.is_file():
        raise InputError(f"{path}: there is no such checkpoint file")
    try:
        if path.suffix == ".safetensors":
            from safetensors import safe_open

            with safe_open(path, framework="pt") as opened:
                state = {key: opened.get_tensor(key) for key in opened.keys()}
                return _unwrap(state, path), opened.metadata() or {}
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return _unwrap(torch.load(path, map_location="cpu", weights_only=True), path), {}
    except InputError:
        raise
    except Exception as error:
        # torch and safetensors raise a dozen types here; each means that the file is not usable weights.
        reason = "is not a whole checkpoint"
        if "weights_only" in str(error).lower() or "Unsupported" in str(error):
            reason = "holds more than tensors, and code in it would be run: it is not loaded; save it as safetensors"
        raise InputError(f"{path} {reason}") from error


def guess_architecture(state: Mapping[str, torch.Tensor], first: str = "resnet18") -> str | None:
    """Name of the usual network, or of `first`, that a state dict fits by names and shapes of its tensors."""
    for name in dict.fromkeys((first, *ARCHITECTURES, *USUAL)):
        with torch.device("meta"):
            network = build(name)
        split_head(network)
        if not _fitting(network, state, name)[1]:
            return name
    return None


def _fitting(
    network: nn.Module, state: Mapping[str, torch.Tensor], architecture: str
) -> tuple[list[str], str]:
    """Tensors of a backbone that a state dict has, and why it is not one of that backbone; empty where it is.

    It is one where at least 99 % of the backbone's tensors are there in the right shape, and none of its parts has more
    convolutions in the file than in the network.
    """
    whole = network.state_dict()
    wanted = [key for key in whole if not key.endswith("num_batches_tracked")]
    fits = [key for key in wanted if key in state and state[key].shape == whole[key].shape]
    if len(fits) < 0.99 * len(wanted):
        misfit = next(key for key in wanted if key not in fits)
        first = f"first one {'has another shape' if misfit in state else 'is missing'}: {misfit}"
        covered = f"{len(fits) / len(wanted):.0%} of the backbone of {architecture}"
        return fits, f"covers {covered} ({len(fits)} of {len(wanted)} tensors; {first})"
    parts = {name for name, _ in network.named_children()}
    beyond = [key for key in state.keys() - whole.keys() if key.partition(".")[0] in parts]
    if deeper := [key for key in beyond if state[key].ndim == 4]:
        one = f"one of them: {min(deeper)}"
        return fits, f"holds {len(deeper)} convolution(s) that {architecture} does not have ({one})"
    return fits, ""


def from_state(
    state: Mapping[str, torch.Tensor], *, architecture: str, name: str, pretraining: str, origin: str = ""
) -> SourceModel:
    """Build `architecture` and fill it from a state dict.

    The head is taken over where the state dict has one, whatever its number of classes.

    Raises
    ------
    InputError
        If these are weights of another architecture.
    """
    network = build(architecture)
    head = split_head(network)
    fits, misfit = _fitting(network, state, architecture)
    if misfit:
        raise InputError(
            f"{origin or name} {misfit}: these are weights of another architecture; name theirs (FILE@ARCHITECTURE, or "
            "--architecture for all)"
        )
    whole = network.state_dict()  # with the versions of its parts, which MnasNet asks for
    outside = {key: value for key, value in state.items() if key not in whole}
    whole.update({key: state[key].float() for key in fits})
    network.load_state_dict(whole)
    return SourceModel(
        name=name,
        backbone=network.eval(),
        head=None if head is None else _head_from(outside, head),
        architecture=architecture,
        pretraining=pretraining,
        provenance={"origin": origin, "tensors": len(fits)},
    )


def _head_from(state: Mapping[str, torch.Tensor], head: nn.Module) -> nn.Module | None:
    """Fill `head` with as many classes as the state dict has, whatever its name there; None where there is none."""
    linear = [
        (f"{name}.".lstrip("."), part) for name, part in head.named_modules() if isinstance(part, nn.Linear)
    ]
    (first, layer), (last, _) = linear[0], linear[-1]
    shape = (layer.in_features,)
    inputs = [key for key in state if key.endswith(f"{first}weight") and state[key].shape[1:] == shape]
    if len(inputs) != 1:
        return None
    start = inputs[0].removesuffix(f"{first}weight")
    own = {key.removeprefix(start): value.float() for key, value in state.items() if key.startswith(start)}
    try:
        classes, width = own[f"{last}weight"].shape
        replacement = nn.Linear(width, classes, bias=f"{last}bias" in own)
        if last:
            setattr(head, last.removesuffix("."), replacement)
        else:
            head = replacement
        head.load_state_dict({key: own[key] for key in head.state_dict()})
    except (KeyError, ValueError, RuntimeError):  # a layer of it is missing, or has another shape
        return None
    return head


@contextlib.contextmanager
def one_core_left_free() -> Iterator[None]:
    """Let torch use one thread fewer than there are cores at most, and as many as before afterwards.

    Threads that wait for each other spin, and where another process has one of their cores they wait at every layer. On
    two cores beside such a process two threads took 3 to 13 times the processor time of one, at 28 to 224 px. On two
    cores this also makes what a training gives independent of the number of threads that torch is started with.
    """
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    before = torch.get_num_threads()
    torch.set_num_threads(max(1, min(before, cores - 1)))
    try:
        yield
    finally:
        torch.set_num_threads(before)


# Devices that networks of this process were sent to: what ran is reported, not what would have been fastest.
devices_used: set[str] = set()


def best_device(name: torch.device | str | None = None) -> torch.device:
    """Return the device asked for, or the fastest there is, and note it in `devices_used`.

    Every function that runs a network asks here where.

    Raises
    ------
    InputError
        If the name is not a device.
    EnvironmentFailure
        If the device asked for is not there.
    """
    cuda, mps = torch.cuda.is_available(), torch.backends.mps.is_available()
    if name in (None, "auto"):
        name = "cuda" if cuda else "mps" if mps else "cpu"
    try:
        device = torch.device(str(name))
    except RuntimeError:
        device = None
    if device is None or device.type not in ("cpu", "cuda", "mps"):
        raise InputError(f"device {name!r} is not one this package uses: give auto, cpu, cuda, cuda:N or mps")
    there = {"cpu": True, "cuda": cuda and (device.index or 0) < torch.cuda.device_count(), "mps": mps}
    if not there[device.type]:
        raise EnvironmentFailure(f"device {name!r} is not there: leave --device out, or give cpu")
    devices_used.add(str(device))
    return device
