"""The gradient term, and the one pass, against the work as released and at its edges."""

import copy
import functools

import numpy as np
import pytest
import torch
from pytorch_metric_learning.losses import TripletMarginLoss
from torch import nn

from companion import datasets, models, scores
from companion.errors import InputError
from companion.replication.planning import seconds_per_image
from companion.scores import forward_pass, gradient_ratio
from companion.scores.forward_pass import count_triplets, single_pass, triplet_loss
from companion.training import SourceProtocol, train_source
from companion.training.fine_tuning import with_head

SMALL = "shufflenet_v2_x0_5"


def make_images(n: int, size: int = 64, *, classes: int = 3, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Noise whose brightness depends on the class, shuffled."""
    rng = np.random.default_rng(seed)
    labels = rng.permutation(np.arange(n) % classes)
    images = rng.integers(0, 200, (n, size, size, 3)) + 20 * labels[:, None, None, None]
    return images.astype(np.uint8), labels


def plain() -> nn.Sequential:
    """Two convolutions without batch norm, and ReLU in place right after each."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        layers = [nn.Conv2d(3, 8, 3), nn.ReLU(True), nn.Conv2d(8, 16, 3), nn.ReLU(True)]
        return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Linear(64, 5))


@functools.cache
def _network(architecture: str) -> models.SourceModel:
    """Return a network whose batch norms fit its layers, as training would have made them.

    With the statistics of a fresh network the signal dies out on its way through a deep one, and the
    gradients are rounding errors.
    """
    network = plain() if architecture == "plain" else models.build(architecture, classes=5, seed=0)
    norms = [module for module in network.modules() if isinstance(module, nn.BatchNorm2d)]
    generator = torch.Generator().manual_seed(1)
    for norm in norms:
        norm.momentum = None  # the plain mean over all batches seen
        norm.reset_running_stats()
        with torch.no_grad():
            norm.weight.uniform_(0.8, 1.2, generator=generator)
            norm.bias.uniform_(-0.1, 0.1, generator=generator)
    head = models.split_head(network)
    model = models.SourceModel(architecture, network, head, architecture, "nothing")
    if norms:
        with torch.no_grad():
            network.train()(model.prepare(make_images(48, seed=9)[0]))
    network.eval()
    return model


def as_released(model: models.SourceModel, images: np.ndarray, labels: np.ndarray):
    """Two passes, as in the released code: features in batches of 32, gradients in batches of n // 6."""
    backbone = copy.deepcopy(model.backbone).eval()
    backbone.requires_grad_(True)
    n, batch = len(labels), len(labels) // 6
    features = [
        backbone(model.prepare(images[start : start + 32])).flatten(1).detach().numpy()
        for start in range(0, n, 32)
    ]
    criterion = TripletMarginLoss(margin=0.05)
    norms, layers = [], [backbone.get_submodule(name) for name in (model.first_conv, model.second_conv)]
    for start in range(0, n, batch):
        backbone.zero_grad()
        part = slice(start, start + batch)
        criterion(backbone(model.prepare(images[part])).flatten(1), torch.from_numpy(labels[part])).backward()
        norms.append([float(layer.weight.grad.norm()) for layer in layers])
    return np.concatenate(features), np.array(norms)


# --- the loss ----------------------------------------------------------------------------------------------
@pytest.mark.parametrize("classes", [2, 5])
@pytest.mark.parametrize("duplicates", [False, True])
@pytest.mark.parametrize("seed", range(2))
def test_the_loss_and_its_gradient_are_those_of_the_released_loss(classes, duplicates, seed):
    generator = torch.Generator().manual_seed(seed)
    rows = torch.randn(24, 16, generator=generator, dtype=torch.float64)
    if duplicates:
        rows[1::4] = rows[0::4]
    labels = torch.randint(classes, (24,), generator=generator)
    ours, theirs = rows.clone().requires_grad_(), rows.clone().requires_grad_()
    loss, expected = triplet_loss(ours, labels), TripletMarginLoss(margin=0.05)(theirs, labels)
    loss.backward()
    expected.backward()
    assert loss.item() == pytest.approx(expected.item(), rel=1e-9)
    # Between equal rows the distance has no derivative; both take zero, to within the other's stabiliser.
    assert torch.allclose(ours.grad, theirs.grad, rtol=1e-6, atol=1e-9)
    assert torch.isfinite(ours.grad).all()


