"""The parameters of every notebook: one typed model each, for the check cell and the command line alike."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, ValidationError

from companion.datasets import SIZES
from companion.errors import InputError, did_you_mean


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


def _offered(size: int) -> int:
    if size not in SIZES:
        raise ValueError(f"choose one of {', '.join(map(str, SIZES))}")
    return size


Names = Annotated[list[str], BeforeValidator(_as_list), Field(min_length=2)]
Count = Annotated[int, BeforeValidator(_no_bool)]
Size = Annotated[
    int,
    BeforeValidator(_no_bool),
    AfterValidator(_offered),
    Field(description="image side in pixels: 28, 64, 128 or 224"),
]


def _none_or_at_least(least: int) -> Any:
    """Zero for "not at all", or enough of it to say something."""

    def checked(value: int) -> int:
        if value != 0 and value < least:
            raise ValueError(f"0 for none, or at least {least}")
        return value

    return AfterValidator(checked)


Repeats = Annotated[int, BeforeValidator(_no_bool), _none_or_at_least(5)]
Verified = Annotated[int, BeforeValidator(_no_bool), _none_or_at_least(2)]
Protocol = Literal["quick", "standard", "paper"]


class NotebookParameters(BaseModel):
    """What every notebook takes."""

    model_config = ConfigDict(extra="forbid", validate_default=True)

    target: str = Field(
        "breastmnist", min_length=1, description="target dataset: MedMNIST flag, path or procedural:NAME"
    )
    size: Size = 28
    seed: Count = Field(24, ge=0, lt=2**32, description="seed of draws, random weights and training")

    def source_names(self) -> list[str]:
        """Sources that are named, to be checked before any work."""
        return []

    def dataset_names(self) -> list[str]:
        """Datasets that are named, to be checked before any work."""
        return [self.target]


class WithSources(NotebookParameters):
    """Notebooks that compare source models."""

    sources: Names = Field(
        [
            "scratch",
            "train:pneumoniamnist",
            "train:retinamnist",
            "train:procedural:textures",
            "train:procedural:cells",
        ],
        description="source models to compare",
    )

    def source_names(self) -> list[str]:
        """Sources that are named."""
        return self.sources


class Scored(WithSources):
    """Notebooks that score images."""

    per_class: Count = Field(
        100, ge=3, le=10_000, description="images scored: this many times the number of classes"
    )


class SourceTraining(WithSources):
    """01_source_training."""

    target: str = Field("breastmnist", min_length=1, description="target dataset: it is left out of the pool")
    sources: Names = Field(
        ["train:pneumoniamnist", "train:retinamnist"],
        description="sources to train; leave-target-out pools the datasets of all",
    )
    protocol: Protocol = Field("quick", description="source protocol: quick, standard or paper")


class FineTuning(WithSources):
    """02_fine_tuning."""

    target: str = Field("breastmnist", min_length=1, description="target dataset that is fine-tuned on")
    sources: Names = Field(
        ["scratch", "train:pneumoniamnist", "train:retinamnist", "train:procedural:textures"],
        description="source models that are fine-tuned",
    )
    protocol: Protocol = Field("quick", description="fine-tuning protocol: quick, standard or paper")


class NcaVsLda(NotebookParameters):
    """03_nca_vs_lda."""

    target: str = Field("pneumoniamnist", min_length=1, description="target dataset that is fine-tuned on")
    source: str = Field(
        "train:retinamnist", min_length=1, description="source model whose features are shown"
    )
    folds: Count = Field(3, ge=1, le=5, description="folds that are compared, from the first: 1 to 5")
    protocol: Protocol = Field("quick", description="fine-tuning protocol: quick, standard or paper")

    def source_names(self) -> list[str]:
        """The one source."""
        return [self.source]


class GradientRatio(Scored):
    """04_gradient_ratio."""


class RankingSources(Scored):
    """05_ranking_sources."""

    target: str = Field("retinamnist", min_length=1, description="target dataset of the live ranking")
    sources: Names = Field(
        [
            "scratch",
            "train:breastmnist",
            "train:pneumoniamnist",
            "train:procedural:textures",
            "train:procedural:cells",
        ],
        description="source models of the live ranking",
    )


class CrossDomain(NotebookParameters):
    """06_cross_domain."""

    architectures: Names = Field(
        ["resnet18", "mobilenet_v2", "mobilenet_v3_small", "shufflenet_v2_x0_5", "googlenet"],
        description="architectures to compare, by torchvision's names",
    )
    weights: Literal["local", "pretrained"] = Field(
        "local", description="pretrained: ImageNet weights, downloaded; local: trained here on natural images"
    )
    natural: str = Field(
        "cifar10_32", min_length=1, description="natural images that local weights are trained on"
    )
    per_class: Count = Field(
        100, ge=3, le=10_000, description="images scored: this many times the number of classes"
    )

    def source_names(self) -> list[str]:
        """Every architecture with its weights."""
        return [f"torchvision:{name}" for name in self.architectures]

    def dataset_names(self) -> list[str]:
        """The target, and the natural images where they are used."""
        return [self.target, *([self.natural] if self.weights == "local" else [])]


class NewTarget(Scored):
    """07_new_target."""

    target: str = Field(
        "pneumoniamnist",
        min_length=1,
        description="your data: folder of class folders, .csv, .tsv or .npz; or a MedMNIST flag",
    )
    sources: Names = Field(
        [
            "scratch",
            "train:breastmnist",
            "train:retinamnist",
            "train:procedural:textures",
            "train:procedural:cells",
        ],
        description="candidate source models",
    )
    repeats: Repeats = Field(
        10, description="rank so many times on parts of the images, 5 or more; 0: not at all"
    )
    verify: Verified = Field(
        0, description="fine-tune the first so many sources to see whether the ranking was right; 0: none"
    )


NOTEBOOKS: dict[str, type[NotebookParameters]] = {
    "01_source_training": SourceTraining,
    "02_fine_tuning": FineTuning,
    "03_nca_vs_lda": NcaVsLda,
    "04_gradient_ratio": GradientRatio,
    "05_ranking_sources": RankingSources,
    "06_cross_domain": CrossDomain,
    "07_new_target": NewTarget,
}

# What is run where MedMNIST cannot be had; the pages say that their images are synthetic.
_SYNTHETIC_TARGET = "procedural:lesions"
_SYNTHETIC_SOURCES = ["train:procedural:textures", "train:procedural:cells", "train:procedural:fibres"]


def procedural(name: str) -> dict[str, Any]:
    """Parameters that run a notebook on synthetic images."""
    given: dict[str, Any] = {"target": _SYNTHETIC_TARGET}
    fields = NOTEBOOKS[name].model_fields
    if "sources" in fields:
        random = [] if name == "01_source_training" else ["scratch"]
        given["sources"] = [*random, *_SYNTHETIC_SOURCES]
    if "source" in fields:
        given["source"] = _SYNTHETIC_SOURCES[0]
    if "natural" in fields:
        given["natural"] = _SYNTHETIC_SOURCES[0].removeprefix("train:")
    return given


def resolve(name: str) -> str:
    """Full name of a notebook given by name, number or file name.

    Raises
    ------
    InputError
        If there is none of that name.
    """
    wanted = name.rsplit("/", 1)[-1].removesuffix(".ipynb").removesuffix(".py")
    found = [known for known in NOTEBOOKS if wanted.zfill(2) in (known, known[:2], known[3:])]
    if found:
        return found[0]
    raise InputError(
        f"no notebook {name!r}: there are {', '.join(NOTEBOOKS)}.{did_you_mean(wanted, NOTEBOOKS)}"
    )


def parse(name: str, given: Mapping[str, Any]) -> NotebookParameters:
    """Validate parameters given for a notebook; those left out have their defaults.

    Raises
    ------
    InputError
        Naming every parameter that is unknown, of the wrong type or out of range.
    """
    name = resolve(name)
    model = NOTEBOOKS[name]
    try:
        return model(**given)
    except ValidationError as error:
        raise InputError(f"{name}: " + "; ".join(_explain(model, item) for item in error.errors())) from None


def _explain(model: type[NotebookParameters], item: Mapping[str, Any]) -> str:
    parameter = str(item["loc"][0]) if item["loc"] else "?"
    if item["type"] == "extra_forbidden":
        known = list(model.model_fields)
        return (
            f"unknown parameter {parameter!r} (there are {', '.join(known)}).{did_you_mean(parameter, known)}"
        )
    return f"parameter {parameter!r} is {item['input']!r}: {item['msg'][0].lower()}{item['msg'][1:]}"
