"""`load_source`: a name becomes a model, by loading its weights or by training it here."""

from __future__ import annotations

import contextlib
import json
import os
import re
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Annotated, Any, NamedTuple

import pandas as pd
import torch
from pydantic import BaseModel, BeforeValidator, Field, ValidationError
from pydantic.dataclasses import dataclass
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
from companion.training.protocols import STRICT, checked

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
    data_dir, trust
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
        kind, what, own, parts, total = parse(name)
        if kind == "checkpoint":
            return _checkpoint(checkpoint_file(what), architecture=own, default=architecture)
        if kind == "medmnist weights":
            return _medmnist_weights(name, trust=trust)
        if kind in ("imagenet", "torchvision"):
            return _imagenet(what or architecture, name=name)
        if kind == "timm":
            return _timm(what)
        if kind == "scratch":
            return scratch(architecture, seed=seed)
        if kind in BY_HAND:
            return _by_hand(name, target)
        datasets = [load_dataset(part, size=size or 28) for part in parts]
        dataset = datasets[0] if len(datasets) == 1 else pool(datasets, total=total)
        model = _trained(dataset, protocol, architecture, seed=seed, device=device, progress=progress)
        return replace(model, name=name)


# --- names --------------------------------------------------------------------------------------------------


class Parsed(NamedTuple):
    """A source's name, taken apart."""

    kind: str  # what stands before the colon, "checkpoint" or "medmnist weights"
    what: str  # the file of a checkpoint, else what follows the colon
    architecture: str = ""  # that a checkpoint's name says
    parts: tuple[str, ...] = ()  # datasets that a "train:" source is trained on
    total: int | None = None  # images that a pool of these is cut down to


def parse(name: str) -> Parsed:
    """Take a source's name apart; a path may have a colon, a plus or an at sign of its own."""
    kind, _, what = name.partition(":")
    if kind == "train":
        pooled = re.fullmatch(r"([^@]+\+[^@]+)@([1-9][0-9]*)", what)
        if Path(what).expanduser().exists():
            return Parsed(kind, what, parts=(what,))
        parts = tuple((pooled[1] if pooled else what).split("+"))
        return Parsed(kind, what, parts=parts, total=int(pooled[2]) if pooled else None)
    path, _, architecture = name.rpartition("@")
    if path.endswith(CHECKPOINT_SUFFIXES):
        return Parsed("checkpoint", path, architecture)
    if name.endswith(CHECKPOINT_SUFFIXES):
        return Parsed("checkpoint", name)
    return Parsed("medmnist weights" if name in medmnist_flags() else kind, what)


def called(source: Source) -> str:
    """Return what a source is called in tables and reports: a checkpoint by its file's name alone."""
    if isinstance(source, nn.Module):
        return type(source).__name__
    if isinstance(source, SourceModel):
        return source.name
    parsed = parse(os.fspath(source))
    return Path(parsed.what).stem if parsed.kind == "checkpoint" else os.fspath(source)


def checkpoint_file(name: str) -> Path:
    """File of a checkpoint, named by its path or by its name in the folder ``weights`` of the data directory."""
    path = Path(name).expanduser()
    kept = store.data_dir() / "weights" / name
    return kept if Path(name).name == name and not path.is_file() and kept.is_file() else path


def check_name(source: str | os.PathLike) -> None:
    """Raise `InputError`, before any work, for what cannot be a source; nothing is loaded."""
    name = os.fspath(source)
    kind, what, architecture, parts, _ = parse(name)
    for part in parts:
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
    found: dict[str, Source] = dict(sources) if isinstance(sources, Mapping) else {}
    for source in found.values():
        if isinstance(source, str | os.PathLike):
            check_name(source)
    given = [] if found else [sources] if isinstance(sources, Source) else list(sources)
    for one in given:
        table = isinstance(one, str | os.PathLike) and os.fspath(one).endswith(".csv")
        listed: list[Any] = read_sources(one) if table else [one]  # type: ignore[arg-type]
        for source in listed:
            if isinstance(source, str | os.PathLike):
                check_name(source)
            number = f" {len(found) + 1}" if isinstance(source, nn.Module) else ""
            if (name := called(source) + number) in found:
                raise InputError(
                    f"source {name!r} is named twice (a .csv of name and path tells files apart)"
                )
            found[name] = source
    if len(found) < 2:
        raise InputError(f"a ranking needs at least two sources: got {', '.join(found) or 'none'}")
    return found


def learnt_from(model: SourceModel, dataset: Dataset) -> bool:
    """Whether a source learnt from a target's images, at whatever size and in whatever pool of datasets."""
    learnt = {*model.provenance.get("lineage", ()), model.pretraining, model.provenance.get("data_hash")}
    return bool(learnt & {*dataset.lineage, dataset.content_hash})


def _three(text: str) -> list[str]:
    """One number or three, with spaces between, as three."""
    numbers = text.split()
    if len(numbers) not in (1, 3):
        raise ValueError("one number or three are needed")
    return numbers * 3 if len(numbers) == 1 else numbers


