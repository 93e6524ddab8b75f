"""A whole ranking against the released procedure, and against the passes and scores that it cannot do without."""

from __future__ import annotations

import copy
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from single_pass import as_released, realistic_resnet18

import companion
from companion import scores
from companion.datasets import Dataset
from companion.scores.forward_pass import single_pass
from scores import slow

CLASSES = 5
SEVEN = ("nca", "gradient_ratio", "logme", "parc", "sfda", "ncti", "leep", "nleep")


def target(n: int, size: int) -> Dataset:
    """A made-up target of five classes, all of it to train on."""
    rng = np.random.default_rng(0)
    labels = np.arange(n) % CLASSES
    images = rng.integers(0, 200, (n, size, size, 3)) + 10 * labels[:, None, None, None]
    classes = tuple(f"class {number}" for number in range(CLASSES))
    return Dataset(
        "bench", {"train": images.astype(np.uint8)}, {"train": labels}, classes, "multi-class", "made up"
    )


def released(model: Any, images: np.ndarray, labels: np.ndarray) -> None:
    """Two passes, then one score after the other, each as its authors wrote it."""
    features, _ = as_released(copy.deepcopy(model.backbone), images, labels)
    with torch.no_grad():
        logits = model.head(torch.from_numpy(features)).numpy()
    for score in (slow.nca, slow.logme, slow.parc, slow.sfda, slow.ncti_terms, slow.nleep):
        score(features, labels)
    slow.leep(logits, labels)


def bare(model: Any, images: np.ndarray, labels: np.ndarray) -> None:
    """One pass and the scores of its arrays, nothing around them."""
    done = single_pass(model, images, labels, device="cpu")
    names = [name for name in SEVEN if name != "gradient_ratio"]
    scores.suite(done.features, labels, done.logits, names=names)


def bench_pipeline(size: int, n: int, *, sources: int = 5, repeats: int = 3) -> tuple[dict, dict]:
    """Time of the released procedure over that of `companion.rank`, and of that over the bare work."""
    models = [realistic_resnet18(seed) for seed in range(sources)]
    for seed, model in enumerate(models):
        model.name = model.pretraining = f"set {seed}"
    dataset = target(n, size)
    images, labels = dataset.draw(n, seed=24)
    companion.rank(target(60, size), models[:2], per_class=12, scores=SEVEN, device="cpu")  # imports

    def seconds(work: Callable[[], Any]) -> float:
        began = time.perf_counter()
        work()
        return time.perf_counter() - began

    faster, overhead = [], []
    for _ in range(repeats):
        theirs = seconds(lambda: [released(model, images, labels) for model in models])
        ours = seconds(lambda: companion.rank(dataset, models, per_class=n, scores=SEVEN, device="cpu"))
        least = seconds(lambda: [bare(model, images, labels) for model in models])
        faster.append(theirs / ours)
        overhead.append(ours / least)
    about = (
        f"{sources} x ResNet-18, {n} images at {size} px, seven scores, {torch.get_num_threads()} thread(s)"
    )
    results = []
    for ratios, what in (
        (faster, f"the released procedure over companion.rank: {about}"),
        (overhead, f"companion.rank over bare passes and scores: {about} (lower is better)"),
    ):
        low, middle, high = np.quantile(ratios, [0.25, 0.5, 0.75])
        results.append({"ratio": float(middle), "low": float(low), "high": float(high), "what": what})
    return results[0], results[1]


def bench_rank() -> dict[str, dict]:
    """Small and many sources, and the size that people wait for."""
    small, large = bench_pipeline(64, 200), bench_pipeline(224, 500, repeats=1)
    return {
        "rank_pipeline": small[0],
        "rank_overhead": small[1],
        "rank_pipeline_224": large[0],
        "rank_overhead_224": large[1],
    }


if __name__ == "__main__":
    for name, row in bench_rank().items():
        print(name, row)
