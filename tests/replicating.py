"""A replication small enough for tests, on synthetic images, and what of its table must not depend on the day."""

from pathlib import Path

import pandas as pd

PROTOCOL = """
name: tiny
size: 28
architecture: shufflenet_v2_x0_5
sources: [scratch, "train:procedural:textures", leave-target-out]
pool: ["procedural:textures", "procedural:cells", "procedural:lesions"]
targets: ["procedural:lesions"]
source_training: {{name: tiny, epochs: 1, images_per_epoch: 64}}
fine_tuning:
  name: tiny
  epochs: {epochs}
  patience: {epochs}
  lr: {lr}
  batch_size: 16
  folds: {folds}
  train_per_class: 20
  augmentation: light
"""
# Everything else in a row must be equal between an uninterrupted run and any other.
OF_THE_DAY = ["seconds", "images_per_second", "date"]


def write(path: Path, *, epochs: int = 1, lr: str = "[0.01]", folds: str = "[1]") -> Path:
    path.write_text(PROTOCOL.format(epochs=epochs, lr=lr, folds=folds), encoding="utf-8")
    return path


def timeless(table: pd.DataFrame) -> list[dict]:
    """Rows of a table of runs in order of their keys, without times."""
    rows = table.drop(columns=OF_THE_DAY, errors="ignore").sort_values("key").to_dict("records")
    return [{name: repr(value) for name, value in row.items()} for row in rows]
