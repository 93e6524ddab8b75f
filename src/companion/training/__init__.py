"""Source training and fine-tuning: one loop, explicit protocols.

`train_source` makes a source model, `fine_tune` one run of the ground truth. Both go through `companion.training.loop`,
run on the fastest device there is by default, and leave the global random states as they were.
"""

from companion.training.augmentation import augmentation
from companion.training.fine_tuning import FineTuned, fine_tune
from companion.training.protocols import (
    FINE_TUNING_PROTOCOLS,
    PAPER,
    QUICK,
    RADIMAGENET,
    SEED,
    SOURCE_PROTOCOLS,
    STANDARD,
    FineTuning,
    Settings,
    SourceProtocol,
)
from companion.training.source import balanced_weights, train_source

# fmt: off
__all__ = [
    "FINE_TUNING_PROTOCOLS", "PAPER", "QUICK", "RADIMAGENET", "SEED", "SOURCE_PROTOCOLS", "STANDARD", "FineTuned",
    "FineTuning", "Settings", "SourceProtocol", "augmentation", "balanced_weights", "fine_tune", "train_source",
]
# fmt: on
