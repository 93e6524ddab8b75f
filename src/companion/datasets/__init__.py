"""What a target or source dataset is, and every way to get one.

`load_dataset` takes a MedMNIST flag, a ``.npz`` file, a folder of class folders, a manifest or ``procedural:NAME``,
and returns a `Dataset`: images as uint8, labels as integers, splits, class names, a content hash.
"""

from companion.datasets.dataset import SIZES, Dataset
from companion.datasets.folds import Fold, fold
from companion.datasets.inspection import Inspection, cautions, inspect
from companion.datasets.joint import joint_columns, pool
from companion.datasets.load import absent, find, load_dataset
from companion.datasets.medmnist import cached_file, medmnist_classes, medmnist_flags, medmnist_samples
from companion.datasets.natural import NAME as NATURAL
from companion.datasets.procedural import GENERATORS

# fmt: off
__all__ = [
    "GENERATORS", "NATURAL", "SIZES", "Dataset", "Fold", "Inspection", "absent", "cached_file",
    "cautions", "find", "fold", "inspect", "joint_columns", "load_dataset", "medmnist_classes",
    "medmnist_flags", "medmnist_samples", "pool",
]
# fmt: on
