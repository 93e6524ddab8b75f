"""What a ranking took, and what the fine-tunings that it saves would take."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Mapping
from typing import Any

from companion.datasets import Dataset
from companion.training import FineTuning

# Seconds of training over seconds of the pass, an image; evaluation costs a quarter of that. Measured with one thread
# of a processor: ResNet-18 1.6 to 1.8 from 64 to 224 px, ResNet-50 1.6 and MobileNetV2 1.2 at 64 px; at 28 px 3.4, 2.3
# and 2.7, where the pass shrinks and the optimiser's step over the weights does not.
STEP_OVER_PASS, STEP_OVER_PASS_SMALL = 1.7, 3.0


def fine_tuning_seconds(
    cost: Mapping[str, Any], dataset: Dataset, protocol: FineTuning, names: Iterable[str] | None = None
) -> float:
    """Seconds that fine-tuning sources once each will take, estimated from the ranking's own pass.

    Parameters
    ----------
    cost
        ``attrs["cost"]`` of what `companion.rank` returned for `dataset`.
    dataset, protocol
        What is fine-tuned on, and how.
    names
        Sources; all of them by default.
    """
    n_train, n_val, n_test = (len(dataset.labels.get(split, ())) for split in ("train", "val", "test"))
    train = min(n_train, protocol.train_per_class * dataset.n_classes)
    val = min(n_val, protocol.val_per_class * dataset.n_classes)
    factor = STEP_OVER_PASS if dataset.size >= 64 else STEP_OVER_PASS_SMALL
    images = (protocol.epochs * (train + val / 4) + n_test / 4) * factor
    spent = cost["by_source"]
    return sum(spent[name]["network"] for name in (names or spent)) / cost["images"] * images


def peak_memory() -> float | None:
    """Largest memory this process has held so far, in GB; None where the system does not say (Windows)."""
    try:
        import resource
    except ImportError:
        return None
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / 1e9 if sys.platform == "darwin" else peak / 1e6  # bytes there, kilobytes elsewhere
