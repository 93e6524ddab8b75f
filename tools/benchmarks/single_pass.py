"""One pass for features, outputs and gradients, against the two passes of the work as released."""

from __future__ import annotations

import copy
import time

import numpy as np
import torch
from pytorch_metric_learning.losses import TripletMarginLoss

from companion import models
from companion.scores.forward_pass import single_pass


def realistic_resnet18(seed: int = 0) -> models.SourceModel:
    """A ResNet-18 whose batch norms have seen data: with fresh ones the gradients are not like a model's."""
    network = models.build("resnet18", seed=seed)
    with torch.random.fork_rng(devices=[]), torch.no_grad():
        torch.manual_seed(seed)
        network.train()
        for _ in range(5):
            network(torch.rand(64, 3, 64, 64) * 2 - 1)
    head = models.split_head(network.eval())
    return models.SourceModel("bench", network, head, "resnet18", "nothing")


def as_released(network: torch.nn.Module, images: np.ndarray, labels: np.ndarray) -> tuple[np.ndarray, float]:
    """A feature pass in batches of 32 with autograd on, then a gradient pass with every parameter's gradient."""

    def batch(part: slice) -> torch.Tensor:
        return models.to_batch(images[part], models.PLAIN_NORMALISATION).contiguous()

    features = [network(batch(slice(i, i + 32))).detach() for i in range(0, len(images), 32)]
    loss, step, norms = TripletMarginLoss(margin=0.05), len(images) // 6, []
    for i in range(0, len(images), step):
        network.zero_grad()
        loss(network(batch(slice(i, i + step))), torch.from_numpy(labels[i : i + step])).backward()
        norms.append([network.conv1.weight.grad.norm(), network.layer1[0].conv1.weight.grad.norm()])
    first, second = np.array(norms, dtype=float).mean(0)
    return torch.cat(features).numpy(), second / first


def bench(size: int, *, n: int = 200, repeats: int = 9, threads: int = 1) -> dict[str, float | str]:
    torch.set_num_threads(threads)
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (n, size, size, 3), dtype=np.uint8)
    labels = rng.integers(0, 2, n)
    model = realistic_resnet18()
    network = copy.deepcopy(model.backbone)
    ours, theirs = single_pass(model, images, labels, device="cpu"), as_released(network, images, labels)
    # A fast wrong answer is no result.
    assert np.abs(ours.features - theirs[0]).max() < 1e-4
    assert abs(ours.ratio() / theirs[1] - 1) < 1e-3
    ratios = []
    for _ in range(repeats):
        began = time.perf_counter()
        as_released(network, images, labels)
        middle = time.perf_counter()
        single_pass(model, images, labels, device="cpu")
        ratios.append((middle - began) / (time.perf_counter() - middle))
    low, middle, high = np.quantile(ratios, [0.25, 0.5, 0.75])
    what = (
        f"single pass against the two passes as released, n = {n}, {size} px, ResNet-18, {threads} thread(s)"
    )
    return {"ratio": float(middle), "low": float(low), "high": float(high), "what": what}


if __name__ == "__main__":
    for pixels in (64, 28):
        print(bench(pixels))
