"""Fine-tuning one source: what is kept, what it is worth, and that it comes back."""

import json
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import torch

import companion
from companion import models, tuning
from companion.errors import EnvironmentFailure, InputError
from companion.training.metrics import auc_per_class, macro_auc

SMALL = "shufflenet_v2_x0_5"


@pytest.fixture(scope="module")
def tuned(target) -> tuning.Tuned:
    def trained(source, *, progress, **_options):
        progress(1.0, "epoch 8 of 8")
        return source

    steps: list[float] = []
    how = {"seeds": (1, 2), "device": "cpu", "progress": lambda fraction, _: steps.append(fraction)}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(tuning, "load_source", trained)
        source = replace(models.scratch(SMALL, seed=1), pretraining=target.name)
        found = companion.tune(source, target, **how)
    assert steps == sorted(steps) and steps[-1] == 1
    return found


def test_every_seed_has_the_run_with_the_lower_validation_loss(tuned, target):
    assert list(tuned.runs["seed"]) == [1, 2] and set(tuned.runs["lr"]) <= set(tuning.LEARNING_RATES)
    assert tuned.probabilities.shape == (2, 300, 2)
    aucs = [macro_auc(auc_per_class(target.labels["test"], each)) for each in tuned.probabilities]
    assert list(tuned.runs["test_auc"]) == pytest.approx(aucs, abs=1e-6)
    value, low, high = tuned.test_auc
    assert value == pytest.approx(np.mean(aucs)) and low < value < high and 0 <= tuned.frozen_auc <= 1
    assert f"test AUC {value:.3f}, 95 % interval {low:.3f} to {high:.3f} over 2 seeds and" in tuned.summary


def test_the_tables_count_the_predictions(tuned, target):
    truth, chances = target.labels["test"], tuned.probabilities[0]
    right = chances.argmax(1) == truth
    assert np.trace(tuned.confusion) == right.sum() and tuned.confusion.sum(axis=None) == len(truth)
    assert list(tuned.confusion.sum(axis=1)) == list(tuned.per_class["images"]) == list(np.bincount(truth))
    recall = [right[truth == label].mean() for label in (0, 1)]
    assert list(tuned.per_class["sensitivity"]) == pytest.approx(recall)
    bins = tuned.calibration
    assert bins["images"].sum() == len(truth)
    assert (bins["accuracy"] * bins["images"]).sum() == pytest.approx(right.sum())
    assert list(tuned.predictions["truth"]) == [target.classes[label] for label in truth]
    files = [f"{number}.png" for number in range(300)]
    named = replace(tuned, dataset=replace(target, names={"test": files}, notes=("patients unknown",)))
    assert list(named.predictions.index) == files and list(tuned.predictions.index) == list(range(300))
    assert (
        any("learnt from this target" in line for line in tuned.notes) and "patients unknown" in named.notes
    )


def test_all_results_are_written_or_none(tuned, tmp_path, full_disk):
    full_disk("tuning.html")
    with pytest.raises(EnvironmentFailure, match="No space left"):
        tuned.save(tmp_path / "out")
    assert not list((tmp_path / "out").iterdir())


def test_a_saved_model_comes_back_with_its_predictions(tuned, target, tmp_path):
    written = tuned.save(tmp_path / "out")
    assert sorted(path.name for path in written) == sorted(tuning.FILES)
    model = companion.load_source(written[0])
    assert model.provenance["classes"] == list(target.classes) and model.provenance["input_size"] == 28
    found = model.predict(target.images["test"], device="cpu")
    np.testing.assert_allclose(found, tuned.probabilities[0], atol=1e-6)
    table = pd.read_csv(tmp_path / "out" / "predictions.csv")
    np.testing.assert_allclose(table.iloc[:, 3:], found, atol=1e-6)
    assert json.loads((tmp_path / "out" / "tuning.json").read_text())["test_auc"]["mean"] == tuned.test_auc[0]
    assert "Synthetic images" in (tmp_path / "out" / "tuning.html").read_text()
    # It has seen the target, so a ranking for that target leaves it out.
    assert set(target.lineage) <= set(model.provenance["lineage"])
    with pytest.raises(InputError, match="holds model.safetensors already"):
        tuned.save(tmp_path / "out")


def test_a_test_set_that_is_different_is_reported():
    (line,) = tuning._disagreement(val=(0.88, 0.84, 0.91), test=(0.57, 0.5, 0.63))
    assert "0.880 (0.840 to 0.910) and test AUC 0.570 (0.500 to 0.630) disagree" in line
    assert tuning._disagreement(val=(0.88, 0.84, 0.91), test=(0.8, 0.7, 0.85)) == []


def test_patients_are_resampled_whole(target):
    patients = np.repeat([f"p{number}" for number in range(100)], 3)
    known = replace(target, patients={"test": patients})
    drawn = patients[tuning.resampled(known, "test", np.random.default_rng(0))]
    counts = np.unique(drawn, return_counts=True)[1]
    assert len(drawn) == 300 and (counts % 3 == 0).all() and counts.max() > 3


def test_what_cannot_be_fine_tuned_is_refused(target):
    source = models.scratch(SMALL)
    with pytest.raises(InputError, match="protocol 'best' is none of quick"):
        companion.tune(source, target, protocol="best")
    train = {name: {"train": getattr(target, name)["train"]} for name in ("images", "labels")}
    with pytest.raises(InputError, match="no val images"):
        companion.tune(source, replace(target, **train))
    broken = models.scratch(SMALL)
    with torch.no_grad():
        next(broken.backbone.parameters()).fill_(torch.nan)
    with pytest.raises(InputError, match=r"training diverged with the learning rates 0\.001 and 0\.01"):
        companion.tune(broken, target, device="cpu")


def test_the_command_keeps_what_it_reports(command, tmp_path, target):
    source = ("-s", "scratch", "--architecture", SMALL)
    options = ("--out", tmp_path / "out", "--device", "cpu", "--json")
    code, out, _ = command("tune", "procedural:lesions", *source, *options)
    assert code == 0
    document = json.loads(out)
    table = pd.read_csv(tmp_path / "out" / "predictions.csv")
    auc = macro_auc(auc_per_class(target.labels["test"], table.iloc[:, 3:].to_numpy()))
    assert document["test_auc"]["mean"] == pytest.approx(auc) and document["runs"][0]["seed"] == 24
    assert companion.load_source(tmp_path / "out" / "model.safetensors").architecture == SMALL
