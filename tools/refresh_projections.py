"""Refresh the stored table behind Fig. 3, on real images only: ``python tools/refresh_projections.py``.

Sources, folds and training are those of the stored replication; the target is its set of chest X-rays, the nearest to
the binary pneumonia of the paper's figure. One fine-tuning a source and fold, with the first setting of the grid.
"""

from __future__ import annotations

import sys
from dataclasses import replace
from importlib import resources
from pathlib import Path

import pandas as pd

from companion import replication, store
from companion.datasets import load_dataset
from companion.errors import exit_code_of
from companion.models import best_device
from companion.scores.lda import project
from companion.scores.nca import embed
from companion.training import fine_tune
from notebook_functions import functions

TARGET = "nih_cxr"


def table() -> pd.DataFrame:
    """Fine-tune every source on every complete fold of the target and compare the representations."""
    plan, device = replication.stored_protocol(), str(best_device())
    dataset, compare = load_dataset(TARGET, size=plan.size), functions("03").compare
    tuning, seed = plan.fine_tuning, plan.fine_tuning.seeds[0]
    parts = []
    for number in sorted(replication.ground_truth()["fold"].unique()):
        fold = plan.fold(dataset, number)
        for pair in replication.pairs([TARGET], fold_number=number, device=device):
            print(f"{pair.source}, fold {number}", file=sys.stderr, flush=True)
            tuned = fine_tune(
                pair.model, dataset, fold, tuning.settings(TARGET)[0], tuning, seed=seed, device=device
            )
            # The network has the source's backbone first, then dropout and the new layer.
            after = replace(pair.model, backbone=tuned.network.get_submodule("0"), head=None)
            before = pair.model.features(pair.images, device=device)
            found = {
                "before": before,
                "after": after.features(pair.images, device=device),
                "nca": embed(before, pair.labels),
                "lda": project(before, pair.labels),
            }
            about = {"source": pair.source, "target": TARGET, "fold": number, "seed": seed}
            parts.append(compare(found, pair.labels).assign(**about))
    whole = pd.concat(parts, ignore_index=True)
    whole.attrs["provenance"] = store.provenance(
        seed=seed, device=device, data={TARGET: dataset.content_hash}, size=plan.size
    )
    return whole


def main() -> None:
    """Compute the table and put it into the package."""
    place = Path(str(resources.files("companion.replication"))) / "projections.parquet"
    found = table()
    with store.atomic_path(place) as temporary:
        found.to_parquet(temporary, index=False)


if __name__ == "__main__":
    sys.exit(exit_code_of(main))
