"""`load_source`: a name becomes a model, by loading its weights or by training it here."""

from __future__ import annotations

import contextlib
import json
import os
import re
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch

from companion import store
from companion.datasets import Dataset, find, load_dataset, medmnist_flags, pool
from companion.errors import EnvironmentFailure, InputError, did_you_mean, require_extra
from companion.models import (
    IMAGENET_NORMALISATION,
    PLAIN_NORMALISATION,
    SourceModel,
    best_device,
    check_architecture,
    from_state,
    read_state,
    scratch,
    split_head,
    torchvision,
)
from companion.training import QUICK, SEED, SourceProtocol, train_source
from companion.training.protocols import as_dict

MEDMNIST_WEIGHTS = "https://zenodo.org/records/7782113/files/weights_{flag}.zip?download=1"
MEDMNIST_MEMBER = "resnet18_224_1.pth"
LICENCES = {
    "imagenet": "BSD-3-Clause (torchvision); ImageNet's terms for the data",
    "medmnist weights": "as the Zenodo record 7782113 says",
    "scratch": "none needed",
}
CHECKPOINT_SUFFIXES = (".safetensors", ".pth", ".pt", ".ckpt")
KINDS = ("imagenet", "scratch", "medmnist", "radimagenet", "train:DATASET", "torchvision:NAME", "timm:NAME")
# Released by their authors behind a form or as folders without stable file addresses: fetched by hand.
BY_HAND = {
    "medmnist": "the authors' OSF project 4zgrd (osf.io/4zgrd), leave-target-out weights",
    "radimagenet": "the RadImageNet project (github.com/BMEII-AI/RadImageNet), ResNet-18 weights",
}


def load_source(
    source: str | os.PathLike,
    *,
    target: str | None = None,
    architecture: str = "resnet18",
    size: int | None = None,
    seed: int = SEED,
    device: str | None = None,
    data_dir: str | os.PathLike | None = None,
    checksum: str | None = None,
    trust: bool = False,
    protocol: SourceProtocol = QUICK,
    progress: Callable[[float, str], None] | None = None,
) -> SourceModel:
    """Load a pre-trained source model.

    Parameters
    ----------
    source
        - ``"imagenet"``: torchvision's ImageNet weights of `architecture`; ``"torchvision:NAME"``, the same
          for another of its architectures;
        - ``"timm:NAME"``: a timm model with its pre-trained weights (extra ``timm``);
        - a MedMNIST flag: MedMNIST's own released ResNet-18 weights;
        - ``"medmnist"`` (needs `target`, which was left out) and ``"radimagenet"``: files put in the data
          directory by hand, see Raises;
        - a checkpoint: safetensors (preferred) or a torch file that holds tensors only, by its path or its name in
          the folder ``weights`` of the data directory;
        - ``"scratch"``: random weights, seeded;
        - ``"train:DATASET"``: trained here with `protocol` on anything `load_dataset` takes, once; kept.
          ``"train:A+B"`` pools datasets in the paper's joint label space: its leave-target-out sources;
          ``"train:A+B@4000"`` draws 4000 images from the pool.
    target
        Target dataset, for ``"medmnist"``.
    architecture
        For ``"imagenet"``, a checkpoint, ``"scratch"`` and ``"train:…"``.
    size
        Image size a ``"train:…"`` model is trained at; 28 where nothing is said.
    seed
        Seed of random weights and of training.
    device
        Where to train.
    data_dir, checksum, trust
        As for `load_dataset`; no checksum is published for MedMNIST's weights.
    protocol
        How a ``"train:…"`` model is trained.
    progress
        Called with the fraction done and a line of text while training.

    Returns
    -------
    SourceModel

    Raises
    ------
    InputError
        If the name is unknown or a checkpoint does not fit the architecture.
    EnvironmentFailure
        If weights cannot be had: the message says which file to put where.
    """
    name = os.fspath(source)
    with store.data_directory(data_dir):
        check_name(name)
        if name == "scratch":
            model = scratch(architecture, seed=seed)
            model.provenance["licence"] = LICENCES["scratch"]
            return model
        if name == "imagenet" or name.startswith("torchvision:"):
            return _imagenet(name.partition(":")[2] or architecture, name=name)
        if name.startswith("timm:"):
            return _timm(name)
        if name in BY_HAND:
            return _by_hand(name, target)
        if name in medmnist_flags():
            return _medmnist_weights(name, checksum=checksum, trust=trust)
        if not name.startswith("train:"):
            return _checkpoint(checkpoint_file(name), architecture=architecture)
        parts = [
            load_dataset(part, size=size or 28, checksum=checksum, trust=trust) for part in trained_on(name)
        ]
        dataset = parts[0] if len(parts) == 1 else pool(parts, total=_pool_size(name))
        return _trained(
            dataset, protocol, architecture=architecture, seed=seed, device=device, progress=progress
        )


def trained_on(name: str) -> list[str]:
    """Datasets of a ``train:`` name, none of another; a path may have a plus or an at sign of its own."""
    if not name.startswith("train:"):
        return []
    wanted = name.removeprefix("train:")
    if Path(wanted).expanduser().exists():
        return [wanted]
    return (wanted.rpartition("@")[0] if _pool_size(name) else wanted).split("+")