def test_triplets_are_counted_and_without_any_loss_and_gradient_are_zero():
    # anchors and positives of class 0: 3 x 2, each with 3 negatives; of class 1: 2 x 1, each with 4
    assert count_triplets(np.array([0, 0, 0, 1, 1, 2])) == 3 * 2 * 3 + 2 * 1 * 4
    for labels in ([0, 0, 0, 0], [0, 1, 2, 3]):
        rows = torch.randn(4, 3, generator=torch.Generator().manual_seed(0)).requires_grad_()
        loss = triplet_loss(rows, torch.tensor(labels))
        loss.backward()
        assert loss.item() == 0 and (rows.grad == 0).all() and count_triplets(np.array(labels)) == 0


# --- one pass against two ----------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("architecture", "size", "n"),
    [
        ("resnet18", 28, 40),  # maps smaller than the kernels
        ("resnet18", 64, 40),  # a last, shorter batch
        ("plain", 64, 36),
        ("densenet121", 64, 36),
        ("mobilenet_v3_small", 64, 42),
    ],
)
def test_one_pass_gives_what_two_gave(architecture, size, n):
    model = _network(architecture)
    images, labels = make_images(n, size)
    features, norms = as_released(model, images, labels)
    done = single_pass(model, images, labels)
    assert np.abs(done.features - features).max() <= 1e-4 * np.abs(features).max()
    # A triplet within rounding of the margin counts in one and not in the other, which moves its batch.
    apart = np.abs(done.norms - norms).max(axis=1)
    assert np.median(apart) < 1e-4 * norms.max()
    expected = norms[:, 1].mean() / norms[:, 0].mean()
    assert done.ratio("published") == pytest.approx(expected, rel=1e-3)
    assert done.features.dtype == np.float32
    with torch.no_grad():
        assert np.allclose(done.logits, model.head(torch.from_numpy(features)), atol=1e-3)


def test_the_model_is_left_as_it_is():
    known = _network(SMALL)
    model = models.SourceModel("x", copy.deepcopy(known.backbone).train(), known.head, SMALL, "nothing")
    model.backbone.get_submodule(model.first_conv).weight.requires_grad_(False)
    before = copy.deepcopy(model.backbone)
    images, labels = make_images(24)
    kept = images.copy()
    single_pass(model, images, labels)
    after = model.backbone.state_dict()
    assert all(torch.equal(value, after[key]) for key, value in before.state_dict().items())
    for mine, old in zip(model.backbone.parameters(), before.parameters(), strict=True):
        assert mine.requires_grad == old.requires_grad and mine.grad is None
    assert all(module.training for module in model.backbone.modules())
    assert (images == kept).all()


def test_a_batch_too_large_for_the_memory_goes_through_in_pieces(monkeypatch):
    model = _network("resnet18")
    images, labels = make_images(45, 32)  # batches of 7, and 3 images left over
    whole = single_pass(model, images, labels)
    seen: list[int] = []
    convolution = model.backbone.get_submodule(model.first_conv)
    watch = convolution.register_forward_pre_hook(lambda _module, inputs: seen.append(len(inputs[0])))
    monkeypatch.setattr(forward_pass, "PIECE_PIXELS", 3 * 32**2)
    try:
        pieces = single_pass(model, images, labels)
    finally:
        watch.remove()
    assert max(seen) == 3 and sum(seen) == 2 * 42 + 3  # the last batch fits
    assert (pieces.triplets == whole.triplets).all()
    for name in ("features", "norms", "scaled_norms", "logits"):
        np.testing.assert_allclose(getattr(pieces, name), getattr(whole, name), rtol=1e-3, atol=1e-5)


