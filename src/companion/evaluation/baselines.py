"""Ways of choosing a source that need no transferability score: what any score has to beat."""

from __future__ import annotations

import pandas as pd

from companion import published
from companion.datasets import medmnist_samples

# Column -> what it does, for tables and figures.
BASELINES = {
    "training_set_size": "number of training images",
    "imagenet_then_size": "ImageNet first, then number of training images",
    "mean_rank_elsewhere": "mean AUC rank over the other targets",
}


def training_set_sizes(target: str) -> dict[str, int]:
    """Training images behind each published source, for one target, a MedMNIST flag.

    ImageNet's and RadImageNet's are cited in the package's table, MedMNIST's are the publisher's own; ``medmnist``
    is trained on all MedMNIST sets but the target.
    """
    own = {flag: counts["train"] for flag, counts in medmnist_samples().items()}
    pooled = sum(images for flag, images in own.items() if flag != target)
    return {**published.training_set_sizes(), **own, "medmnist": pooled}


def baselines(table: pd.DataFrame) -> pd.DataFrame:
    """Those of `BASELINES` that can be had, as score columns beside ``source``, ``target`` and ``auc``.

    `table` has one row per (source, target) with ``auc``, without source == target. Its column ``training_images`` is
    used where it is there; else the published sizes are, where every source has one. ``mean_rank_elsewhere``, from 0
    (worst) to 1 (best), has seen fine-tuning results, though none of the target's: beating it takes more than knowing
    which sources are good in general. Sizes that are the same for every source are left out.
    """
    found = table[["source", "target", "auc"]].copy()
    if "training_images" in table:
        sizes = table["training_images"].astype(float)
    else:
        by_target = {target: training_set_sizes(target) for target in table["target"].unique()}
        known = [by_target[row.target].get(row.source) for row in table.itertuples()]
        sizes = pd.Series(None if None in known else known, table.index, dtype=float)
    if sizes.nunique() > 1:
        found["training_set_size"] = sizes
        if (found["source"] == "imagenet").any():
            found["imagenet_then_size"] = sizes.where(found["source"] != "imagenet", sizes.max() + 1)
    if found["target"].nunique() > 1:
        aucs = found.groupby("target")["auc"]
        share = (aucs.rank() - 1) / (aucs.transform("size") - 1).clip(lower=1)
        by_source = share.groupby(found["source"])
        others = by_source.transform("size") - 1
        found["mean_rank_elsewhere"] = (by_source.transform("sum") - share) / others.where(others > 0)
    return found
