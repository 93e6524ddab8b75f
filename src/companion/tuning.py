"""Fine-tune one source for a target and keep what comes out: weights, predictions, and what they are worth."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from companion import pages, store
from companion.datasets import Dataset, Fold, cautions
from companion.datasets import fold as fold_of
from companion.errors import InputError
from companion.models import SourceModel, best_device
from companion.sources import Source, learnt_from, load_source, packed
from companion.training import FINE_TUNING_PROTOCOLS, SEED, fine_tune
from companion.training.loop import Report, part_of
from companion.training.metrics import auc_per_class, macro_auc

LEARNING_RATES = (0.001, 0.01)  # of each seed the run with the lower validation loss counts
RESAMPLES = 200
FILES = ("model.safetensors", "predictions.csv", "per_class.csv", "tuning.json", "tuning.html")
TITLES = {"lr": "learning rate", "val_auc": "validation AUC", "test_auc": "test AUC", "auc": "AUC"}
TITLES |= {"test_accuracy": "test accuracy", "seconds": "s"}


@dataclass(frozen=True)
class Tuned:
    """A source fine-tuned on a target, and its results on the target's test images."""

    model: SourceModel
    """The network of the first seed, head included: ``model.predict(images)`` gives class probabilities."""
    dataset: Dataset
    runs: pd.DataFrame
    """One row a seed: ``seed``, ``lr`` (chosen on validation), ``epochs``, ``val_auc``, ``test_auc`` (macro
    one-vs-rest, 0 to 1), ``test_accuracy``, ``seconds``."""
    probabilities: np.ndarray
    """(seeds, test images, classes)."""
    test_auc: tuple[float, float, float]
    """Mean over seeds, and its 95 % interval over seeds and test images (patients where they are known)."""
    frozen_auc: float
    """Test AUC of a logistic regression on the source's features: all layers but the last left as they were."""
    remarks: tuple[str, ...]
    provenance: dict[str, Any]

    @property
    def summary(self) -> str:
        """A line: AUC with its interval, beside that of the frozen network."""
        value, low, high = self.test_auc
        seeds = f"{len(self.runs)} seed{'s' * (len(self.runs) > 1)}"
        return (
            f"test AUC {value:.3f}, 95 % interval {low:.3f} to {high:.3f} over {seeds} and "
            f"{self.probabilities.shape[1]} test images; {self.frozen_auc:.3f} with the network frozen and only a "
            f"linear classifier trained{', which is better here' * (self.frozen_auc > value)}"
        )

    @cached_property
    def notes(self) -> list[str]:
        """What to know of the result, and of the target, a sentence each."""
        return [*self.remarks, *cautions(self.dataset)]

    def __str__(self) -> str:
        """The result as text for a terminal."""
        table = self.per_class.round(3).to_string(index=False)
        return "\n".join([self.summary, *self.notes, "", table, "", pages.NOT_CLINICAL])

    @property
    def per_class(self) -> pd.DataFrame:
        """One row a class, first seed: ``class``, ``images``, ``auc``, ``sensitivity``, ``precision``."""
        counts = self.confusion.to_numpy()
        right, images, predicted = np.diag(counts), counts.sum(axis=1), counts.sum(axis=0)
        auc = auc_per_class(self.dataset.labels["test"], self.probabilities[0])
        with np.errstate(invalid="ignore"):  # no such images, or none called so
            shares = {"sensitivity": right / images, "precision": right / predicted}
        return pd.DataFrame({"class": self.dataset.classes, "images": images, "auc": auc} | shares)

    @property
    def confusion(self) -> pd.DataFrame:
        """Test images of each class (rows) by predicted class (columns), first seed."""
        names, counts = list(self.dataset.classes), np.zeros((self.dataset.n_classes,) * 2, dtype=int)
        np.add.at(counts, (self.dataset.labels["test"], self.probabilities[0].argmax(1)), 1)
        return pd.DataFrame(counts, index=names, columns=names)

    @property
    def calibration(self) -> pd.DataFrame:
        """Test images by the probability of their predicted class: ``images``, mean ``probability``, ``accuracy``."""
        chances = self.probabilities[0]
        right = (chances.argmax(1) == self.dataset.labels["test"]).astype(float)
        frame = pd.DataFrame({"images": 1, "probability": chances.max(1), "accuracy": right})
        bins = frame.groupby(pd.cut(frame["probability"], np.linspace(0, 1, 11)), observed=True)
        return bins.agg({"images": "sum", "probability": "mean", "accuracy": "mean"}).reset_index(drop=True)

    @property
    def predictions(self) -> pd.DataFrame:
        """One row a test image, by its file's name or number: ``truth``, ``predicted``, a probability a class."""
        names, chances = np.array(self.dataset.classes), self.probabilities[0]
        truth, predicted = names[self.dataset.labels["test"]], names[chances.argmax(1)]
        columns = {f"probability of {name}": column for name, column in zip(names, chances.T, strict=True)}
        return pd.DataFrame(
            {"truth": truth, "predicted": predicted} | columns, index=self.dataset.names.get("test")
        )

    def as_document(self) -> dict[str, Any]:
        """Everything but the predictions as JSON-able values."""
        document = {
            "source": self.provenance["source"],
            "target": repr(self.dataset),
            "summary": self.summary,
            "test_auc": dict(zip(("mean", "low", "high"), self.test_auc, strict=True)),
            "frozen_auc": self.frozen_auc,
            "remarks": self.notes,
            "runs": self.runs,
            "per_class": self.per_class,
            "confusion": self.confusion.reset_index(names="class"),
            "calibration": self.calibration,
            "provenance": self.provenance,
        }
        return pages.json_able(document)

    def save(self, folder: str | os.PathLike, *, force: bool = False) -> list[Path]:
        """Write weights, predictions, per-class table, document and report to a folder, all of them or none.

        Raises
        ------
        InputError
            If the folder is a file, cannot be written or holds such results.
        """
        folder = Path(folder)
        store.check_folder(folder, FILES, force=force)
        tables = {
            "Runs": self.runs,
            "Classes (first seed)": self.per_class,
            "Confusion matrix (first seed): classes in rows, predictions in columns": self.confusion,
            "Calibration (first seed): is a probability of .8 right in eight of ten?": self.calibration,
        }
        shown = {
            title: table.rename(columns=TITLES).to_html(border=0, index="rows" in title, float_format="%.3f")
            for title, table in tables.items()
        }
        texts = (
            self.predictions.to_csv(index_label="image"),
            self.per_class.to_csv(index=False),
            json.dumps(self.as_document(), indent=1),
            pages.render("tuning.html", tuned=self, tables=shown),
        )
        contents = (packed(self.model), *map(str.encode, texts))
        return store.write_files(folder, dict(zip(FILES, contents, strict=True)))


