"""`load_source`: a name becomes a model, by loading its weights or by training it here."""

from __future__ import annotations

import contextlib
import json
import os
import re
import sys
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from pydantic import BaseModel, ValidationError
from torch import nn

from companion import store
from companion.datasets import Dataset, find, load_dataset, medmnist_flags, pool
from companion.errors import EnvironmentFailure, InputError, did_you_mean
from companion.models import (
    IMAGENET_NORMALISATION,
    PLAIN_NORMALISATION,
    Normalisation,
    SourceModel,
    best_device,
    check_architecture,
    from_module,
    from_state,
    guess_architecture,
    read_state,
    scratch,
    timm,
    torchvision,
)
from companion.training import QUICK, SEED, SourceProtocol, train_source
from companion.training.loop import Report
from companion.training.protocols import as_dict

Source = str | os.PathLike | SourceModel | nn.Module
MEDMNIST_WEIGHTS = "https://zenodo.org/records/7782113/files/weights_{flag}.zip?download=1"
MEDMNIST_MEMBER = "resnet18_224_1.pth"
IMAGENET_LICENCE = "BSD-3-Clause (torchvision); ImageNet's terms for the data"
CHECKPOINT_SUFFIXES = (".safetensors", ".pth", ".pt", ".ckpt")
KINDS = ("imagenet", "scratch", "medmnist", "radimagenet", "train:DATASET", "torchvision:NAME", "timm:NAME")
# Released by their authors behind a form or as folders without stable file addresses: fetched by hand.
BY_HAND = {
    "medmnist": "the authors' OSF project 4zgrd (osf.io/4zgrd), leave-target-out weights",
    "radimagenet": "the RadImageNet project (github.com/BMEII-AI/RadImageNet), ResNet-18 weights",
}


def load_source(
    source: Source,
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
    progress: Report | None = None,
) -> SourceModel:
    """Load a pre-trained source model.

    Parameters
    ----------
    source
        - ``"imagenet"``: torchvision's ImageNet weights of `architecture`; ``"torchvision:NAME"``, the same
          for another of its architectures;
        - ``"timm:NAME"``: a timm model with its pre-trained weights (extra ``timm``), also of a Hugging Face
          repository, ``"timm:hf-hub:OWNER/NAME"``;
        - a MedMNIST flag: MedMNIST's own released ResNet-18 weights;
        - ``"medmnist"`` (needs `target`, which was left out) and ``"radimagenet"``: files put in the data
          directory by hand, see Raises;
        - a checkpoint: safetensors (preferred) or a torch file that holds tensors only, by its path or its name in
          the folder ``weights`` of the data directory; ``"PATH@NAME"`` says its architecture;
        - ``"scratch"``: random weights, seeded;
        - ``"train:DATASET"``: trained here with `protocol` on anything `load_dataset` takes, once; kept.
          ``"train:A+B"`` pools datasets in the paper's joint label space: its leave-target-out sources;
          ``"train:A+B@4000"`` draws 4000 images from the pool;
        - a network, see `companion.models.from_module`, or a source model, which is returned as it is.
    target
        Target dataset, for ``"medmnist"``.
    architecture
        For ``"imagenet"``, ``"scratch"``, ``"train:…"``, and a checkpoint that fits it and does not say its own; other
        checkpoints are tried against the usual architectures.
    size
        Image size a ``"train:…"`` model is trained at; 28 where nothing is said.
    seed
        Seed of random weights and of training.
    device
        Where to train.
    data_dir, checksum, trust
        As for `load_dataset` and `companion.store.fetch`; no checksum is published for MedMNIST's weights.
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
    if isinstance(source, SourceModel):
        return source
    if isinstance(source, nn.Module):
        return from_module(source)
    name = os.fspath(source)
    with store.data_directory(data_dir):
        check_name(name)
        kind, what, own = _parsed(name)
        if kind == "checkpoint":
            return _checkpoint(checkpoint_file(what), architecture=own, default=architecture)
        if kind == "medmnist weights":
            return _medmnist_weights(name, checksum=checksum, trust=trust)
        if kind in ("imagenet", "torchvision"):
            return _imagenet(what or architecture, name=name)
        if kind == "timm":
            return _timm(what)
        if kind == "scratch":
            return scratch(architecture, seed=seed)
        if kind in BY_HAND:
            return _by_hand(name, target)
        of = trained_on(name)
        parts = [load_dataset(part, size=size or 28) for part in of]
        dataset = parts[0] if len(parts) == 1 else pool(parts, total=_pool_size(name))
        return _trained(dataset, protocol, architecture, seed=seed, device=device, progress=progress)


# --- names --------------------------------------------------------------------------------------------------


def _parsed(name: str) -> tuple[str, str, str]:
    """Kind of a source by its name, what follows the kind, and the architecture that a checkpoint's name says."""
    path, _, architecture = name.rpartition("@")  # a path may have an at sign of its own
    if not path.endswith(CHECKPOINT_SUFFIXES):
        path, architecture = name, ""
    kind, _, what = name.partition(":")
    if kind == "train" or not path.endswith(CHECKPOINT_SUFFIXES):
        return "medmnist weights" if name in medmnist_flags() else kind, what, ""
    return "checkpoint", path, architecture


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


