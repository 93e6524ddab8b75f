"""What all figures share: colours, names, and a figure that pyplot does not know of.

Colours are Okabe and Ito's, which colour-blind readers can tell apart. Figures have a white ground, so that they read
the same on a light and on a dark page.
"""

from __future__ import annotations

import io
from typing import Any

import matplotlib as mpl
from matplotlib.figure import Figure

from companion.published import METRICS
from companion.scores import REGISTRY

BLUE, ORANGE, GREEN, PURPLE, GREY = "#0072B2", "#E69F00", "#009E73", "#CC79A7", "#7f7f7f"
INK = "#6b6b6b"
PROPOSED = "#B84A00"  # the proposed score, in every figure; nothing else has it
CYCLE = (BLUE, ORANGE, GREEN, PURPLE, "#D55E00", "#56B4E9", INK, "#8C6D00")

TITLES = {name: REGISTRY[name].title for name in METRICS} | {
    "proposed": "proposed (NCA × gradients)",
    "nca": "NCA alone",
    "gradient_ratio": "gradients alone",
    "training_set_size": "training images",
    "imagenet_then_size": "ImageNet, then size",
    "mean_rank_elsewhere": "rank on other targets",
}

_STYLE: Any = {
    "font.size": 10,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "figure.facecolor": "white",
    "axes.facecolor": "white",
    "savefig.facecolor": "white",
    "figure.dpi": 130,
}


def figure_of(
    width: float, height: float, rows: int = 1, columns: int = 1, **options: Any
) -> tuple[Figure, Any]:
    """Return a figure that pyplot does not know of, so that a notebook shows it once and memory is given back."""
    with mpl.rc_context(_STYLE):
        figure = Figure(figsize=(width, height), layout="constrained")
        axes = figure.subplots(rows, columns, **options)
    return figure, axes


def png(figure: Figure, *, dpi: int) -> bytes:
    """Return a figure as a PNG file's bytes."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=dpi)
    return buffer.getvalue()


def literal(name: str) -> str:
    """Name of a user's for a figure: a dollar sign is one, and begins no mathematics."""
    return name.replace("$", r"\$")


def short(name: str) -> str:
    """Dataset name without MedMNIST's ending, a source without prefix or architecture, a path without its folders."""
    name = name.replace("\\", "/").rsplit("/", 1)[-1]
    name = name.removeprefix("train:").removeprefix("procedural:").removesuffix("_mobilenet_v2")
    return name.removesuffix("mnist") if name not in ("medmnist", "mnist") else name


def mark_synthetic(figure: Figure, synthetic: bool | str) -> None:
    """Write across the top that images behind the figure are synthetic; a text says which."""
    if synthetic:
        text = synthetic if isinstance(synthetic, str) else "synthetic images"
        figure.suptitle(text.upper(), color="#B34700", fontsize=9, fontweight="bold")


def title_of(name: str) -> str:
    """Name of a score for people, short; a name that is none of the paper's scores is left as it is."""
    return TITLES.get(name, name).split(" (NCA")[0]
