"""Refresh the stored table behind Fig. 3, on real images only: ``python tools/refresh_projections.py``.

The sources are those of the stored replication, the target is the paper's, binary pneumonia; every fold of the
replication, one fine-tuning each with the first setting of its grid. Minutes, once the sources are in the cache.
"""

from __future__ import annotations

import sys
from importlib import resources
from pathlib import Path

import pandas as pd

from companion import replication, store
from companion.datasets import load_dataset
from companion.errors import exit_code_of
from companion.evaluation.closeness import compare, representations
from companion.models import best_device
from companion.sources import load_source

TARGET = "pneumoniamnist"


def table() -> pd.DataFrame:
    """Fine-tune every source on every fold of the target and compare the representations."""
    plan = replication.stored_protocol()
    dataset = load_dataset(TARGET, size=plan.size)
    device = str(best_device())
    seed = plan.fine_tuning.seeds[0]
    parts = []
    for source, target in plan.pairs():
        if target != TARGET:
            continue
        model = load_source(
            plan.spec(source, target), protocol=plan.source_training, size=plan.size, seed=seed, device=device
        )
        for number in plan.fine_tuning.folds:
            print(f"{source}, fold {number}", file=sys.stderr, flush=True)
            found, labels = representations(
                model, dataset, number, plan.fine_tuning, seed=seed, device=device
            )
            about = {"source": replication.label(source), "target": TARGET, "fold": number, "seed": seed}
            parts.append(compare(found, labels).reset_index().assign(**about))
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
