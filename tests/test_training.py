"""Training: augmentation, the loop, protocols; each against what it should be by hand."""

import warnings
from dataclasses import replace

import numpy as np
import pytest
import torch

from companion import datasets, models, store
from companion.errors import InputError
from companion.training import (
    FINE_TUNING_PROTOCOLS,
    PAPER,
    QUICK,
    RADIMAGENET,
    FineTuning,
    Settings,
    SourceProtocol,
    balanced_weights,
    fine_tune,
    loop,
    train_source,
)
from companion.training.augmentation import augmentation, augmented
from companion.training.metrics import auc_per_class, macro_auc
from companion.training.protocols import checked
from replicating import OF_THE_DAY

SMALL = "shufflenet_v2_x0_5"
TUNING = FineTuning(
    "tiny", epochs=3, patience=3, lr=(0.01,), batch_size=(16,), train_per_class=20, val_per_class=20
)
SETTINGS = Settings(lr=0.01, momentum=0.9, weight_decay=1e-4, batch_size=16)


def tuned(target, settings=SETTINGS, tuning=TUNING, seed=24, **options):
    few = {"train_per_class": tuning.train_per_class, "val_per_class": tuning.val_per_class}
    drawn = datasets.fold(target, 1, **few)
    return fine_tune(models.scratch(SMALL, seed=1), target, drawn, settings, tuning, seed=seed, **options)


def test_balanced_weights():
    single = balanced_weights(np.repeat([0, 1], [90, 10]))
    assert single[:90].sum() == pytest.approx(0.5) and single.sum() == pytest.approx(1)
    hot = np.zeros((100, 2), dtype=int)
    hot[:10, 0] = 1  # 10 of the first, none of the second, 90 without any
    assert balanced_weights(hot)[:10].sum() == pytest.approx(0.5)
    assert balanced_weights(np.array([[1, 0], [0, 0], [0, 0]])) == pytest.approx([0.5, 0.25, 0.25])


# --- augmentation and metrics --------------------------------------------------------------------------------
@pytest.mark.parametrize("kind", ["paper", "light", "none"])
def test_every_image_gets_an_augmentation_of_its_own(kind):
    torch.manual_seed(0)
    image = torch.rand(1, 1, 28, 28)
    out = augmented(kind, image.repeat(16, 1, 1, 1))
    assert out.shape == (16, 1, 28, 28) and out.min() >= 0 and out.max() <= 1
    distinct = {tuple(one.flatten().tolist()) for one in out}
    assert len(distinct) == (1 if kind == "none" else 16)


def test_the_paper_s_six_with_their_settings():
    wanted = {
        "RandomHorizontalFlip": ("p=0.5,",),
        "RandomResizedCrop": ("scale=(0.08, 1.0)", "resize_to=(0.75, 1.33", "p=1.0,"),
        "RandomRotation": ("degrees=(0.0, 5.0)", "p=1.0,"),
        "RandomSharpness": ("sharpness=(2.0, 2.0)", "p=0.5,"),
        "RandomAutoContrast": ("p=0.5,",),
        "RandomEqualize": ("p=0.5,",),
    }
    parts = list(augmentation("paper", 28))
    assert [type(part).__name__ for part in parts] == list(wanted)
    for part, settings in zip(parts, wanted.values(), strict=True):
        assert all(setting in str(part) for setting in settings), part
    assert "scale=(0.5, 1.0)" in str(augmentation("light", 28)[1])


def test_auc_by_hand():
    labels = np.array([0, 0, 1, 1])
    probabilities = np.array([[0.9, 0.1], [0.4, 0.6], [0.5, 0.5], [0.2, 0.8]])
    assert macro_auc(auc_per_class(labels, probabilities)) == 0.75  # three of the four pairs in order
    three = np.eye(4)[[0, 1, 2, 2]][:, :4]
    per_class = auc_per_class(np.array([0, 1, 2, 2]), three)
    assert per_class[:3].tolist() == [1, 1, 1] and np.isnan(per_class[3]) and macro_auc(per_class) == 1
    assert np.isnan(macro_auc(np.full(3, np.nan)))
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # no positives of the one class, no negatives of the other
        assert np.isnan(auc_per_class(np.array([1, 1]), three[:2, :2])).all()


