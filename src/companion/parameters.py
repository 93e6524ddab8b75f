"""What can be set in a notebook or a command: each parameter's type, range and help once, for both.

The notebooks' models (`companion.notebooks.parameters`) and the commands' below are made of the same types, and
mistakes are told in the same words, whether they come from a cell, from papermill or from the command line.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, ValidationError

from companion.errors import InputError, brief, did_you_mean

Model = TypeVar("Model", bound=BaseModel)


def _as_list(value: Any) -> Any:
    """Accept ``a,b`` and a tuple for a list, since the command line can only give text."""
    if isinstance(value, str):
        return [part.strip() for part in value.split(",") if part.strip()]
    return list(value) if isinstance(value, tuple) else value


def _no_bool(value: Any) -> Any:
    """Refuse True and False where a number is wanted; pydantic would take them for 1 and 0."""
    if isinstance(value, bool):
        raise ValueError("a number is wanted, not True or False")
    return value


def _offered(size: int | None) -> int | None:
    from companion.datasets import SIZES

    if size is not None and size not in SIZES:
        raise ValueError(f"size {size} is not offered: choose one of {', '.join(map(str, SIZES))}")
    return size


def _none_or_at_least(least: int) -> Any:
    """Zero for "not at all", or enough of it to say something."""

    def checked(value: int) -> int:
        if value != 0 and value < least:
            raise ValueError(f"0 for none, or at least {least}")
        return value

    return AfterValidator(checked)


Number = Annotated[int, BeforeValidator(_no_bool)]
Names = Annotated[list[str], BeforeValidator(_as_list), Field(min_length=2)]
Size = Annotated[
    Number, AfterValidator(_offered), Field(description="image side in pixels: 28, 64, 128 or 224")
]
SizeIfAny = Annotated[
    int | None,
    BeforeValidator(_no_bool),
    AfterValidator(_offered),
    Field(description="image side in pixels: 28, 64, 128 or 224"),
]
Seed = Annotated[
    Number, Field(ge=0, lt=2**32, description="seed of draws, random weights and training, 0 or more")
]
PerClass = Annotated[
    Number,
    Field(ge=3, le=10_000, description="images scored: this many times the number of classes, 3 or more"),
]
Repeats = Annotated[
    Number,
    _none_or_at_least(5),
    Field(
        description="rank so many times on random halves of the images, to see how stable the order is, 5 or more; "
        "0: not at all"
    ),
]
Verified = Annotated[
    Number,
    _none_or_at_least(2),
    Field(description="fine-tune the first so many sources to see whether the ranking was right; 0: none"),
]
Protocol = Literal["quick", "standard", "paper"]


# --- commands ----------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Flags:
    """How a parameter is written on the command line, where it is not ``--its-name``; without flags by its place."""

    names: tuple[str, ...] = ()


PLACE = Flags()
DataDir = Annotated[Path | None, Field(description="where datasets are looked up and downloaded to")]
Json = Annotated[
    bool, Flags(("--json",)), Field(description="print one JSON document on stdout and nothing else")
]
Device = Annotated[str, Field(description="device: auto, cpu, cuda, cuda:N or mps")]
Trust = Annotated[
    bool, Flags(("--trust",)), Field(description="accept downloads without a published checksum")
]
Force = Annotated[bool, Flags(("--force",)), Field(description="overwrite what an earlier run wrote there")]


class CommandParameters(BaseModel):
    """What every command's model is made of; fields stand in the order of the help."""

    model_config = ConfigDict(extra="forbid", validate_default=True)


class Inspect(CommandParameters):
    """Of ``companion inspect``."""

    target: Annotated[str, PLACE] = Field(description="as for rank")
    out: Path | None = Field(None, description="folder for the facts and example images")
    images: Annotated[bool, Flags(("--images/--no-images",))] = Field(
        True, description="with pictures, and names of files and patients"
    )
    size: SizeIfAny = None
    seed: Annotated[Number, Field(ge=0, lt=2**32)] = Field(
        0, description="seed of the splits, where none are given, 0 or more"
    )
    force: Force = False
    data_dir: DataDir = None
    as_json: Json = False


