"""The parameters of every notebook: one typed model each, for the check cell and the command line alike."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from companion.errors import InputError, did_you_mean
from companion.parameters import Names, Number, PerClass, Protocol, Repeats, Seed, Size, Verified, checked


class NotebookParameters(BaseModel):
    """What every notebook takes."""

    model_config = ConfigDict(extra="forbid", validate_default=True)

    target: str = Field(
        "breastmnist", min_length=1, description="target dataset: MedMNIST flag, path or procedural:NAME"
    )
    size: Size = 28
    seed: Seed = 24

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

    per_class: PerClass = 100


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
    folds: Number = Field(3, ge=1, le=5, description="folds that are compared, from the first: 1 to 5")
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
        ["resnet18", "mobilenet_v2", "mobilenet_v3_small", "shufflenet_v2_x0_5"],
        description="architectures to compare, by torchvision's names",
    )
    weights: Literal["local", "pretrained"] = Field(
        "local", description="pretrained: ImageNet weights, downloaded; local: trained here on natural images"
    )
    natural: str = Field(
        "cifar10_32", min_length=1, description="natural images that local weights are trained on"
    )
    per_class: PerClass = 100

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
    repeats: Repeats = 10
    verify: Verified = 0
    out: str = Field(
        "", description="folder for the table, the figure and the page; empty: nothing is written"
    )
    images: bool = Field(True, description="with a few of your images, in the notebook and in the page")


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
    return checked(NOTEBOOKS[name], given, name)