# --- the loop ------------------------------------------------------------------------------------------------
def test_a_batch_is_what_the_model_prepares(target):
    images, labels = target.images["train"][:6], target.labels["train"][:6]
    data = loop.Resident(images, labels, models.IMAGENET_NORMALISATION, "cpu")
    batch, own = data.batch(torch.tensor([4, 1]))
    expected = models.to_batch(images[[4, 1]], models.IMAGENET_NORMALISATION)
    assert torch.allclose(batch, expected, atol=1e-6) and own.tolist() == labels[[4, 1]].tolist()


def recipe(**changes) -> SourceProtocol:
    given = {"name": "tiny", "epochs": 1, "batch_size": 32, "lr": 0.01, "weight_decay": 0.0}
    return SourceProtocol(**(given | {"augmentation": "none"} | changes))


@pytest.mark.parametrize(("count", "sizes"), [(64, [32, 32]), (70, [32, 32, 6]), (65, [32, 33]), (5, [5])])
def test_no_batch_of_one(count, sizes):
    found = list(loop.batches(count, recipe(), np.random.default_rng(0), None, "cpu"))
    assert [len(part) for part in found] == sizes
    assert sorted(torch.cat(found).tolist()) == list(range(count))


def tiny_data(count: int = 5) -> loop.Resident:
    images = np.arange(count * 4, dtype=np.uint8).reshape(count, 2, 2) * 7
    return loop.Resident(images, np.arange(count) % 2, ((0.5,) * 3,) * 2, "cpu")


def tiny_network() -> torch.nn.Module:
    torch.manual_seed(0)
    return torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(12, 2))


@pytest.mark.parametrize("nesterov", [True, False])
def test_three_steps_with_momentum_and_weight_decay_by_hand(nesterov):
    data, network = tiny_data(4), tiny_network()
    weight, bias = (value.detach().clone() for value in network.parameters())
    images, labels = data.batch(torch.arange(4))
    pixels, speeds = images.flatten(1), [torch.zeros(2, 12), torch.zeros(2)]
    for rate in (0.1, 0.075, 0.025):  # half a cosine over three epochs
        wrong = (pixels @ weight.T + bias).softmax(1) - torch.eye(2)[labels]
        slopes = [wrong.T @ pixels / 4 + 0.5 * weight, wrong.mean(0) + 0.5 * bias]
        speeds = [0.9 * speed + slope for speed, slope in zip(speeds, slopes, strict=True)]
        ahead = [slope + 0.9 * speed for speed, slope in zip(speeds, slopes, strict=True)]
        if not nesterov:
            ahead = speeds
        weight, bias = weight - rate * ahead[0], bias - rate * ahead[1]
    loop.fit(network, data, None, recipe(epochs=3, lr=0.1, weight_decay=0.5, nesterov=nesterov), seed=0)
    assert torch.allclose(network[1].weight, weight, atol=1e-5)
    assert torch.allclose(network[1].bias, bias, atol=1e-5)


def test_bce_is_over_all_columns():
    data = tiny_data(4)
    data.labels = torch.eye(2, dtype=torch.long)[data.labels]
    network = tiny_network()
    logits = network(data.batch(torch.arange(4))[0]).detach()
    own = torch.nn.functional.binary_cross_entropy_with_logits(logits, data.labels.float())
    done = loop.fit(network, data, None, recipe(), seed=0)
    assert done.curve[0]["train_loss"] == pytest.approx(float(own), rel=1e-6)


@pytest.mark.filterwarnings("ignore:Detected call of")
def test_an_epoch_s_loss_is_the_mean_over_images(monkeypatch):
    monkeypatch.setattr(loop, "step", lambda _network, _train, index, *_rest: torch.tensor(float(len(index))))
    done = loop.fit(tiny_network(), tiny_data(5), None, recipe(batch_size=3), seed=0)
    assert done.curve[0]["train_loss"] == pytest.approx((3 * 3 + 2 * 2) / 5)


@pytest.mark.parametrize(
    ("watch", "values"), [("auc", [0.6, 0.8, 0.8, 0.7, 0.8]), ("loss", [3.0, 1.0, 1.0, 2.0, 1.0])]
)
def test_the_first_of_the_best_epochs_is_kept_and_patience_ends_training(monkeypatch, watch, values):
    left, seen = iter(values), []

    def measured(network, _data):
        seen.append(network[1].weight.detach().clone())
        return {"loss": 1.0, "auc": 0.5, watch: next(left)}

    monkeypatch.setattr(loop, "evaluate", measured)
    network, asked = tiny_network(), recipe(epochs=9, patience=3)
    done = loop.fit(network, tiny_data(), tiny_data(), asked, seed=0, watch=watch)
    assert (done.status, done.best_epoch, len(done.curve)) == ("finished", 1, 5)
    assert torch.equal(network[1].weight, seen[1]) and not torch.equal(seen[1], seen[4])