Finite = Annotated[float, Field(allow_inf_nan=False)]
Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]


@dataclass(frozen=True, config=STRICT)
class Row:
    """A row of a table of sources: what a checkpoint does not say itself."""

    name: str
    path: str
    architecture: str = ""
    pretraining: str = ""
    mean: Annotated[tuple[Finite, Finite, Finite], BeforeValidator(_three)] | None = None
    std: Annotated[tuple[Positive, Positive, Positive], BeforeValidator(_three)] | None = None
    classes: int | None = None


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
    path = Path(path)
    try:
        table = pd.read_csv(path, dtype=str, keep_default_na=False)
    except (OSError, ValueError) as error:
        raise InputError(f"{path}: not a table of sources ({error})") from error
    found = []
    for number, given in enumerate(table.to_dict("records"), start=2):
        where = f"{path}, line {number}"
        row = checked(Row, {str(key): value for key, value in given.items() if value}, where)
        if (row.mean is None) != (row.std is None):
            raise InputError(f"{where}: mean and std are needed together")
        normalisation = (row.mean, row.std) if row.mean and row.std else None
        file = path.parent / row.path
        model = _checkpoint(file, architecture=row.architecture, given=normalisation)
        outputs = 0 if model.head is None else [*model.head.parameters()][-1].shape[0]
        if row.classes not in (None, outputs):
            raise InputError(f"{where}: {file.name} has a head of {outputs} classes, not {row.classes}")
        found.append(replace(model, name=row.name, pretraining=row.pretraining or model.pretraining))
    return found


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
    if architecture.startswith("timm:"):
        raise InputError(
            f"torchvision has no ImageNet weights of {architecture}: name {architecture} as the source"
        )
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


def _medmnist_weights(flag: str, *, trust: bool) -> SourceModel:
    path, url = medmnist_file(flag), MEDMNIST_WEIGHTS.format(flag=flag)
    store.fetch_zip_member(url, MEDMNIST_MEMBER, path, trust=trust)
    origin = f"MedMNIST's released weights of {flag} (Zenodo record 7782113), {MEDMNIST_MEMBER}"
    model = from_state(
        read_state(path)[0], architecture="resnet18", name=flag, pretraining=flag, origin=origin
    )
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
    state, origin = read_state(path)[0], f"{path.name}, put there by hand"
    return from_state(state, architecture="resnet18", name=name, pretraining=path.stem, origin=origin)


def by_hand_file(name: str, target: str | None) -> Path:
    """File of weights that are fetched by hand: the one that is there, else where it belongs."""
    stem = f"medmnist_without_{target}" if name == "medmnist" else name
    files = [store.data_dir() / "weights" / f"{stem}{suffix}" for suffix in CHECKPOINT_SUFFIXES]
    return next((path for path in files if path.is_file()), files[0])


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
    pretraining, origin = record.pretraining or path.stem, f"checkpoint {path.name}"
    model = from_state(
        state, architecture=chosen or default, name=path.stem, pretraining=pretraining, origin=origin
    )
    if given or record.normalisation:
        who = "as the table of sources says" if given else "as the file says"
        model.normalisation = given or record.normalisation or PLAIN_NORMALISATION
    else:
        who, words = "assumed", "mean .5, sd .5; torchvision's and timm's own networks mostly have ImageNet's"
        if model.head is not None and len(next(model.head.parameters())) in (1000, 1001, 21841):
            model.normalisation = IMAGENET_NORMALISATION
            words = "ImageNet's, as its head has ImageNet's classes"
        remarks.append(
            f"normalisation assumed ({words}), since the file does not say: other values give other scores; a table of "
            "sources gives them (mean, std)"
        )
    model.provenance |= record.provenance | {"remarks": remarks, "normalisation_from": who}
    return model


def packed(model: SourceModel) -> bytes:
    """Model as the bytes of a safetensors file, with its provenance in the file's metadata."""
    import safetensors.torch

    tensors = model.backbone.state_dict()
    if model.head is not None:
        tensors |= {f"companion_head.{key}": value for key, value in model.head.state_dict().items()}
    record = {name: getattr(model, name) for name in Record.model_fields}
    contiguous = {key: value.contiguous() for key, value in tensors.items()}
    return safetensors.torch.save(contiguous, metadata={"companion": json.dumps(record)})


def save(model: SourceModel, path: str | os.PathLike) -> Path:
    """Write a model as safetensors, atomically; see `packed`."""
    return store.write_files(Path(path).parent, {Path(path).name: packed(model)})[0]


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
    key = store.digest([dataset.content_hash, asdict(protocol), architecture, seed, store.RESULTS_VERSION])
    label = dataset.name.replace(":", "_").replace("/", "_")
    return store.cache_dir() / "sources" / f"{label}-{protocol.name}-{key}.safetensors"
