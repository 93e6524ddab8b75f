"""One source on one target: every score from one pass over the images."""

from __future__ import annotations

import time
from collections.abc import Sequence

import numpy as np
import torch

from companion import scores as transferability
from companion import store
from companion.datasets import Dataset, Fold, load_dataset
from companion.errors import InputError, did_you_mean
from companion.models import SourceModel, best_device
from companion.scores import Scores
from companion.scores.forward_pass import single_pass
from companion.sources import load_source
from companion.training import SEED

# The paper's, and the gradient ratio in the form that does not depend on how a network is written.
DEFAULT_SCORES = (
    "nca",
    "gradient_ratio",
    "gradient_ratio_scale_invariant",
    "logme",
    "parc",
    "sfda",
    "ncti",
    "leep",
    "nleep",
)


def score(
    model: SourceModel | str,
    dataset: Dataset | str,
    *,
    scores: Sequence[str] = DEFAULT_SCORES,
    variant: str = "corrected",
    per_class: int = 100,
    seed: int = SEED,
    device: str | None = None,
    fold: Fold | None = None,
) -> Scores:
    """Score one source for one target, everything from one pass over the images.

    Parameters
    ----------
    model, dataset
        As `load_source` and `load_dataset` return them, or names for these.
    scores
        Names from `companion.scores.REGISTRY`.
    variant
        ``"corrected"`` or ``"published"``, for the scores that have both.
    per_class
        At most this many times the number of classes training images are scored, drawn with `seed`.
    device
        Where the network runs; the fastest there is by default.
    fold
        Score the training images of this fold, in its order, as the paper does; `per_class` is then without effect.

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
    model = load_source(model, seed=seed) if isinstance(model, str) else model
    if fold is None:
        images, labels = dataset.draw(per_class, seed=seed)
    else:
        images, labels = dataset.images["train"][fold.train], dataset.labels["train"][fold.train]
    found = score_images(model, images, labels, scores=scores, variant=variant, seed=seed, device=device)
    found.provenance["data"] = {dataset.name: dataset.content_hash}
    return found


def check_scores(scores: Sequence[str]) -> None:
    """Refuse an unknown score.

    Raises
    ------
    InputError
        Naming the first one.
    """
    unknown = [name for name in scores if name not in transferability.REGISTRY]
    if unknown:
        raise InputError(f"no score {unknown[0]!r}.{did_you_mean(unknown[0], transferability.REGISTRY)}")


def score_images(
    model: SourceModel,
    images: np.ndarray,
    labels: np.ndarray,
    *,
    scores: Sequence[str],
    variant: str,
    seed: int,
    device: str | None,
) -> Scores:
    """Score a source on images (n, height, width[, 3]) uint8 and labels (n,); see `score`."""
    chosen = best_device(device)
    began = time.perf_counter()
    passed = single_pass(model, images, labels, device=chosen)
    seconds = time.perf_counter() - began
    values: dict[str, float] = {}
    reasons: dict[str, str] = {}
    terms = None
    of_images = [name for name in scores if "images" in transferability.REGISTRY[name].inputs]
    of_arrays = [name for name in scores if name not in of_images]
    if of_arrays:
        try:
            result = transferability.suite(
                passed.features, labels, passed.logits, names=of_arrays, variant=variant, random_state=seed
            )
        except ValueError as error:
            raise InputError(f"{model.name}: {error}") from error
        values, reasons, terms = dict(result), dict(result.reasons), result.ncti_terms
    for name in of_images:
        try:
            if model.first_conv is None:
                raise ValueError(f"{model.architecture} has no two convolutions")
            values[name] = passed.ratio("scale_invariant" if name.endswith("scale_invariant") else variant)
        except ValueError as error:
            values[name], reasons[name] = float("nan"), str(error)
    for name in scores:
        if name not in values and not transferability.REGISTRY[name].pooled:
            values[name] = float("nan")
            reasons.setdefault(name, "not applicable")
    record = store.provenance(
        seed=seed,
        device=str(chosen),
        images=len(labels),
        variant=variant,
        source=model.name,
        source_provenance=model.provenance,
        normalisation=model.normalisation,
        batch_norm=any(isinstance(part, torch.nn.BatchNorm2d) for part in model.backbone.modules()),
        seconds_in_the_network=seconds,
    )
    ordered = {name: values[name] for name in scores if name in values}
    return Scores(ordered, reasons, terms, passed.features, labels, record)