class Rank(CommandParameters):
    """Of ``companion rank``."""

    target: Annotated[str, PLACE] = Field(
        description="MedMNIST flag, .npz file, folder of class folders, .csv or .tsv of path and label, procedural:NAME"
    )
    source: Annotated[list[str], Flags(("--source", "-s"))] = Field(
        [], description="source model; give it once for each; without: those that can be had here"
    )
    size: SizeIfAny = None
    seed: Seed = 24
    per_class: PerClass = 100
    repeats: Repeats = 0
    verify: Verified = 0
    variant: Literal["corrected", "published"] = Field(
        "corrected", description="variant of the scores: corrected or published"
    )
    device: Device = "auto"
    architecture: str = Field(
        "resnet18",
        description="architecture of imagenet, scratch, train: and checkpoints that do not say theirs",
    )
    trust: Trust = False
    out: Path | None = Field(None, description="folder for the table, the figure and the report")
    images: Annotated[bool, Flags(("--images/--no-images",))] = Field(
        True, description="with example pictures of TARGET in the report"
    )
    force: Force = False
    data_dir: DataDir = None
    as_json: Json = False


class Notebook(CommandParameters):
    """Of ``companion notebook``."""

    name: Annotated[str, PLACE] = Field("", description="notebook, by name or number")
    parameter: Annotated[list[str], Flags(("-p", "--parameter"))] = Field(
        [], description="a parameter: -p name value (or name=value)"
    )
    out: Path | None = Field(None, description="file for the executed notebook")
    listing: Annotated[bool, Flags(("--list",))] = Field(
        False, description="list notebooks and their parameters; NAME --help: those of one"
    )
    force: Force = False
    data_dir: DataDir = None


class Replicate(CommandParameters):
    """Of ``companion replicate``."""

    protocol: Annotated[str, PLACE] = Field(description="protocol: paper, standard, quick, or a YAML file")
    out: Path | None = Field(None, description="folder of the results; by default one in the cache directory")
    workers: Number = Field(1, ge=1, description="processes on this machine, 1 or more")
    scheduler: str | None = Field(None, description="address of a Dask scheduler, such as tcp://host:8786")
    device: Device = "auto"
    dry_run: Annotated[bool, Flags(("--dry-run",))] = Field(
        False, description="say what it will cost, and stop"
    )
    data_dir: DataDir = None
    as_json: Json = False


class Book(CommandParameters):
    """Of ``companion book``."""

    data: Literal["auto", "real", "procedural"] = Field(
        "auto", description="images: auto, real or procedural (synthetic)"
    )
    committed: Annotated[bool, Flags(("--committed",))] = Field(
        False, description="build from the executed notebooks as committed"
    )
    protocol: Protocol | None = Field(
        None, description="protocol of the notebooks that train: quick, standard or paper"
    )
    data_dir: DataDir = None


class Fetch(CommandParameters):
    """Of ``companion fetch``."""

    names: Annotated[list[str], PLACE] = Field(
        description="MedMNIST flags, cifar10_32, runs (the authors' fine-tunings), or source models such as imagenet"
    )
    to: Annotated[Path | None, Flags(("--to",))] = Field(None, description="data directory to fetch into")
    size: Size = 28
    trust: Trust = False


class Doctor(CommandParameters):
    """Of ``companion doctor``."""

    as_json: Json = False


def flag(model: type[BaseModel], name: str) -> str:
    """How the parameter `name` of a command is written."""
    flags = flags_of(model, name)
    if flags is PLACE:
        return name.upper()
    return flags.names[0].partition("/")[0] if flags else f"--{name.replace('_', '-')}"


def flags_of(model: type[BaseModel], name: str) -> Flags | None:
    """`Flags` of a parameter, `PLACE` of one given by its place, None of one written as its name."""
    return next((item for item in model.model_fields[name].metadata if isinstance(item, Flags)), None)


# --- checking ----------------------------------------------------------------------------------------------


def checked(model: type[Model], given: Mapping[str, Any], where: str = "") -> Model:
    """Make a model of what was given; what was left out has its default.

    Parameters
    ----------
    model
        Of a command, or of a notebook.
    given
        Parameter -> value.
    where
        What begins the message, for example the notebook's name.

    Raises
    ------
    InputError
        Naming every parameter that is unknown, of the wrong type or out of range.
    """
    try:
        return model(**given)
    except ValidationError as error:
        told = "; ".join(_told(model, item) for item in error.errors())
        raise InputError(f"{where}: {told}" if where else told) from None


def _told(model: type[BaseModel], item: Mapping[str, Any]) -> str:
    name = str(item["loc"][0]) if item["loc"] else "?"
    if item["type"] == "extra_forbidden":
        known = list(model.model_fields)
        return f"unknown parameter {name!r} (there are {', '.join(known)}).{did_you_mean(name, known)}"
    message = item["msg"].removeprefix("Value error, ")
    message = f"{message[0].lower()}{message[1:]}"
    if issubclass(model, CommandParameters):
        return f"{flag(model, name)} is {brief(item['input'])}: {message}"
    return f"parameter {name!r} is {brief(item['input'])}: {message}"