def tune(
    model: Source,
    dataset: Dataset,
    *,
    protocol: str = "quick",
    seeds: Sequence[int] = (SEED,),
    fold: Fold | None = None,
    device: str | None = None,
    progress: Report | None = None,
) -> Tuned:
    """Fine-tune a source on a target, once a seed with the better of two learning rates, and test it.

    Parameters
    ----------
    model, dataset
        The source, as for `load_source`, and the target with its validation and test split.
    protocol
        ``"quick"`` or ``"standard"``: epochs, early stopping, augmentation.
    seeds
        Of the new head, the order of images, augmentation and dropout; each costs two runs.
    fold
        Which images to train and validate on; all of both splits by default.
    device, progress
        Where; called with the fraction done and a line of text.

    Raises
    ------
    InputError
        If the protocol is unknown, a split is missing, or training diverges with both learning rates.
    """
    if protocol not in FINE_TUNING_PROTOCOLS:
        raise InputError(f"protocol {protocol!r} is none of {', '.join(FINE_TUNING_PROTOCOLS)}")
    most = max(len(labels) for labels in dataset.labels.values())
    fold = fold or fold_of(dataset, 1, train_per_class=most, val_per_class=most)
    device = str(best_device(device))
    tell = progress or (lambda fraction, text: None)
    how: dict[str, Any] = {"target": dataset.name, "seed": int(seeds[0]), "device": device}
    model = load_source(model, **how, progress=lambda _, text: tell(0.0, text))
    steps = (part_of(progress, number, len(seeds)) for number in range(len(seeds)))
    runs = [
        _best_run(model, dataset, fold, protocol, seed=seed, device=device, report=step)
        for seed, step in zip(seeds, steps, strict=True)
    ]
    record = store.provenance(
        seed=int(seeds[0]),
        device=device,
        data={dataset.name: dataset.content_hash},
        source=model.name,
        protocol=protocol,
        source_provenance=model.provenance,
    )
    tuned = [_as_model(network, model, dataset, record) for network, _ in runs]
    aucs, chances = {}, {}
    for split in ("val", "test"):
        chances[split] = np.stack([one.predict(dataset.images[split], device=device) for one in tuned])
        mean = mean_auc(dataset.labels[split], chances[split])
        aucs[split] = (mean, *interval(dataset, split, [chances[split]], int(seeds[0])))
    remarks = _disagreement(**aucs)
    if learnt_from(model, dataset):
        remarks.append("the source learnt from this target, which flatters its test AUC")
    return Tuned(
        tuned[0],
        dataset,
        pd.DataFrame([row for _, row in runs]),
        chances["test"],
        aucs["test"],
        _frozen(model, dataset, fold, device),
        tuple(remarks),
        record,
    )