def test_drawn_images_follow_their_weights_and_an_epoch_has_as_many_as_asked_for():
    chances = np.array([0.0, 0.5, 0.5])
    parts = loop.batches(3, recipe(images_per_epoch=70), np.random.default_rng(0), chances, "cpu")
    drawn = torch.cat(list(parts))
    assert len(drawn) == 70 and set(drawn.tolist()) == {1, 2}


def test_an_evaluation_by_hand():
    network = tiny_network()
    with torch.no_grad():
        network[1].weight.zero_()[0, 0] = -1.0  # only the lead of one output over the other says anything
        network[1].bias.copy_(torch.tensor([0.0, 0.5]))
    data = tiny_data()
    data.labels = torch.tensor([0, 1, 0, 1, 1])
    # The lead of class 1: -.5, -.28, -.06, .16, .38; four are right.
    lead = np.arange(5) * 28 / 255 * 2 - 0.5
    loss = np.log1p(np.exp(np.where(data.labels.numpy(), -lead, lead))).mean()
    for size in (2, 256):
        found = loop.evaluate(network, data, size)
        assert (found["accuracy"], found["auc"]) == (pytest.approx(0.8), pytest.approx(5 / 6))
        assert found["loss"] == pytest.approx(loss, rel=1e-5)


@pytest.mark.filterwarnings("ignore:Detected call of")
def test_the_seed_decides_the_order_of_images_and_torch_s_random_numbers(monkeypatch):
    def work(_network, _train, index, *_rest):
        seen.extend((str(index.tolist()), torch.rand(1).item()))
        return torch.tensor(0.0)

    monkeypatch.setattr(loop, "step", work)
    found = []
    for seed in (3, 3, 4):
        seen: list = []
        loop.fit(tiny_network(), tiny_data(40), None, recipe(epochs=2, batch_size=20), seed=seed)
        found.append(seen)
    assert found[0] == found[1] and not set(found[0]) & set(found[2])


@pytest.fixture
def asked(monkeypatch):
    """Keep what the loop is asked to do, instead of doing it."""
    seen = {}

    def fit(network, train, val, recipe, **options):
        seen.update(options, network=network, train=train, val=val, recipe=recipe)
        return loop.Fit([{"train_loss": 1.0}], 0, "finished", 1.0)

    for module in ("source", "fine_tuning"):
        monkeypatch.setattr(f"companion.training.{module}.fit", fit)
    return seen


def test_what_fine_tuning_asks_of_the_loop(target, asked):
    settings = Settings(lr=0.03, momentum=0.8, weight_decay=1e-3, batch_size=7)
    tuning = replace(TUNING, epochs=9, patience=4, dropout=0.3)
    tuned(target, settings, tuning, seed=3)
    wanted = {"lr": 0.03, "momentum": 0.8, "weight_decay": 1e-3, "batch_size": 7, "epochs": 9, "patience": 4}
    wanted |= {"augmentation": "paper", "schedule": "cosine", "nesterov": True}
    assert asked["recipe"] == recipe(**wanted) and asked["seed"] == 3
    assert "watch" not in asked and "weights" not in asked
    assert asked["network"][1].p == 0.3 and len(asked["val"]) == 40
    first = asked["network"][2].weight
    source = models.scratch(SMALL, seed=1)
    fine_tune(source, target, datasets.fold(target), settings, tuning, seed=3, progress=print)
    assert asked["network"][0] is not source.backbone and asked["report"] is print
    torch.manual_seed(99)
    tuned(target, settings, tuning, seed=3)
    assert torch.equal(asked["network"][2].weight, first)
    tuned(target, settings, tuning, seed=4)
    assert not torch.equal(asked["network"][2].weight, first)