def _pool_size(name: str) -> int | None:
    """Training images that a pool is cut down to: 4000 of ``train:A+B@4000``."""
    found = re.fullmatch(r"train:[^@]+\+[^@]+@([1-9][0-9]*)", name)
    return int(found[1]) if found else None


def checkpoint_file(name: str) -> Path:
    """File of a checkpoint, named by its path or by its name in the folder ``weights`` of the data directory."""
    path = Path(name).expanduser()
    kept = store.data_dir() / "weights" / name
    return kept if Path(name).name == name and not path.is_file() and kept.is_file() else path


def check_name(source: str | os.PathLike) -> None:
    """Raise `InputError`, before any work, for what cannot be a source; nothing is loaded."""
    name = os.fspath(source)
    if name.startswith("train:"):
        for part in trained_on(name):
            find(part)
    elif name.endswith(CHECKPOINT_SUFFIXES):
        if not checkpoint_file(name).is_file():
            raise InputError(f"{name}: there is no such checkpoint file")
    elif name.startswith("torchvision:"):
        check_architecture(name.removeprefix("torchvision:"))
    elif name not in ("scratch", "imagenet", *BY_HAND, *medmnist_flags()) and not name.startswith("timm:"):
        near = did_you_mean(name, [*KINDS, *medmnist_flags()])
        files = f"a MedMNIST flag or a checkpoint ({', '.join(CHECKPOINT_SUFFIXES)})"
        raise InputError(f"no source {name!r}: give {', '.join(KINDS)}, {files}.{near}")


def _imagenet(architecture: str, *, name: str) -> SourceModel:
    check_architecture(architecture)
    weights, path = imagenet_file(architecture)
    digits = re.search(r"-([0-9a-f]{8,})\.", path.name)
    published = digits[1] if digits else None
    try:
        if not path.is_file():
            path.parent.mkdir(parents=True, exist_ok=True)
            torch.hub.download_url_to_file(weights.url, str(path), published, progress=sys.stderr.isatty())
        elif published and not store.file_hash(path).startswith(published):
            raise InputError(f"{path} does not have the sha256 that its name gives: it is damaged; delete it")
        # torchvision unpickles without restriction, and the file's name holds 8 digits of its checksum only: what
        # cannot be read with restriction, code above all, does not reach it.
        read_state(path)
        network = torchvision().models.get_model(architecture, weights=weights, progress=False)
    except (OSError, RuntimeError) as error:
        raise EnvironmentFailure(
            f"cannot download the ImageNet weights of {architecture} from {weights.url}: to go on without a "
            f"connection, put the file at {path}"
        ) from error
    head = split_head(network)
    return SourceModel(
        name=name,
        backbone=network.eval(),
        head=head,
        architecture=architecture,
        pretraining="imagenet",
        normalisation=IMAGENET_NORMALISATION,
        provenance={"origin": weights.url, "licence": LICENCES["imagenet"], "input_size": 224},
    )


def imagenet_file(architecture: str) -> tuple[Any, Path]:
    """ImageNet weights of torchvision for an architecture, and the file they are kept in, there or not."""
    offered = torchvision().models.get_model_weights(architecture)
    # The first version is what the paper's release used.
    weights = getattr(offered, "IMAGENET1K_V1", None) or offered.DEFAULT
    return weights, Path(torch.hub.get_dir()) / "checkpoints" / weights.url.rsplit("/", 1)[-1]


def _timm(name: str) -> SourceModel:
    timm = require_extra("timm", "timm")
    whole = name.removeprefix("timm:")
    architecture, _, pretraining = whole.partition(".")
    if not timm.is_model(whole):
        raise InputError(f"timm has no model {whole!r}.{did_you_mean(whole, timm.list_models())}")
    try:
        network = timm.create_model(whole, pretrained=True)
    except (OSError, RuntimeError, ValueError) as error:
        raise EnvironmentFailure(
            f"cannot download the weights of {name} from its model hub: fetch them where there is a connection "
            f"({type(error).__name__})"
        ) from error
    data = network.pretrained_cfg or {}
    mean, deviation = IMAGENET_NORMALISATION
    head = split_head(network)
    return SourceModel(
        name=name,
        backbone=network.eval(),
        head=head,
        architecture=architecture,
        pretraining=pretraining or "timm's default",
        normalisation=(tuple(data.get("mean", mean)), tuple(data.get("std", deviation))),
        provenance={
            "origin": data.get("hf_hub_id") or data.get("url") or name,
            "licence": data.get("license"),
            "input_size": (data.get("input_size") or (None,))[-1],
        },
    )


def _medmnist_weights(flag: str, *, checksum: str | None, trust: bool) -> SourceModel:
    path = medmnist_file(flag)
    url = MEDMNIST_WEIGHTS.format(flag=flag)
    store.fetch_zip_member(url, MEDMNIST_MEMBER, path, checksum=checksum, trust=trust)
    origin = f"MedMNIST's released weights of {flag} (Zenodo record 7782113), {MEDMNIST_MEMBER}"
    model = from_state(
        read_state(path)[0], architecture="resnet18", name=flag, pretraining=flag, origin=origin
    )
    model.provenance |= {"licence": LICENCES["medmnist weights"], "input_size": 224}
    return model