def called(source: Source) -> str:
    """Return what a source is called in tables and reports: a checkpoint by its file's name alone."""
    if isinstance(source, nn.Module):
        return type(source).__name__
    if isinstance(source, SourceModel):
        return source.name
    kind, path, _ = _parsed(os.fspath(source))
    return Path(path).stem if kind == "checkpoint" else os.fspath(source)


def checkpoint_file(name: str) -> Path:
    """File of a checkpoint, named by its path or by its name in the folder ``weights`` of the data directory."""
    path = Path(name).expanduser()
    kept = store.data_dir() / "weights" / name
    return kept if Path(name).name == name and not path.is_file() and kept.is_file() else path


def check_name(source: str | os.PathLike) -> None:
    """Raise `InputError`, before any work, for what cannot be a source; nothing is loaded."""
    name = os.fspath(source)
    kind, what, architecture = _parsed(name)
    for part in trained_on(name):
        find(part)
    if kind == "torchvision" or architecture:
        check_architecture(architecture or what)
    if kind == "checkpoint" and not checkpoint_file(what).is_file():
        raise InputError(f"{what}: there is no such checkpoint file")
    named = kind in ("checkpoint", "medmnist weights") or (kind in ("train", "torchvision", "timm") and what)
    if not named and name not in KINDS:
        near = did_you_mean(name, [*KINDS, *medmnist_flags()])
        if name in torchvision().models.list_models(module=torchvision().models):
            near = f" Did you mean 'torchvision:{name}'?"
        files = f"a MedMNIST flag or a checkpoint ({', '.join(CHECKPOINT_SUFFIXES)})"
        raise InputError(f"no source {name!r}: give {', '.join(KINDS)}, {files}.{near}")


def by_name(sources: Source | Sequence[Source] | Mapping[str, Source]) -> dict[str, Source]:
    """Sources by what they are `called`; those that cannot be ranked are refused before any work.

    A ``.csv`` stands for the checkpoints that it lists; networks are numbered. A mapping is by name already.

    Raises
    ------
    InputError
        If there are fewer than two, one is named twice, or one does not exist.
    """
    if isinstance(sources, Mapping):
        return dict(sources)
    given = [sources] if isinstance(sources, Source) else list(sources)
    listed: list[Source] = []
    for one in given:
        if isinstance(one, str | os.PathLike) and os.fspath(one).endswith(".csv"):
            listed += read_sources(one)
        else:
            listed.append(one)
    names = []
    for number, source in enumerate(listed, start=1):
        if isinstance(source, str | os.PathLike):
            check_name(source)
        names.append(f"{called(source)} {number}" if isinstance(source, nn.Module) else called(source))
    if len(names) < 2:
        raise InputError(f"a ranking needs at least two sources: got {', '.join(names) or 'none'}")
    if doubled := [name for name in names if names.count(name) > 1]:
        raise InputError(f"source {doubled[0]!r} is named twice")
    return dict(zip(names, listed, strict=True))


