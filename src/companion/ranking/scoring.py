"""One source on one target: every score from one pass over the images."""

from __future__ import annotations

from collections.abc import Sequence

from torch import nn

from companion.datasets import Dataset, Fold, load_dataset
from companion.models import SourceModel, from_module
from companion.scores import Scores
from companion.scores.from_images import score_images
from companion.scores.registry import check_scores
from companion.sources import load_source
from companion.training import SEED

# The paper's, and the gradient ratio in the form that does not depend on how a network is written.
DEFAULT_SCORES = (
    "nca",
    "gradient_ratio",
    "gradient_ratio_scale_invariant",
    "linear_probe",
    "knn",
    "logme",
    "parc",
    "sfda",
    "ncti",
    "leep",
    "nleep",
)


def score(
    model: SourceModel | str | nn.Module,
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
        As `load_source` and `load_dataset` return them, or names for these; the model may be a network, too.
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
    model = from_module(model) if isinstance(model, nn.Module) else model
    if fold is None:
        images, labels = dataset.draw(per_class, seed=seed)
    else:
        images, labels = dataset.images["train"][fold.train], dataset.labels["train"][fold.train]
    found = score_images(model, images, labels, scores=scores, variant=variant, seed=seed, device=device)
    found.provenance["data"] = {dataset.name: dataset.content_hash}
    return found