def test_what_source_training_asks_of_the_loop(asked):
    cells = datasets.load_dataset("procedural:cells")
    own = {"lr": 0.07, "momentum": 0.8, "weight_decay": 0.01, "epochs": 3, "images_per_epoch": 11}
    protocol = replace(PAPER, **own)
    train_source(cells, protocol, architecture=SMALL, seed=5)
    assert asked["recipe"] == protocol and not protocol.nesterov  # plain momentum, unlike fine-tuning
    assert asked["seed"] == 5 and asked["watch"] == "loss"
    assert np.array_equal(asked["weights"], balanced_weights(cells.labels["train"]))
    start = models.build(SMALL, classes=3, seed=5).state_dict()["conv1.0.weight"]
    assert torch.equal(asked["network"].state_dict()["conv1.0.weight"], start)
    assert len(asked["train"]) == len(cells.labels["train"]) and len(asked["val"]) == len(cells.labels["val"])
    several = replace(protocol, loss="bce", images_per_epoch=None, patience=None)
    train_source(cells, several, architecture=SMALL)
    assert asked["val"] is None
    assert torch.equal(asked["train"].labels, torch.eye(3, dtype=torch.long)[cells.labels["train"]])


def test_the_memory_layout_changes_nothing_but_time_and_rounding():
    images = np.random.default_rng(0).integers(0, 256, (32, 28, 28), dtype=np.uint8)
    data = loop.Resident(images, np.arange(32) % 2, ((0.5,) * 3,) * 2, "cpu")
    found = []
    for layout in (torch.contiguous_format, torch.channels_last):
        data.layout = layout
        network = models.build("resnet18", classes=2, seed=0)
        loop.fit(network, data, None, recipe(augmentation="paper", lr=1e-3), seed=0)
        found.append(torch.cat([value.detach().flatten() for value in network.parameters()]))
    start = models.build("resnet18", classes=2, seed=0).parameters()
    change = found[0] - torch.cat([value.detach().flatten() for value in start])
    # Rounding can turn a unit on or off, which is .02 of the change here; exchanged axes would be of its own size.
    assert (found[0] - found[1]).norm() < 0.1 * change.norm()


def test_the_best_epoch_of_mnasnet_is_kept_though_its_parts_have_versions(target):
    few = target.images["train"][:16], target.labels["train"][:16]
    data = loop.Resident(*few, models.PLAIN_NORMALISATION, "cpu")
    network = models.build("mnasnet0_5", classes=target.n_classes, seed=0)
    with torch.random.fork_rng():
        done = loop.fit(network, data, data, recipe(epochs=2, patience=2), seed=0)
    assert done.status == "finished" and len(done.curve) == 2


def test_schedules_and_modes():
    network, modes = tiny_network(), []
    network.register_forward_hook(lambda module, *_: modes.append(module.training))
    loop.fit(network.eval(), tiny_data(), tiny_data(), recipe(epochs=2), seed=0)
    assert modes == [True, False] * 2  # trained in the one, evaluated in the other

    def rates(**changes):
        done = loop.fit(tiny_network(), tiny_data(), None, recipe(lr=1.0, **changes), seed=0)
        return [row["lr"] for row in done.curve]

    assert rates(epochs=4) == pytest.approx([(1 + np.cos(np.pi * k / 4)) / 2 for k in range(4)])
    assert rates(epochs=4, schedule="step", step_epochs=2) == pytest.approx([1, 1, 0.1, 0.1])


def test_fine_tuning_is_repeatable_and_leaves_the_source_and_the_random_state(target):
    state = torch.get_rng_state()
    first, again, other = tuned(target), tuned(target), tuned(target, seed=25)
    assert torch.equal(state, torch.get_rng_state())
    runs = (first, again, other)
    timeless = [{k: v for k, v in run.row.items() if k not in OF_THE_DAY} for run in runs]
    assert repr(timeless[0]) == repr(timeless[1]) != repr(timeless[2])
    row = first.row
    assert 0 <= row["test_auc"] <= 1 and len(row["curve_val_auc"]) == row["epochs_run"] == 3
    assert row["test_auc_per_class"][1] == row["test_auc"]
    assert row["val_auc"] == max(row["curve_val_auc"])
    assert row["best_epoch"] == 1 + np.argmax(row["curve_val_auc"])
    test = loop.Resident(target.images["test"], target.labels["test"], models.PLAIN_NORMALISATION, "cpu")
    found = loop.evaluate(first.network, test)  # the row is of the network that comes back
    for name in ("auc", "accuracy", "loss"):
        assert found[name] == pytest.approx(row[f"test_{name}"], abs=1e-4)


