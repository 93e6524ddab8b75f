"""The training loop against its limit, and against a plain loop in the shape of the released one."""

from __future__ import annotations

import importlib.util
import threading
import time
from typing import Any

import numpy as np
import torch
from joblib import Parallel, delayed
from torch import nn

from companion import datasets, models, replication
from companion.training import SourceProtocol
from companion.training.loop import Resident, fit

BATCH = 32
N_TRAIN, N_VAL = 192, 48  # the paper's 100 and 25 a class, for two classes, in whole batches


def recipe(epochs: int) -> SourceProtocol:
    return SourceProtocol("bench", epochs, batch_size=BATCH, lr=1e-3, augmentation="paper", patience=epochs)


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
    layout = Resident(*images(1, size, 0, 1), models.PLAIN_NORMALISATION, device).layout
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


def _one_run(device: str, size: int, epochs: int, seed: int) -> float:
    """Fine-tune once; the last validation AUC."""
    with torch.random.fork_rng():
        train = Resident(*images(N_TRAIN, size, 0, 1), models.PLAIN_NORMALISATION, device)
        val = Resident(*images(N_VAL, size, 1, 1), models.PLAIN_NORMALISATION, device)
        curve = fit(network(device), train, val, recipe(epochs), seed=seed).curve
        wait(device)
    return curve[-1]["val_auc"]


def _utilisation(stop: threading.Event, found: list[float]) -> None:
    """Collect the percentage of time that kernels ran, twice a second."""
    while not stop.wait(0.5):
        found.append(float(torch.cuda.utilization()))  # type: ignore[no-untyped-call]


def full_grid_images() -> float:
    """Images that the paper's 15 x 11 x 120 fine-tunings pass through a network at most; evaluation counts a third."""
    protocol = replication.read("paper")
    total, samples = 0.0, datasets.medmnist_samples()
    for _, target in protocol.pairs():
        tuning, classes = protocol.fine_tuning, len(datasets.medmnist_classes()[target])
        train = min(samples[target]["train"], tuning.train_per_class * classes)
        val = min(samples[target]["val"], tuning.val_per_class * classes)
        total += len(tuning.settings(target)) * (
            tuning.epochs * (train + val / 3) + samples[target]["test"] / 3
        )
    return total


def bench_together(
    size: int = 28, *, device: str = "cuda", runs: int = 8, epochs: int = 20, repeats: int = 3
) -> dict[str, Any]:
    """Time of fine-tunings one after the other over that of as many processes that share the device."""
    jobs = [(device, size, epochs, seed) for seed in range(runs)]
    ratios, seconds, busy = [], [], []
    _one_run(*jobs[0])
    with Parallel(n_jobs=runs) as parallel:
        # Every process has loaded its libraries and has a context on the device before anything is measured.
        parallel(delayed(_one_run)(device, size, 1, seed) for seed in range(4 * runs))
        for _ in range(repeats):
            began = time.perf_counter()
            alone = [_one_run(*job) for job in jobs]
            middle = time.perf_counter()
            stop = threading.Event()
            watch = threading.Thread(target=_utilisation, args=(stop, busy))
            if device != "cpu" and importlib.util.find_spec("pynvml"):
                watch.start()
            together = parallel(delayed(_one_run)(*job) for job in jobs)
            seconds.append(time.perf_counter() - middle)
            stop.set()
            ratios.append((middle - began) / seconds[-1])
            if device == "cpu":
                assert together == alone
            assert np.allclose(together, alone, atol=0.1)  # sums on a GPU come in no fixed order
    low, middle_ratio, high = np.quantile(ratios, [0.25, 0.5, 0.75])
    rate = runs * epochs * (N_TRAIN + N_VAL / 3) / float(np.median(seconds))
    return {
        "ratio": float(middle_ratio),
        "low": float(low),
        "high": float(high),
        "images_per_second": rate,
        "busy_percent": float(np.median(busy)) if busy else None,
        "full_grid_hours": full_grid_images() / rate / 3600,
        "what": f"{runs} fine-tunings together against one after the other, {size} px, batch {BATCH}, {device}",
    }


if __name__ == "__main__":
    chosen = "cuda" if torch.cuda.is_available() else "cpu"
    for pixels in (28, 64):
        print(bench_efficiency(pixels, device=chosen))
    print(bench_plain(28, device=chosen))
    if chosen == "cuda":
        print(bench_together(28))
