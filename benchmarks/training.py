"""The training loop against its limit, and against a plain loop in the shape of the released one."""

from __future__ import annotations

import time
from typing import Any

import numpy as np
import torch
from torch import nn

from companion import models
from companion.training.loop import Recipe, Resident, fit
from companion.training.memory import memory_layout

BATCH = 32
N_TRAIN, N_VAL = 192, 48  # the paper's 100 and 25 a class, for two classes, in whole batches


def recipe(epochs: int) -> Recipe:
    return Recipe(epochs, BATCH, 1e-3, 0.9, 1e-4, augmentation="paper", loss="cross-entropy", patience=epochs)


def images(count: int, size: int, seed: int, channels: int) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    shape = (count, size, size) if channels == 1 else (count, size, size, channels)
    return rng.integers(0, 256, shape, dtype=np.uint8), rng.integers(0, 2, count)


def network(device: str) -> nn.Module:
    return models.build("resnet18", classes=2, seed=0).to(device)


def wait(device: str) -> None:
    if device != "cpu":
        torch.cuda.synchronize()


def bare_step(device: str, size: int, epochs: int) -> Any:
    """The step alone: same model, batch and memory format, tensors that are there; no data, no validation."""
    layout = memory_layout(torch.device(device), size)
    model = network(device).to(memory_format=layout).train()  # type: ignore[call-overload]
    optimiser = torch.optim.SGD(
        model.parameters(),
        lr=1e-3,
        momentum=0.9,
        weight_decay=1e-4,
        nesterov=True,
        fused=layout is torch.contiguous_format or None,
    )
    criterion = nn.CrossEntropyLoss()
    batch = torch.randn(BATCH, 3, size, size, device=device).contiguous(memory_format=layout)
    labels = torch.randint(0, 2, (BATCH,), device=device)
    scaler = torch.amp.GradScaler(device, enabled=device != "cpu")

    def several() -> None:
        for _ in range(epochs * (N_TRAIN // BATCH)):
            optimiser.zero_grad(set_to_none=True)
            with torch.autocast(device, torch.float16, enabled=device != "cpu"):
                loss = criterion(model(batch), labels)
            scaler.scale(loss).backward()
            scaler.step(optimiser)
            scaler.update()
        wait(device)

    return several


def ours(device: str, size: int, channels: int, epochs: int) -> Any:
    train = Resident(*images(N_TRAIN, size, 0, channels), models.PLAIN_NORMALISATION, device)
    val = Resident(*images(N_VAL, size, 1, channels), models.PLAIN_NORMALISATION, device)
    model = network(device)

    def several() -> None:
        fit(model, train, val, recipe(epochs), seed=0)
        wait(device)

    return several


class _PerImage(torch.utils.data.Dataset):
    def __init__(self, arrays: tuple[np.ndarray, np.ndarray], transform: Any) -> None:
        self.arrays, self.transform = arrays, transform

    def __len__(self) -> int:
        return len(self.arrays[1])

    def __getitem__(self, index: int) -> tuple[torch.Tensor, int]:
        from PIL import Image

        image = Image.fromarray(self.arrays[0][index]).convert("RGB")
        return self.transform(image), int(self.arrays[1][index])


def plain(device: str, size: int, channels: int, epochs: int) -> Any:
    """Transforms image by image in a DataLoader; every epoch evaluates the training set beside the validation set."""
    models.torchvision()
    from torchvision import transforms

    normalise = [transforms.ToTensor(), transforms.Normalize((0.5,) * 3, (0.5,) * 3)]
    augment = transforms.Compose(
        [
            transforms.RandomHorizontalFlip(),
            transforms.RandomResizedCrop(size),
            transforms.RandomRotation((0, 5)),
            transforms.RandomAdjustSharpness(2),
            transforms.RandomAutocontrast(),
            transforms.RandomEqualize(),
            *normalise,
        ]
    )
    loaders = [
        torch.utils.data.DataLoader(
            _PerImage(images(count, size, seed, channels), transform), BATCH, shuffle=seed == 0
        )
        for count, seed, transform in ((N_TRAIN, 0, augment), (N_VAL, 1, transforms.Compose(normalise)))
    ]
    model = models.build("resnet18", classes=2, seed=0).to(device)
    criterion = nn.CrossEntropyLoss()

    def measured(loader: Any) -> None:
        from sklearn.metrics import roc_auc_score

        model.eval()
        found, truth = [], []
        with torch.no_grad():
            for batch, labels in loader:
                found.append(model(batch.to(device)).softmax(1)[:, 1].cpu())
                truth.append(labels)
        roc_auc_score(torch.cat(truth), torch.cat(found))

    def several() -> None:
        optimiser = torch.optim.SGD(
            model.parameters(), lr=1e-3, momentum=0.9, weight_decay=1e-4, nesterov=True
        )
        for _ in range(epochs):
            model.train()
            for batch, labels in loaders[0]:
                optimiser.zero_grad()
                criterion(model(batch.to(device)), labels.to(device)).backward()
                optimiser.step()
            for loader in loaders:
                measured(loader)
        wait(device)

    return several


def _timed(work: Any) -> float:
    began = time.perf_counter()
    work()
    return time.perf_counter() - began


def _interleaved(first: Any, second: Any, repeats: int) -> dict[str, float]:
    """Quartiles of time(first) / time(second) over interleaved repeats."""
    first(), second()
    ratios = [_timed(first) / _timed(second) for _ in range(repeats)]
    low, middle, high = np.quantile(ratios, [0.25, 0.5, 0.75])
    return {"ratio": float(middle), "low": float(low), "high": float(high)}


def bench_efficiency(size: int, *, device: str = "cpu", epochs: int = 8, repeats: int = 5) -> dict[str, Any]:
    """Images/s of training with augmentation and per-epoch validation, over images/s of the bare step."""
    both = bare_step(device, size, epochs), ours(device, size, 1, epochs)
    found = _interleaved(*both, repeats)
    what = (
        f"training over the bare step, {size} px, batch {BATCH}, {device}, {torch.get_num_threads()} threads"
    )
    return found | {"what": what}


def bench_plain(size: int, *, device: str = "cpu", epochs: int = 4, repeats: int = 5) -> dict[str, Any]:
    """Time of a plain loop over that of ours."""
    both = plain(device, size, 1, epochs), ours(device, size, 1, epochs)
    found = _interleaved(*both, repeats)
    what = (
        f"our loop against a plain one, {size} px, batch {BATCH}, {device}, {torch.get_num_threads()} threads"
    )
    return found | {"what": what}


if __name__ == "__main__":
    chosen = "cuda" if torch.cuda.is_available() else "cpu"
    for pixels in (28, 64):
        print(bench_efficiency(pixels, device=chosen))
    print(bench_plain(28, device=chosen))