def test_a_diverged_run_is_a_row_without_results_and_a_diverged_source_is_refused(target):
    row = tuned(target, replace(SETTINGS, lr=1e12)).row
    assert row["status"] == "diverged" and "test_auc" not in row and row["epochs_run"] < 3
    cells = datasets.load_dataset("procedural:cells")
    with pytest.raises(InputError, match="diverged in epoch 1: use a learning rate below"):
        train_source(cells, SourceProtocol("t", 2, 128, lr=1e12), architecture=SMALL)
    with pytest.raises(InputError, match="several labels an image: use bce"):
        train_source(datasets.pool([cells, target]), replace(QUICK, loss="cross-entropy"), architecture=SMALL)


# --- protocols -----------------------------------------------------------------------------------------------
def test_the_paper_s_protocols():
    paper = FINE_TUNING_PROTOCOLS["paper"]
    assert all(len(paper.settings(flag)) == 120 for flag in datasets.medmnist_flags(single_label=True))
    assert {s.batch_size for s in paper.settings("breastmnist")} == {32, 64}
    assert {s.batch_size for s in paper.settings("retinamnist")} == {64, 128}
    assert (paper.epochs, paper.patience, paper.dropout, paper.folds) == (200, 50, 0.5, (1,))
    assert (paper.train_per_class, paper.val_per_class, paper.fold_seed, paper.seeds) == (100, 25, 24, (24,))
    assert paper.lr == (1e-5, 1e-4, 1e-3, 1e-2, 1e-1, 1.0) and paper.momentum == (0.0, 0.9)
    assert paper.weight_decay == (0.0, 1e-6, 1e-5, 1e-4, 1e-3) and paper.augmentation == "paper"
    for protocol, batch_size, patience in ((PAPER, 128, 20), (RADIMAGENET, 256, 10)):
        assert (protocol.batch_size, protocol.patience, protocol.epochs) == (batch_size, patience, 45)
        assert (protocol.momentum, protocol.weight_decay, protocol.lr) == (0.9, 1e-4, 0.1)
        assert (protocol.schedule, protocol.step_epochs, protocol.augmentation) == ("step", 15, "paper")
        assert protocol.images_per_epoch is None and not protocol.nesterov


@pytest.mark.real
def test_the_paper_s_grid_is_that_of_the_released_runs(real_data):
    import pandas as pd

    path = store.look_up("fine_tuning_runs.parquet")
    if path is None:
        pytest.skip("fine_tuning_runs.parquet is not in COMPANION_DATA")
    runs = pd.read_parquet(path).query("setting == 'source_datasets'")
    paper = FINE_TUNING_PROTOCOLS["paper"]
    for flag, block in runs.groupby("target", observed=True):
        points = block[["lr", "momentum", "weight_decay", "batch_size"]].drop_duplicates()
        found = {Settings(*map(float, p[:3]), int(p[3])) for p in points.to_numpy()}
        assert found == set(paper.settings(flag))
    assert set(runs["epochs"]) == {paper.epochs}


GIVEN = {"name": "x", "epochs": 2, "patience": 2, "lr": 0.1, "batch_size": 32}


@pytest.mark.parametrize(
    ("changed", "says"),
    [
        ({"epochs": 0}, r"epochs is 0: input should be greater than 0"),
        ({"lr": "fast"}, r"lr.* is 'fast'"),
        ({"lr": [0.1, -1]}, r"lr.* is -1"),
        ({"momentum": 1.0}, r"momentum.* is 1.0"),
        ({"augmentation": "mine"}, r"augmentation is 'mine'"),
        ({"folds": []}, r"folds is \[\]"),
    ],
)
def test_impossible_protocols_are_refused_in_one_line(changed, says):
    with pytest.raises(InputError, match=says) as error:
        checked(FineTuning, GIVEN | changed, "mine.yaml")
    assert "\n" not in str(error.value) and str(error.value).startswith("mine.yaml: ")


def test_batch_sizes_by_target():
    tuning = checked(FineTuning, GIVEN | {"batch_size": {"breastmnist": 16}}, "mine.yaml")
    assert [s.batch_size for s in tuning.settings("breastmnist")] == [16]
    with pytest.raises(InputError, match="gives no batch_size for retinamnist"):
        tuning.settings("retinamnist")
