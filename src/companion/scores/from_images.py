"""Every score of one source on images of a target, from one pass through its network."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from companion.errors import InputError
from companion.models import SourceModel
from companion.scores import Scores, suite
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
    passed = single_pass(model, images, labels, device=device)
    arrays = (passed.features, labels, passed.logits)
    try:
        return suite(*arrays, names=scores, variant=variant, random_state=seed, passed=passed)
    except ValueError as error:
        raise InputError(f"{model.name}: {error}") from error
