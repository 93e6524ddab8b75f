"""A whole ranking against the passes through the networks that it cannot do without."""

from __future__ import annotations

import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from single_pass import realistic_resnet18

import companion
from companion.scores.forward_pass import single_pass

CLASSES = 5


def write_images(folder: Path, n: int, size: int) -> None:
    """Class folders of JPEGs that look a little like photographs, all of them to train on."""
    rng = np.random.default_rng(0)
    for index in range(n):
        coarse = Image.fromarray(rng.integers(0, 256, (12, 12, 3), dtype=np.uint8))
        path = folder / "train" / f"class {index % CLASSES}" / f"{index}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        coarse.resize((size, size), Image.Resampling.BICUBIC).save(path, quality=90)


def bench_rank(size: int = 224, *, n: int = 500, sources: int = 2, repeats: int = 2) -> dict[str, Any]:
    """Time of `companion.rank`, reading the files included, over that of one single pass per source."""
    models = [realistic_resnet18(seed) for seed in range(sources)]
    for seed, model in enumerate(models):
        model.name = model.pretraining = f"set {seed}"
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place) / "images"
        write_images(folder, n, size + 32)
        images, labels = companion.load_dataset(folder, size=size).draw(n)
        companion.rank(folder, models, size=size, per_class=12)  # imports
        ratios = []
        for _ in range(repeats):
            began = time.perf_counter()
            for model in models:
                single_pass(model, images, labels)
            middle = time.perf_counter()
            companion.rank(folder, models, size=size, per_class=n)
            ratios.append((time.perf_counter() - middle) / (middle - began))
    low, middle, high = np.quantile(ratios, [0.25, 0.5, 0.75])
    what = (
        f"companion.rank on {n} JPEGs at {size} px, {sources} x ResNet-18, all scores, over one pass per source, "
        f"{torch.get_num_threads()} threads (lower is better)"
    )
    return {"ratio": float(middle), "low": float(low), "high": float(high), "what": what}


if __name__ == "__main__":
    print(bench_rank())
