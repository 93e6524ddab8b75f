"""Seeded synthetic images for trying things out where no real data can be had.

They look a little like medical images and are nothing of the kind: whatever is made from them says so.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from companion.datasets.dataset import Dataset, task_of
from companion.errors import InputError, did_you_mean

_COUNTS = {"train": 600, "val": 120, "test": 300}


def _grid(size: int) -> tuple[np.ndarray, np.ndarray]:
    axis = (np.arange(size) + 0.5) / size
    return np.meshgrid(axis, axis, indexing="ij")


def _background(rng: np.random.Generator, size: int) -> np.ndarray:
    """Smooth, cloudy background around mid grey."""
    from scipy.ndimage import gaussian_filter

    cloud = gaussian_filter(rng.standard_normal((size, size)), size / 7)
    return 0.35 + 0.1 * cloud / (cloud.std() + 1e-9)


def _textures(rng: np.random.Generator, label: int, size: int) -> np.ndarray:
    """Oriented stripes: four orientations, with jittered angle, frequency and phase."""
    rows, columns = _grid(size)
    angle = np.pi * label / 4 + rng.normal(0, 0.2)
    frequency = rng.uniform(3, 6)
    wave = np.sin(
        2 * np.pi * frequency * (rows * np.sin(angle) + columns * np.cos(angle)) + rng.uniform(0, 2 * np.pi)
    )
    return _background(rng, size) + rng.uniform(0.05, 0.2) * wave


def _cells(rng: np.random.Generator, label: int, size: int) -> np.ndarray:
    """Round cells: few large, some middling, many small."""
    rows, columns = _grid(size)
    image = _background(rng, size)
    count = rng.poisson((4, 8, 14)[label]) + 1
    radius = (0.13, 0.10, 0.075)[label]
    for _ in range(count):
        centre, spread = rng.uniform(0, 1, 2), radius * rng.uniform(0.7, 1.3)
        distance = np.hypot(rows - centre[0], columns - centre[1]) / spread
        image = image + rng.uniform(0.15, 0.4) / (1 + np.exp(8 * (distance - 1)))
    return image


def _lesions(rng: np.random.Generator, label: int, size: int) -> np.ndarray:
    """One bright ellipse in tissue: smooth outline (benign-looking) or ragged (malignant-looking)."""
    rows, columns = _grid(size)
    centre, radius = rng.uniform(0.3, 0.7, 2), rng.uniform(0.12, 0.25)
    down, right = rows - centre[0], columns - centre[1]
    angle = np.arctan2(down, right)
    ragged = (0.05, 0.28)[label] * np.sin(rng.integers(5, 9) * angle + rng.uniform(0, 2 * np.pi))
    stretch = rng.uniform(0.8, 1.25)
    distance = np.hypot(down * stretch, right / stretch) / (radius * (1 + ragged))
    return _background(rng, size) + rng.uniform(0.2, 0.4) / (1 + np.exp(14 * (distance - 1)))


def _fibres(rng: np.random.Generator, label: int, size: int) -> np.ndarray:
    """Curved fibres: straight, wavy or crossing."""
    rows, columns = _grid(size)
    image = _background(rng, size)
    amplitude = (0.0, 0.09, 0.0)[label] * rng.uniform(0.7, 1.3)
    for index in range(rng.integers(4, 8)):
        across, along = (rows, columns) if label != 2 or index % 2 else (columns, rows)
        centre = rng.uniform(0, 1) + amplitude * np.sin(2 * np.pi * (2 * along + rng.uniform(0, 1)))
        image = image + rng.uniform(0.1, 0.3) * np.exp(-(((across - centre) / 0.03) ** 2))
    return image


Generator = tuple[Callable[[np.random.Generator, int, int], np.ndarray], tuple[str, ...]]
# name -> (draw one image, class names)
GENERATORS: dict[str, Generator] = {
    "textures": (_textures, ("0°", "45°", "90°", "135°")),
    "cells": (_cells, ("few large", "middling", "many small")),
    "lesions": (_lesions, ("smooth outline", "ragged outline")),
    "fibres": (_fibres, ("straight", "wavy", "crossing")),
}


def generator(name: str) -> Generator:
    """Return the generator `name` and its classes; an `InputError` where there is none."""
    if name not in GENERATORS:
        raise InputError(
            f"no synthetic dataset procedural:{name}: there are "
            f"{', '.join(f'procedural:{known}' for known in GENERATORS)}.{did_you_mean(name, GENERATORS)}"
        )
    return GENERATORS[name]


def generate(name: str, *, size: int = 28, seed: int = 0) -> Dataset:
    """Draw the synthetic dataset `name`: 600 training, 120 validation and 300 test images, grey, balanced."""
    draw, classes = generator(name)
    # The name is part of the seed, so that two generators never share their random numbers.
    rng = np.random.default_rng([seed, *name.encode()])
    images, labels = {}, {}
    for split, count in _COUNTS.items():
        labels[split] = rng.permutation(np.arange(count) % len(classes)).astype(np.int64)
        clean = np.stack([draw(rng, int(label), size) for label in labels[split]])
        noisy = clean + rng.normal(0, 0.06, clean.shape)
        images[split] = (255 * np.clip(noisy, 0, 1)).round().astype(np.uint8)
    return Dataset(
        name=f"procedural:{name}",
        images=images,
        labels=labels,
        classes=classes,
        task=task_of(classes),
        origin=f"synthetic, drawn by this package with seed {seed}",
        synthetic=True,
    )