def medmnist_file(flag: str) -> Path:
    """File that MedMNIST's released weights of a flag are kept in, there or not."""
    return store.data_dir() / "weights" / f"medmnist_{flag}_{MEDMNIST_MEMBER}"


def _by_hand(name: str, target: str | None) -> SourceModel:
    if name == "medmnist" and not target:
        raise InputError("source 'medmnist' is trained on all sets but the target: say which (target=…)")
    path = by_hand_file(name, target)
    if not path.is_file():
        raise EnvironmentFailure(
            f"the weights of {name} are not downloaded automatically: get them from {BY_HAND[name]} and save them "
            f"as {path} (or .pth)"
        )
    origin = f"{path.name}, put there by hand"
    return from_state(
        read_state(path)[0], architecture="resnet18", name=name, pretraining=path.stem, origin=origin
    )


def by_hand_file(name: str, target: str | None) -> Path:
    """File of weights that are fetched by hand: the one that is there, else where it belongs."""
    stem = f"medmnist_without_{target}" if name == "medmnist" else name
    files = [store.data_dir() / "weights" / f"{stem}{suffix}" for suffix in CHECKPOINT_SUFFIXES]
    return next((path for path in files if path.is_file()), files[0])


def _checkpoint(path: Path, *, architecture: str) -> SourceModel:
    state, metadata = read_state(path)
    record = _record(metadata, path)
    model = from_state(
        state,
        architecture=record.get("architecture", architecture),
        name=str(path),
        pretraining=record.get("pretraining", path.stem),
        normalisation=record["normalisation"],
        origin=f"checkpoint {path.name}",
    )
    model.provenance |= record["provenance"]
    return model


def _record(metadata: Mapping[str, str], path: Path) -> dict[str, Any]:
    """What `save` wrote beside the tensors; for a file of another maker little more than nothing."""
    empty: dict[str, Any] = {"provenance": {}, "normalisation": PLAIN_NORMALISATION}
    try:
        record = empty | json.loads(metadata.get("companion", "{}"))
        mean, deviation = record["normalisation"] = tuple(
            tuple(map(float, each)) for each in record["normalisation"]
        )
        texts = all(isinstance(record.get(name, ""), str) for name in ("architecture", "pretraining"))
        if not texts or not isinstance(record["provenance"], dict) or len(mean) != 3 or len(deviation) != 3:
            raise ValueError
    except (ValueError, TypeError, AttributeError, RecursionError) as error:
        raise InputError(f"{path}: its record under 'companion' is not one of this package's") from error
    return record


def save(model: SourceModel, path: str | os.PathLike) -> Path:
    """Write a model as safetensors, atomically, with its provenance in the file's metadata."""
    from safetensors.torch import save_file

    tensors = model.backbone.state_dict()
    if model.head is not None:
        tensors |= {f"companion_head.{key}": value for key, value in model.head.state_dict().items()}
    record = {
        name: getattr(model, name) for name in ("architecture", "pretraining", "normalisation", "provenance")
    }
    with store.atomic_path(path) as temporary:
        contiguous = {key: value.contiguous() for key, value in tensors.items()}
        save_file(contiguous, temporary, metadata={"companion": json.dumps(record)})
    return Path(path)


def _trained(
    dataset: Dataset,
    protocol: SourceProtocol,
    *,
    architecture: str,
    seed: int,
    device: str | None,
    progress: Callable[[float, str], None] | None,
) -> SourceModel:
    """Train, or take the model trained earlier with exactly the same data, protocol, seed and architecture."""
    path = trained_file(dataset, protocol, architecture=architecture, seed=seed)
    about = {"licence": f"of its data: {dataset.origin}", "input_size": dataset.size}
    with contextlib.suppress(InputError):  # not there, or cut off by a full disk or a crash of the machine
        model = _checkpoint(path, architecture=architecture)
        if model.head is not None:  # every model trained here has one
            model.name = f"train:{dataset.name}"
            model.provenance |= about | {"cached": True}
            return model
    chosen = best_device(device)
    model = train_source(
        dataset, protocol, architecture=architecture, seed=seed, device=chosen, progress=progress
    )
    model.provenance |= {"run": store.provenance(seed=seed, device=str(chosen))} | about
    save(model, path)
    return model


def trained_file(
    dataset: Dataset, protocol: SourceProtocol = QUICK, *, architecture: str = "resnet18", seed: int = SEED
) -> Path:
    """File that a model trained here on `dataset` is kept in, there or not."""
    key = store.digest([dataset.content_hash, as_dict(protocol), architecture, seed, store.RESULTS_VERSION])
    label = dataset.name.replace(":", "_").replace("/", "_")
    return store.cache_dir() / "sources" / f"{label}-{protocol.name}-{key}.safetensors"
