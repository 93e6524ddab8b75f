"""One source on one target: every score from one pass over the images."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from companion import store
from companion.datasets import Dataset, load_dataset
from companion.models import Normalisation, SourceModel, best_device, extended
from companion.scores import NCTITerms, Scores
from companion.scores.from_images import score_images
from companion.scores.registry import check_scores
from companion.sources import Source, load_source
from companion.training import SEED

# The paper's, and the gradient ratio in the form that does not depend on how a network is written.
DEFAULT_SCORES = (
    *("nca", "gradient_ratio", "gradient_ratio_scale_invariant", "linear_probe", "knn"),
    *("logme", "parc", "sfda", "ncti", "leep", "nleep"),
)


def score(
    model: Source,
    dataset: Dataset | str,
    *,
    scores: Sequence[str] = DEFAULT_SCORES,
    variant: str = "corrected",
    per_class: int = 100,
    seed: int = SEED,
    device: str | None = None,
) -> Scores:
    """Score one source for one target, everything from one pass over the images.

    Parameters
    ----------
    model, dataset
        As for `load_source`, and as `load_dataset` returns it or its name.
    scores
        Names from `companion.scores.REGISTRY`.
    variant
        ``"corrected"`` or ``"published"``, for the scores that have both.
    per_class
        At most this many times the number of classes training images are scored, drawn with `seed`.
    device
        Where the network runs; the fastest there is by default.

    Returns
    -------
    Scores
        Mapping from score to value; NaN where one is not applicable, with the reason in ``reasons``.

    Raises
    ------
    InputError
        If a score is unknown, or the dataset cannot be scored (several labels an image, too few images).
    """
    check_scores(scores)
    dataset = load_dataset(dataset) if isinstance(dataset, str) else dataset
    images, labels = dataset.draw(per_class, seed=seed)
    device = str(best_device(device))
    model = load_source(model, target=dataset.name, seed=seed, device=device)
    found = score_images(model, images, labels, scores=scores, variant=variant, seed=seed, device=device)
    record = store.provenance(
        seed=seed,
        device=device,
        images=len(labels),
        variant=variant,
        source=model.name,
        source_provenance=model.provenance,
        normalisation=model.normalisation,
        data={dataset.name: dataset.content_hash},
    )
    return replace(found, provenance=record)


@dataclass(frozen=True)
class Scored:
    """A source's scores on a target, and what stays known of the source once its network is let go."""

    name: str
    architecture: str
    pretraining: str
    normalisation: Normalisation
    batch_norm: bool  # whether the network has any
    provenance: dict[str, Any]  # of the source
    scores: dict[str, float]
    ncti_terms: NCTITerms | None
    remarks: Sequence[str]  # what to know of the scores
    seconds: dict[str, float]  # of "scoring" and, of these, in the "network"


def score_source(model: SourceModel, images: np.ndarray, labels: np.ndarray, **scoring: Any) -> Scored:
    """Score a source with the options of `score_images`, and keep all but its network and features."""
    began = time.perf_counter()
    found = score_images(model, images, labels, **scoring)
    spent = {"scoring": time.perf_counter() - began, "network": found.seconds}
    remarks = [*found.reasons.values(), *model.provenance.get("remarks", ())]
    if extended(model):
        new = "an extension to networks without two convolutions, which nobody has validated"
        remarks.append(f"gradient ratio of {model.first_conv} and {model.second_conv}: {new}")
    kept = ("name", "architecture", "pretraining", "normalisation", "batch_norm", "provenance")
    known = {name: getattr(model, name) for name in kept}
    return Scored(**known, scores=dict(found), ncti_terms=found.ncti_terms, remarks=remarks, seconds=spent)