def _best_run(
    model: SourceModel,
    dataset: Dataset,
    fold: Fold,
    protocol: str,
    *,
    seed: int,
    device: str,
    report: Report,
) -> tuple[Any, dict[str, Any]]:
    """Network and row of the learning rate with the lower validation loss."""
    plan, found = FINE_TUNING_PROTOCOLS[protocol], []
    for number, lr in enumerate(LEARNING_RATES):
        label = f"{model.name}: seed {seed}, learning rate {lr}, "
        settings = replace(plan.settings(dataset.name)[0], lr=lr)
        how: dict[str, Any] = {"seed": seed, "device": device}
        how["progress"] = part_of(report, number, len(LEARNING_RATES), label)
        found.append(fine_tune(model, dataset, fold, settings, plan, **how))
    network, row = min(found, key=lambda run: run.row.get("val_loss", np.inf))
    if row["status"] != "finished":
        rates = " and ".join(map(str, LEARNING_RATES))
        raise InputError(f"{model.name}: training diverged with the learning rates {rates}")
    kept = {name: row[name] for name in ("seed", "lr", "val_auc", "test_auc", "test_accuracy")}
    seconds = sum(run.row["seconds"] for run in found)
    return network, kept | {"epochs": row["epochs_run"], "seconds": seconds}


def _as_model(network: Any, model: SourceModel, dataset: Dataset, record: dict[str, Any]) -> SourceModel:
    """The fine-tuned network as a model that can be saved, loaded back, asked for predictions, and be a source."""
    backbone, _, head = network
    learnt = {*model.provenance.get("lineage", ()), *dataset.lineage}
    return replace(
        model,
        name=f"{model.name}, fine-tuned on {dataset.name}",
        backbone=backbone,
        head=head,
        pretraining=f"{model.pretraining}, then {dataset.name}",
        provenance={
            "origin": f"{model.name}, fine-tuned on {dataset.name}",
            "classes": list(dataset.classes),
            "input_size": dataset.size,
            "lineage": sorted(learnt),
            "data_hash": dataset.content_hash,
            "synthetic": dataset.synthetic,
            "run": json.loads(json.dumps(record, default=str)),
        },
    )


def resampled(dataset: Dataset, split: str, rng: np.random.Generator) -> np.ndarray:
    """Indices of a split drawn with replacement, whole patients where they are known."""
    patients = dataset.patients.get(split)
    if patients is None:
        size = len(dataset.labels[split])
        return rng.integers(size, size=size)
    names, whose = np.unique(patients, return_inverse=True)
    members = np.split(np.argsort(whose, kind="stable"), np.cumsum(np.bincount(whose))[:-1])
    return np.concatenate([members[one] for one in rng.integers(len(names), size=len(names))])


def mean_auc(labels: np.ndarray, chances: np.ndarray) -> float:
    """Mean over seeds of the macro AUC, from (seeds, n, classes)."""
    return float(np.mean([macro_auc(auc_per_class(labels, each)) for each in chances]))


def interval(dataset: Dataset, split: str, chances: Sequence[np.ndarray], seed: int) -> tuple[float, float]:
    """95 % percentile interval, over seeds and images, of an AUC or of the difference of two.

    `chances` are probabilities, (seeds, n, classes), of one model or of two on the images of the split.
    """
    rng, labels = np.random.default_rng(seed), dataset.labels[split]
    drawn = []
    for _ in range(RESAMPLES):
        index = resampled(dataset, split, rng)
        of_seeds = (each[rng.integers(len(each), size=len(each))] for each in chances)
        first, *second = (mean_auc(labels[index], each[:, index]) for each in of_seeds)
        drawn.append(first - sum(second))
    low, high = np.nanquantile(drawn, [0.025, 0.975])
    return float(low), float(high)


def _frozen(model: SourceModel, dataset: Dataset, fold: Fold, device: str) -> float:
    """Test AUC of a logistic regression on the source's features, fitted on the images that fine-tuning has."""
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    train = model.features(dataset.images["train"][fold.train], device=device)
    labels = dataset.labels["train"][fold.train]
    test = model.features(dataset.images["test"], device=device)
    # Standardised features are many and correlated: a hundredth of scikit-learn's default weight on the fit.
    probe = make_pipeline(StandardScaler(), LogisticRegression(C=0.01, max_iter=1000)).fit(train, labels)
    chances = np.zeros((len(test), dataset.n_classes))
    chances[:, probe.classes_] = probe.predict_proba(test)
    return macro_auc(auc_per_class(dataset.labels["test"], chances))


def _disagreement(val: tuple[float, float, float], test: tuple[float, float, float]) -> list[str]:
    """Say so where validation and test disagree by more than their intervals: the test set is a different one."""
    if val[1] <= test[2] and test[1] <= val[2]:
        return []
    return [
        f"validation AUC {val[0]:.3f} ({val[1]:.3f} to {val[2]:.3f}) and test AUC {test[0]:.3f} ({test[1]:.3f} to "
        f"{test[2]:.3f}) disagree by more than their intervals: the test images come from somewhere else, or images of "
        "validation resemble the training images; a ranking on the training images speaks of images like those"
    ]