# --- the ratio ---------------------------------------------------------------------------------------------
def test_a_batch_without_triplets_does_not_change_the_ratio_and_none_at_all_is_an_error():
    images, labels = make_images(36)
    with pytest.raises(ValueError, match="no batch holds a triplet"):
        gradient_ratio(_network(SMALL), images, np.sort(labels))
    with pytest.raises(ValueError, match="no batch holds a triplet.*12 images make batches of 2"):
        gradient_ratio(_network(SMALL), images[:12], labels[:12])
    labels[:6] = 0
    done = single_pass(_network(SMALL), images, labels)
    assert done.triplets[0] == 0 and (done.norms[0] == 0).all()
    assert (done.triplets[1:] > 0).all()
    assert done.ratio("published") == pytest.approx(done.ratio("corrected"), rel=1e-12)


def test_a_batch_with_triplets_but_no_active_one_has_gradients_of_zero():
    """Classes further apart than the margin: a real case after training, and no division by zero."""
    network = nn.Sequential(nn.Conv2d(3, 2, 1), nn.Conv2d(2, 2, 1), nn.AdaptiveAvgPool2d(1), nn.Flatten())
    with torch.no_grad():
        network[0].weight.copy_(torch.tensor([[1.0, 0, 0], [0, 1, 0]])[:, :, None, None])
        network[1].weight.copy_(torch.eye(2)[:, :, None, None])
        network[0].bias.zero_(), network[1].bias.zero_()
    labels = np.arange(36) % 2
    images = np.full((36, 8, 8, 3), 128, np.uint8)
    images[labels == 0, ..., 0], images[labels == 1, ..., 1] = 255, 255
    images[:6, ..., :2] = np.random.default_rng(0).integers(0, 255, (6, 8, 8, 2))
    model = models.SourceModel("apart", network, None, "two layers", "nothing")
    done = single_pass(model, images, labels, device="cpu")
    assert (done.triplets > 0).all() and done.norms[0, 0] > 0 and (done.norms[1:] == 0).all()
    assert done.ratio() == pytest.approx(done.norms[0, 1] / done.norms[0, 0])
    for variant in ("published", "corrected", "scale_invariant"):
        with pytest.raises(ValueError, match="no triplet is active"):
            gradient_ratio(model, images[6:], labels[6:], variant=variant, device="cpu")


def test_a_plain_network_and_string_labels_will_do():
    network = models.build(SMALL, classes=5, seed=4)
    images, labels = make_images(36)
    plain = scores.gradient_ratio(network, images, np.array(["a", "b", "c"])[labels])
    assert isinstance(network.fc, nn.Linear)  # its head is still on
    own = models.SourceModel("x", copy.deepcopy(network), None, SMALL, "y")
    models.split_head(own.backbone)
    assert plain == pytest.approx(gradient_ratio(own, images, labels), rel=1e-6)
    assert single_pass(own, images, labels).logits is None


def test_a_network_without_two_convolutions_has_features_but_no_ratio(monkeypatch):
    network = nn.Sequential(nn.Flatten(), nn.LazyLinear(8))
    network(torch.zeros(1, 3, 28, 28))
    model = models.SourceModel("flat", network, None, "flat", "nothing")
    images, labels = make_images(24, 28)
    done = single_pass(model, images, labels)
    assert done.features.shape == (24, 8) and done.norms.shape[1] == 0
    monkeypatch.setattr(forward_pass, "PIECE_PIXELS", 1)
    assert np.allclose(single_pass(model, images, labels).features, done.features, atol=1e-6)
    with pytest.raises(ValueError, match="no two convolutions"):
        gradient_ratio(model, images, labels)


# --- the same function, written in another way ---------------------------------------------------------------
def rescaled(model: models.SourceModel, factor: float) -> models.SourceModel:
    """The first convolution's weights multiplied, and its batch norm (or the second convolution) undoing that."""
    network = copy.deepcopy(model.backbone)
    first, second = (network.get_submodule(name) for name in (model.first_conv, model.second_conv))
    with torch.no_grad():
        first.weight *= factor
        norms = [part for part in network.modules() if isinstance(part, nn.BatchNorm2d)]
        if norms:
            norms[0].running_mean *= factor
            norms[0].running_var.add_(norms[0].eps).mul_(factor**2).sub_(norms[0].eps)
        else:
            first.bias *= factor
            second.weight /= factor
    return models.SourceModel("rescaled", network, None, model.architecture, "nothing")


