"""Seeded synthetic features with planted classes, and any score of them, for tests and benchmarks of the scores."""

import warnings

import numpy as np

# The same whatever the scale of the features.
SCALE_FREE = ("lda", "parc", "hscore", "gbc", "knn", "linear_probe")


def make(
    n: int,
    d: int,
    classes: int,
    *,
    separation: float = 0.3,
    seed: int = 0,
    decay: float = 1.0,
    relu: bool = True,
    unbalanced: bool = False,
    source_classes: int = 10,
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Features (float32), labels and logits (float32).

    Points are Gaussian around class means that lie `separation` standard deviations out in every direction.
    The variances of the directions fall off as rank^-decay; with `relu` the features are non-negative, as
    those of a network's last pooling are.
    """
    generator = np.random.default_rng(seed)
    weights = 0.6 ** np.arange(classes) if unbalanced else np.ones(classes)
    labels = generator.choice(classes, size=n, p=weights / weights.sum())
    labels[: 2 * classes] = np.tile(np.arange(classes), 2)
    means = separation * generator.standard_normal((classes, d))
    spread = (1.0 + np.arange(d)) ** (-decay / 2.0)
    mixing = generator.standard_normal((d, d)) / np.sqrt(d)
    features = ((means[labels] + generator.standard_normal((n, d))) * spread) @ mixing
    if relu:
        features = np.maximum(features + 0.1, 0.0)
    logits = (
        generator.standard_normal((n, source_classes))
        + 2.0 * separation * np.eye(source_classes)[labels % source_classes]
    )
    return features.astype(np.float32), labels, logits.astype(np.float32)


def evaluate(name, features, labels, logits, **options):
    """One score of the arrays that it takes; `variant` only where it has variants."""
    from companion import scores

    info = scores.REGISTRY[name]
    if not info.variants:
        options.pop("variant", None)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", scores.ScoreWarning)
        return info.function(logits if "logits" in info.inputs else features, labels, **options)
