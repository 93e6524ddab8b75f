"""Per-image augmentation of a whole batch at once, on the device the batch is on. kornia does the work."""

from __future__ import annotations

import functools

from torch import Tensor, nn


@functools.lru_cache(maxsize=16)
def augmentation(kind: str, size: int) -> nn.Module:
    """Build an augmentation for square batches (n, channels, size, size) with values from 0 to 1.

    ``"paper"``: horizontal flip (p .5), random resized crop (8 to 100 % of the area), rotation by 0 to 5°, sharpness 2
    (p .5), autocontrast (p .5), equalise (p .5). ``"light"``: flip, random resized crop (50 to 100 %), rotation (p .5).
    ``"none"``. Random numbers come from torch's global generator, which the training loop seeds.
    """
    from kornia import augmentation as aug

    if kind == "none":
        return nn.Identity()
    if kind == "light":
        return nn.Sequential(
            aug.RandomHorizontalFlip(p=0.5),
            aug.RandomResizedCrop((size, size), scale=(0.5, 1.0)),
            aug.RandomRotation(5.0, p=0.5),
        )
    return nn.Sequential(
        aug.RandomHorizontalFlip(p=0.5),
        aug.RandomResizedCrop((size, size)),
        aug.RandomRotation((0.0, 5.0), p=1.0),
        aug.RandomSharpness((2.0, 2.0), p=0.5),
        aug.RandomAutoContrast(p=0.5),
        aug.RandomEqualize(p=0.5),
    )


def augmented(kind: str, images: Tensor) -> Tensor:
    """Augment float images (n, channels, size, size); a last batch of any size is fine."""
    return augmentation(kind, images.shape[-1])(images)