def half_deviation(model: models.SourceModel) -> models.SourceModel:
    """Inputs twice as large, and weights half as large."""
    halved = rescaled(model, 1.0)
    mean, deviation = model.normalisation
    with torch.no_grad():
        halved.backbone.get_submodule(model.first_conv).weight /= 2
    halved.normalisation = mean, tuple(part / 2 for part in deviation)
    return halved


@pytest.mark.parametrize(
    ("architecture", "rewritten", "factor"),
    [
        ("resnet18", functools.partial(rescaled, factor=0.1), 0.1),
        ("resnet18", functools.partial(rescaled, factor=10.0), 10.0),
        ("mobilenet_v2", functools.partial(rescaled, factor=2.0), 2.0),
        ("resnet18", half_deviation, 0.5),
        ("resnet18", models.folded, None),
        ("plain", functools.partial(rescaled, factor=3.0), 9.0),
    ],
)
def test_only_the_scale_invariant_ratio_is_that_of_the_function(architecture, rewritten, factor):
    known = _network(architecture)
    model = models.SourceModel("as is", copy.deepcopy(known.backbone).double(), None, architecture, "nothing")
    images, labels = make_images(36, 32)
    before, after = (_in_double(each, images, labels) for each in (model, rewritten(model)))
    assert np.allclose(after.features, before.features, rtol=1e-4, atol=1e-6)
    assert after.ratio("scale_invariant") == pytest.approx(before.ratio("scale_invariant"), rel=1e-5)
    changed = after.ratio() / before.ratio()
    assert changed == pytest.approx(factor, rel=1e-4) if factor else abs(changed - 1) > 0.05


def _in_double(model, images, labels):
    """Pass in double precision: a triplet within rounding of the margin must not decide."""
    model.prepare = lambda images, device="cpu": models.to_batch(images, model.normalisation, device).double()
    return single_pass(model, images, labels, device="cpu")


def test_the_scale_invariant_ratio_by_hand():
    weight, gradient = torch.tensor([[3.0, 4.0], [0.0, 2.0]]), torch.tensor([[1.0, 0.0], [0.0, 0.5]])
    plain, scaled = forward_pass._norms(weight, gradient)
    assert plain == pytest.approx(1.25**0.5) and scaled == pytest.approx((5.0**2 + 1.0**2) ** 0.5)


# --- what cannot be done -----------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("architecture", "size"), [("densenet121", 28), ("inception_v3", 64), ("vit_b_32", 64), ("maxvit_t", 28)]
)
def test_a_size_that_a_network_cannot_take_is_told_before_it_is_trained(architecture, size):
    target = datasets.load_dataset("procedural:cells", size=size)
    says = f"{architecture} cannot take images of {size} px: load the data at a larger"
    with pytest.raises(InputError, match=says):
        train_source(target, SourceProtocol("tiny", 1, 64), architecture=architecture)
    with pytest.raises(InputError, match=says):
        with_head(models.scratch(architecture), target, 0.5)
    with pytest.raises(InputError, match=says):
        seconds_per_image(architecture, size, "cpu")


def test_what_a_pass_refuses():
    images, labels = make_images(24, 28)
    network = nn.Sequential(nn.Conv2d(3, 4, 1), nn.Conv2d(4, 4, 40), nn.Flatten())
    model = models.SourceModel("large", network, None, "large", "nothing")
    with pytest.raises(InputError, match="large cannot take images of 28 px: load the data at a larger size"):
        single_pass(model, images, labels)
    for count in (0, 23):
        says = f"labels: as many as images .* found {count} for 24 images"
        with pytest.raises(ValueError, match=says):
            single_pass(_network(SMALL), images, labels[:count])
    with pytest.raises(ValueError, match="variant: 'new' is none of"):
        gradient_ratio(_network(SMALL), images, labels, variant="new")