def read_sources(path: str | os.PathLike) -> list[SourceModel]:
    """Load the checkpoints that a table lists: what a file itself does not say stands there.

    Parameters
    ----------
    path
        A ``.csv`` with the columns ``name`` and ``path`` (relative to the table), and where wanted ``architecture``,
        ``pretraining``, ``mean`` and ``std`` (one number or three, with spaces between) and ``classes`` (outputs of the
        head, to be checked).

    Raises
    ------
    InputError
        If the table or a checkpoint cannot be used.
    """
    path, known = Path(path), {"name", "path", "architecture", "pretraining", "mean", "std", "classes"}
    try:
        table = pd.read_csv(path, dtype=str, keep_default_na=False)
    except (OSError, ValueError) as error:
        raise InputError(f"{path}: not a table of sources ({error})") from error
    if not {"name", "path"} <= set(table) <= known:
        raise InputError(f"{path}: columns name and path are needed, and may be {', '.join(sorted(known))}")
    found = []
    for number, row in enumerate(table.to_dict("records"), start=2):
        where, file = f"{path}, line {number}", path.parent / row["path"]
        mean, std = (_three(row.get(name, ""), f"{where}: {name}") for name in ("mean", "std"))
        if bool(mean) != bool(std) or min(std, default=1) <= 0:
            raise InputError(f"{where}: mean and std are needed together, std above 0")
        normalisation = (mean, std) if std else None
        model = _checkpoint(file, architecture=row.get("architecture", ""), given=normalisation)
        outputs = 0 if model.head is None else [*model.head.parameters()][-1].shape[0]
        if row.get("classes") and row["classes"] != str(outputs):
            raise InputError(f"{where}: {file.name} has a head of {outputs} classes, not {row['classes']}")
        pretraining = row.get("pretraining") or model.pretraining
        found.append(replace(model, name=row["name"], pretraining=pretraining))
    return found


def _three(text: str, where: str) -> tuple[float, ...]:
    """One number or three as three; none where there is no text."""
    try:
        values = tuple(map(float, text.split()))
    except ValueError:
        values = (np.nan,)
    if len(values) not in (0, 1, 3) or not np.isfinite(values).all():
        raise InputError(f"{where} is {text!r}: one number or three are needed")
    return values * 3 if len(values) == 1 else values


# --- by kind ------------------------------------------------------------------------------------------------


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
    return SourceModel.split(
        network,
        name=name,
        architecture=architecture,
        pretraining="imagenet",
        normalisation=IMAGENET_NORMALISATION,
        provenance={"origin": weights.url, "licence": IMAGENET_LICENCE, "input_size": 224},
    )


def imagenet_file(architecture: str) -> tuple[Any, Path]:
    """ImageNet weights of torchvision for an architecture, and the file they are kept in, there or not."""
    offered = torchvision().models.get_model_weights(architecture)
    # The first version is what the paper's release used.
    weights = getattr(offered, "IMAGENET1K_V1", None) or offered.DEFAULT
    return weights, Path(torch.hub.get_dir()) / "checkpoints" / weights.url.rsplit("/", 1)[-1]


def _timm(name: str) -> SourceModel:
    architecture, _, pretraining = name.rpartition("/")[2].partition(".")
    if not name.startswith("hf-hub:"):
        check_architecture(f"timm:{architecture}")
    try:
        network = timm().create_model(name, pretrained=True)
    except (OSError, RuntimeError, ValueError) as error:
        raise EnvironmentFailure(
            f"cannot download the weights of timm:{name} from its model hub: fetch them where there is a connection "
            f"({type(error).__name__})"
        ) from error
    return from_timm(network, name=f"timm:{name}", architecture=architecture, pretraining=pretraining)


def from_timm(network: Any, *, name: str, architecture: str, pretraining: str = "") -> SourceModel:
    """Make a source of a network of timm's, with the normalisation and the origin that it carries."""
    data = network.pretrained_cfg or {}
    mean, deviation = IMAGENET_NORMALISATION
    return SourceModel.split(
        network,
        name=name,
        architecture=f"timm:{architecture}",
        pretraining=pretraining or "timm's default",
        normalisation=(tuple(data.get("mean", mean)), tuple(data.get("std", deviation))),
        provenance={
            "origin": data.get("hf_hub_id") or data.get("url") or name,
            "licence": data.get("license"),
            "input_size": (data.get("input_size") or (None,))[-1],
            "normalisation_from": "as timm says",
        },
    )


def _medmnist_weights(flag: str, *, checksum: str | None, trust: bool) -> SourceModel:
    path, url = medmnist_file(flag), MEDMNIST_WEIGHTS.format(flag=flag)
    store.fetch_zip_member(url, MEDMNIST_MEMBER, path, checksum=checksum, trust=trust)
    origin = f"MedMNIST's released weights of {flag} (Zenodo record 7782113), {MEDMNIST_MEMBER}"
    model = _resnet18(path, name=flag, pretraining=flag, origin=origin)
    model.provenance |= {"licence": "as the Zenodo record 7782113 says", "input_size": 224}
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
    return _resnet18(path, name=name, pretraining=path.stem, origin=f"{path.name}, put there by hand")


