"""Checkpoints for tests: the smallest network with random weights, each with pre-training of its own."""

from pathlib import Path

SMALL = "shufflenet_v2_x0_5"


def checkpoints(folder: Path, count: int, first: str = "set 0") -> list[str]:
    """Write `count` checkpoints, the first of which says that it was pre-trained on `first`; return their paths."""
    from companion import models, sources

    paths = []
    for seed in range(count):
        model = models.scratch(SMALL, seed=seed)
        model.pretraining = f"set {seed}" if seed else first
        paths.append(str(sources.save(model, folder / f"model{seed}.safetensors")))
    return paths


def named(paths: list[str]) -> list[str]:
    """Options that name these sources to a command."""
    return [word for path in paths for word in ("--source", path)]
