"""Refresh the stored tables behind Fig. 3, on real images only: ``python tools/refresh_projections.py``.

Sources, folds and training are those of the stored replication; the target is its set of chest X-rays, the nearest to
the binary pneumonia of the paper's figure. One fine-tuning a source and fold, with the first setting of the grid. The
maps are those of ImageNet and the first fold.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable
from dataclasses import replace
from importlib import resources
from pathlib import Path

import numpy as np
import pandas as pd
from sklearn.manifold import TSNE

from companion import replication, store
from companion.datasets import Dataset, load_dataset
from companion.errors import exit_code_of
from companion.models import best_device
from companion.replication import Pair
from companion.scores.lda import project
from companion.scores.nca import embed
from companion.training import fine_tune
from notebook_functions import functions

TARGET, SHOWN = "nih_cxr", "imagenet_mobilenet_v2"
PLAN = replication.stored_protocol()


def represented(dataset: Dataset, pair: Pair, number: int, device: str) -> dict[str, np.ndarray]:
    """Fine-tune a source on a fold; the fold's training images in the four representations of Fig. 3."""
    tuning = PLAN.fine_tuning
    settings, seed = tuning.settings(TARGET)[0], tuning.seeds[0]
    tuned = fine_tune(
        pair.model, dataset, PLAN.fold(dataset, number), settings, tuning, seed=seed, device=device
    )
    # The network has the source's backbone first, then dropout and the new layer.
    after = replace(pair.model, backbone=tuned.network.get_submodule("0"), head=None)
    before = pair.model.features(pair.images, device=device)
    return {
        "before": before,
        "after": after.features(pair.images, device=device),
        "nca": embed(before, pair.labels),
        "lda": project(before, pair.labels),
    }


def tables(folds: Iterable[int]) -> dict[str, pd.DataFrame]:
    """Compare the representations of every source on folds of the target, and map those of one."""
    dataset, compare, device = (
        load_dataset(TARGET, size=PLAN.size),
        functions("03").compare,
        str(best_device()),
    )
    seed, parts, maps = PLAN.fine_tuning.seeds[0], [], []
    for number in folds:
        for pair in replication.pairs([TARGET], fold_number=number, device=device):
            print(f"{pair.source}, fold {number}", file=sys.stderr, flush=True)
            found = represented(dataset, pair, number, device)
            about = {"source": pair.source, "target": TARGET, "fold": number, "seed": seed}
            parts.append(compare(found, pair.labels).assign(**about))
            if (pair.source, number) == (SHOWN, 1):
                names = np.array(dataset.classes)[pair.labels]
                for name, points in found.items():
                    x, y = TSNE(init="random", random_state=seed).fit_transform(points).T
                    maps.append(
                        pd.DataFrame({"x": x, "y": y, "class": names, "representation": name, **about})
                    )
    record = store.provenance(seed=seed, device=device, data={TARGET: dataset.content_hash}, size=PLAN.size)
    made = {"projections": pd.concat(parts, ignore_index=True), "maps": pd.concat(maps, ignore_index=True)}
    for table in made.values():
        table.attrs["provenance"] = record
    return made


def write(name: str, table: pd.DataFrame) -> None:
    """Put a table into the package."""
    place = Path(str(resources.files("companion.replication"))) / f"{name}.parquet"
    with store.atomic_path(place) as temporary:
        table.to_parquet(temporary, index=False)


def main() -> None:
    """Compute both tables and put them into the package."""
    for name, table in tables(sorted(replication.ground_truth()["fold"].unique())).items():
        write(name, table)


if __name__ == "__main__":
    sys.exit(exit_code_of(main))