def by_hand_file(name: str, target: str | None) -> Path:
    """File of weights that are fetched by hand: the one that is there, else where it belongs."""
    stem = f"medmnist_without_{target}" if name == "medmnist" else name
    files = [store.data_dir() / "weights" / f"{stem}{suffix}" for suffix in CHECKPOINT_SUFFIXES]
    return next((path for path in files if path.is_file()), files[0])


def _resnet18(path: Path, **about: Any) -> SourceModel:
    return from_state(read_state(path)[0], architecture="resnet18", **about)


Three = tuple[float, float, float]


class Record(BaseModel):
    """What `save` writes beside the tensors; a file of another maker says nothing of it."""

    architecture: str = ""
    pretraining: str = ""
    normalisation: tuple[Three, Three] | None = None
    provenance: dict[str, Any] = {}


def _checkpoint(
    path: Path, *, architecture: str = "", default: str = "resnet18", given: Normalisation | None = None
) -> SourceModel:
    """Load a checkpoint: its architecture as given, else as it says, else the default one or a usual one it fits."""
    state, metadata = read_state(path)
    try:
        record, remarks = Record.model_validate_json(metadata.get("companion", "{}")), []
    except ValidationError as error:
        raise InputError(f"{path}: its record under 'companion' is not one of this package's") from error
    chosen = architecture or record.architecture
    if not chosen and (guessed := guess_architecture(state, default)) not in (None, default):
        remarks.append(f"architecture guessed from its tensors: {guessed}")
        chosen = guessed
    model = from_state(
        state,
        architecture=chosen or default,
        name=str(path),
        pretraining=record.pretraining or path.stem,
        origin=f"checkpoint {path.name}",
    )
    if given:
        model.normalisation, who = given, "as the table of sources says"
    elif record.normalisation:
        model.normalisation, who = record.normalisation, "as the file says"
    else:
        model.normalisation, said = _usual_normalisation(model)
        remarks.append(
            f"normalisation assumed ({said}), since the file does not say: other values give other scores; a table of "
            "sources gives them (mean, std)"
        )
        who = "assumed"
    model.provenance |= record.provenance | {"remarks": remarks, "normalisation_from": who}
    return model


def _usual_normalisation(model: SourceModel) -> tuple[Normalisation, str]:
    """Normalisation that networks like this one mostly have, and why."""
    weight = None if model.head is None else next(model.head.parameters())
    if weight is not None and len(weight) in (1000, 1001, 21841):
        return IMAGENET_NORMALISATION, "ImageNet's, as its head has ImageNet's classes"
    return PLAIN_NORMALISATION, "mean .5, sd .5; torchvision's and timm's own networks mostly have ImageNet's"


def save(model: SourceModel, path: str | os.PathLike) -> Path:
    """Write a model as safetensors, atomically, with its provenance in the file's metadata."""
    from safetensors.torch import save_file

    tensors = model.backbone.state_dict()
    if model.head is not None:
        tensors |= {f"companion_head.{key}": value for key, value in model.head.state_dict().items()}
    record = {name: getattr(model, name) for name in Record.model_fields}
    with store.atomic_path(path) as temporary:
        contiguous = {key: value.contiguous() for key, value in tensors.items()}
        save_file(contiguous, temporary, metadata={"companion": json.dumps(record)})
    return Path(path)


def _trained(
    dataset: Dataset,
    protocol: SourceProtocol,
    architecture: str,
    *,
    seed: int,
    device: str | None,
    progress: Report | None,
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
    try:
        save(model, path)
    except EnvironmentFailure as error:  # a full disk: the model is here and good
        model.provenance["remarks"] = [f"not kept for another time: {error}"]
    return model


def trained_file(
    dataset: Dataset, protocol: SourceProtocol = QUICK, *, architecture: str = "resnet18", seed: int = SEED
) -> Path:
    """File that a model trained here on `dataset` is kept in, there or not."""
    key = store.digest([dataset.content_hash, as_dict(protocol), architecture, seed, store.RESULTS_VERSION])
    label = dataset.name.replace(":", "_").replace("/", "_")
    return store.cache_dir() / "sources" / f"{label}-{protocol.name}-{key}.safetensors"
