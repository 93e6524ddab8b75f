"""Every score of one source on images of a target, from one pass through its network."""

from __future__ import annotations

import time
from collections.abc import Sequence

import numpy as np
import torch

from companion import store
from companion.errors import InputError
from companion.models import SourceModel, best_device
from companion.scores import REGISTRY, Scores, suite
from companion.scores.forward_pass import single_pass


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
    """Score a source on images (n, height, width[, 3]) uint8 and labels (n,); see `companion.score`."""
    chosen = best_device(device)
    began = time.perf_counter()
    passed = single_pass(model, images, labels, device=chosen)
    seconds = time.perf_counter() - began
    values: dict[str, float] = {}
    reasons: dict[str, str] = {}
    terms = None
    of_images = [name for name in scores if "images" in REGISTRY[name].inputs]
    of_arrays = [name for name in scores if name not in of_images]
    if of_arrays:
        try:
            result = suite(
                passed.features, labels, passed.logits, names=of_arrays, variant=variant, random_state=seed
            )
        except ValueError as error:
            raise InputError(f"{model.name}: {error}") from error
        values, reasons, terms = dict(result), dict(result.reasons), result.ncti_terms
    for name in of_images:
        try:
            values[name] = passed.ratio("scale_invariant" if name.endswith("scale_invariant") else variant)
        except ValueError as error:
            values[name], reasons[name] = float("nan"), str(error)
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
