"""Networks: where their convolutions and features are, and what a checkpoint may and may not be."""

import copy
import os
import sys
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import nn

import companion
from companion import datasets, load_source, models, scores, sources, training
from companion.errors import EnvironmentFailure, InputError
from companion.scores.forward_pass import single_pass
from companion.training import loop

SMALL = "shufflenet_v2_x0_5"  # the smallest of the nine

# As METHOD.md and the released code name them, and the widths of the features before the last layer.
NINE = {
    "densenet121": ("features.conv0", "features.denseblock1.denselayer1.conv1", 1024),
    "efficientnet_v2_s": ("features.0.0", "features.1.0.block.0.0", 1280),
    "googlenet": ("conv1.conv", "conv2.conv", 1024),
    "mnasnet1_0": ("layers.0", "layers.3", 1280),
    "mobilenet_v3_small": ("features.0.0", "features.1.block.0.0", 576),
    "vgg11": ("features.0", "features.3", 4096),
    "convnext_tiny": ("features.0.0", "features.1.0.block.0", 768),
    "shufflenet_v2_x0_5": ("conv1.0", "stage2.0.branch1.0", 1024),
    "resnet18": ("conv1", "layer1.0.conv1", 512),
}


def build_meta(architecture: str) -> nn.Module:
    """Build a network without memory for its weights: names and shapes are all that is asked of it."""
    with torch.device("meta"):
        return models.build(architecture).eval()


@pytest.fixture(scope="module")
def small_state() -> dict[str, torch.Tensor]:
    return models.build(SMALL, classes=7, seed=5).state_dict()


def load(state, architecture: str = SMALL, **options) -> models.SourceModel:
    return models.from_state(state, architecture=architecture, name="mine", pretraining="x", **options)


# --- architectures -----------------------------------------------------------------------------------------
@pytest.mark.parametrize("architecture", NINE)
def test_convolutions_and_features(architecture):
    assert architecture in models.ARCHITECTURES
    first, second, width = NINE[architecture]
    network = build_meta(architecture)
    assert models.first_layers(network) == (first, second)
    assert network.get_submodule(first).in_channels == 3
    whole = copy.deepcopy(network)
    head = models.split_head(network)
    # The released code takes off the last layer, and of MobileNetV3 the whole classifier.
    assert isinstance(head, nn.Linear) == (architecture != "mobilenet_v3_small") and not head.training
    images = torch.empty(2, 3, 224, 224, device="meta")
    features = network(images).flatten(1)
    assert features.shape == (2, width) and head(features).shape == whole(images).shape == (2, 1000)


@pytest.mark.parametrize("seed", [None, 0])
def test_weights_are_seeded_and_the_global_random_states_left_alone(seed):
    torch_state, numpy_state = torch.get_rng_state(), np.random.get_state()[1].copy()  # noqa: NPY002
    first, again, other = (models.build(SMALL, seed=each).state_dict() for each in (0, seed, 1))
    assert torch.equal(torch.get_rng_state(), torch_state)
    assert (np.random.get_state()[1] == numpy_state).all()  # noqa: NPY002
    assert all(torch.equal(first[key], again[key]) for key in first) == (seed == 0)
    assert not torch.equal(first["conv1.0.weight"], other["conv1.0.weight"])


def test_scratch_has_no_head_and_says_what_it_is():
    model = models.scratch(SMALL, seed=3)
    assert model.head is None and not model.backbone.training and SMALL in repr(model)
    assert "random weights, seed 3" in model.pretraining
    assert (model.first_conv, model.second_conv) == NINE[SMALL][:2]
    with pytest.raises(InputError, match="has no head, so it predicts nothing"):
        model.predict(IMAGES)
    assert models.first_layers(nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU())) == (None, None)
    with pytest.raises(InputError, match="torchvision has no classification model 'fasterrcnn_resnet50_fpn'"):
        models.build("fasterrcnn_resnet50_fpn")
    with pytest.raises(InputError, match="Sequential has no linear layer"):
        models.split_head(nn.Sequential(nn.Conv2d(3, 4, 3)))


# --- images to batches -------------------------------------------------------------------------------------
def test_grey_images_are_repeated_to_three_channels_and_left_as_they_were():
    grey = np.random.default_rng(0).integers(0, 256, (5, 8, 8)).astype(np.uint8)
    before, normalisation = grey.copy(), models.IMAGENET_NORMALISATION
    batch = models.to_batch(grey, normalisation)
    assert batch.shape == (5, 3, 8, 8) and batch.dtype == torch.float32 and (grey == before).all()
    assert torch.equal(batch, models.to_batch(np.repeat(grey[..., None], 3, axis=3), normalisation))
    mean, deviation = (np.array(values)[:, None, None] for values in normalisation)
    assert np.allclose(batch[0], (grey[0] / 255 - mean) / deviation, atol=1e-6)


WRONG = [("f4", (2, 8, 8)), ("i8", (2, 8, 8)), ("u1", (8, 8)), ("u1", (2, 8, 8, 1)), ("u1", (2, 3, 8, 8))]


@pytest.mark.parametrize(("kind", "shape"), WRONG)
def test_what_are_no_images_is_refused(kind, shape):
    with pytest.raises(InputError, match=r"images have shape .* wanted uint8, \(n, h, w\) or \(n, h, w, 3\)"):
        models.to_batch(np.zeros(shape, kind), models.PLAIN_NORMALISATION)


# --- checkpoints -------------------------------------------------------------------------------------------
@pytest.mark.parametrize("prefix", ["", "module.", "model.", "module.backbone."])
@pytest.mark.parametrize(
    ("kind", "key"),
    [
        ("safetensors", ""),
        ("pt", ""),
        *(("pth", key) for key in ("", "net", "state_dict", "model_state_dict", "model")),
    ],
)
def test_a_checkpoint_is_loaded_whatever_its_prefix_and_what_it_is_wrapped_in(
    tmp_path, small_state, kind, prefix, key
):
    path = tmp_path / f"weights.{kind}"
    content = {prefix + name: value.clone() for name, value in small_state.items()}
    content = {key: content, "epoch": 3} if key else content
    save_file(content, path) if kind == "safetensors" else torch.save(content, path)
    state, metadata = models.read_state(path)
    assert metadata == {}
    model = load(state)
    loaded = model.backbone.state_dict()
    assert all(torch.equal(loaded[key], small_state[key]) for key in loaded if "num_batches" not in key)
    assert model.head is not None and torch.equal(model.head.weight, small_state["fc.weight"])


def test_heads_that_lack_a_part_half_precision_and_parts_with_versions(small_state):
    assert load({key: value for key, value in small_state.items() if not key.startswith("fc.")}).head is None
    state = models.build("mobilenet_v3_small", classes=4, seed=2).state_dict()
    del state["classifier.0.bias"]
    assert load(state, "mobilenet_v3_small").head is None
    model = load({key: value.half() for key, value in small_state.items()})
    assert {value.dtype for value in model.backbone.parameters()} == {torch.float32}
    whole = models.build("mnasnet0_5", classes=3, seed=1)
    found = load(dict(whole.state_dict()), "mnasnet0_5")
    for key, value in found.backbone.state_dict().items():
        assert torch.equal(value, whole.state_dict()[key]), key


@pytest.mark.parametrize("architecture", ["mobilenet_v3_small", SMALL])
def test_features_and_head_give_what_the_whole_network_gave(tmp_path, architecture):
    whole = models.build(architecture, classes=4, seed=2).eval()
    images = torch.rand(2, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    plain = load(whole.state_dict(), architecture)
    saved = load_source(sources.save(plain, tmp_path / "mine.safetensors"))
    with torch.no_grad():
        for model in (plain, saved):
            assert torch.allclose(model.head(model.backbone(images)), whole(images), atol=1e-6)
    tuned = training.fine_tuning.with_head(plain, SimpleNamespace(size=64, n_classes=3), 0.5).eval()
    assert tuned(images).shape == (2, 3)


def test_less_than_99_percent_of_the_backbone_and_more_than_all_of_it_are_refused(small_state):
    keys = [key for key in small_state if not key.startswith("fc.") and "num_batches" not in key]
    few, many = keys[: round(0.005 * len(keys))], keys[: round(0.02 * len(keys))]
    rest, less = ({k: v for k, v in small_state.items() if k not in gone} for gone in (few, many))
    assert few and load(rest).provenance["tensors"] == len(keys) - len(few)
    covered = f"{len(keys) - len(many)} of {len(keys)} tensors"
    says = rf"9\d% of the backbone .*{covered}; first one is missing: {many[0]}"
    with pytest.raises(InputError, match=says):
        load(less)
    with pytest.raises(InputError, match=r"first one has another shape"):
        load({key: value[..., None] for key, value in small_state.items()})
    deeper = models.build("resnet34").state_dict()  # it has all of resnet18's tensors, in their shapes
    says = r"holds 16 convolution\(s\) that resnet18 does not have .*layer1\.2\.conv1"
    with pytest.raises(InputError, match=says):
        load(deeper, "resnet18")


# --- devices -----------------------------------------------------------------------------------------------
def test_devices(monkeypatch):
    monkeypatch.setattr(models, "devices_used", set())
    for name in ("tpu9", "meta", "gpu", ""):
        with pytest.raises(InputError, match="give auto, cpu, cuda, cuda:N or mps"):
            models.best_device(name)
    with pytest.raises(EnvironmentFailure, match="'cuda:99' is not there"):
        models.best_device("cuda:99")
    assert models.devices_used == set()
    models.scratch(SMALL).features(IMAGES[:1], device="cpu")
    assert models.devices_used == {"cpu"}
    assert models.best_device("cpu") == torch.device("cpu")
    assert models.best_device() == models.best_device("auto")


IMAGES, LABELS = np.zeros((12, 32, 32), np.uint8), np.arange(12) % 2
PARTS = dict.fromkeys(("train", "val", "test"))
SET = datasets.Dataset(
    "zeros", dict.fromkeys(PARTS, IMAGES), dict.fromkeys(PARTS, LABELS), ("a", "b"), "binary", "made up"
)
TUNING = training.FineTuning("t", epochs=1, patience=1, lr=(0.1,), batch_size=(12,), augmentation="none")


ONCE = training.SourceProtocol("t", 1, augmentation="none")
WORK = {
    "features": lambda model: model.features(IMAGES),
    "gradient_ratio": lambda model: scores.gradient_ratio(model, IMAGES, LABELS),
    "score": lambda model: companion.score(model, SET, scores=["gradient_ratio"]),
    "train_source": lambda model: training.train_source(SET, ONCE, architecture=SMALL),
    "fine_tune": lambda model: training.fine_tune(
        model, SET, datasets.fold(SET), TUNING.settings("zeros")[0], TUNING, seed=0
    ),
}


@pytest.mark.parametrize("work", WORK.values(), ids=WORK)
def test_networks_run_on_the_fastest_device_and_stay_where_they_were(monkeypatch, work):
    real, model = models.best_device, models.scratch(SMALL)

    def fastest(name=None):
        """Torch's device "meta", which holds no numbers: whatever runs there cannot give any."""
        return torch.device("meta") if str(name) in ("None", "meta") else real(name)

    for name, module in list(sys.modules.items()):
        if name.startswith("companion") and getattr(module, "best_device", None) is real:
            monkeypatch.setattr(module, "best_device", fastest)
    with pytest.raises((RuntimeError, NotImplementedError), match="meta"):
        work(model)
    assert {value.device.type for value in model.backbone.state_dict().values()} == {"cpu"}


@pytest.mark.parametrize(("cores", "given", "used"), [(2, 2, 1), (1, 1, 1), (4, 2, 2)])
def test_one_core_is_left_free_while_a_network_runs(monkeypatch, cores, given, used):
    monkeypatch.setattr(os, "sched_getaffinity", lambda _process: set(range(cores)), raising=False)
    seen = []
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(given)
        network = nn.Sequential(nn.Flatten(), nn.Linear(12, 2))
        network.register_forward_hook(lambda *_: seen.append(torch.get_num_threads()))
        model = models.SourceModel("seen", network, None, "linear", "nothing")
        images, labels = np.zeros((4, 2, 2), np.uint8), np.arange(4) % 2
        model.features(images, device="cpu")
        single_pass(model, images, labels, device="cpu")
        data = loop.Resident(images, labels, models.PLAIN_NORMALISATION, "cpu")
        loop.fit(network, data, data, replace(ONCE, batch_size=4), seed=0)
        loop.evaluate(network, data)
        assert set(seen) == {used} and len(seen) == 8 and torch.get_num_threads() == given
    finally:
        torch.set_num_threads(before)


# --- what the paper does not speak of ----------------------------------------------------------------------
@pytest.mark.parametrize(
    ("architecture", "size", "layers", "is_extended"),
    [
        ("vit_tiny_patch16_224", 224, ("patch_embed.proj", "blocks.0.attn.qkv"), True),
        ("convnext_atto", 64, ("stem.0", "stages.0.blocks.0.conv_dw"), False),
        ("resnet50", 64, ("conv1", "layer1.0.conv1"), False),
        ("efficientnet_b0", 64, ("conv_stem", "blocks.0.0.conv_dw"), False),
    ],
)
def test_networks_of_timm_have_features_a_head_and_two_first_layers(architecture, size, layers, is_extended):
    timm = models.timm()
    network = timm.create_model(architecture, num_classes=9).eval()
    images = np.random.default_rng(0).integers(0, 256, (2, size, size)).astype(np.uint8)
    batch = models.to_batch(images, models.IMAGENET_NORMALISATION)
    with torch.inference_mode():
        expected = network(batch).softmax(1).numpy()
    model = sources.from_timm(network, name=f"timm:{architecture}.tag", architecture=architecture)
    assert (model.first_conv, model.second_conv) == layers and models.extended(model) == is_extended
    assert model.normalisation[1][0] != 0.5 or architecture.startswith("vit")
    found = replace(model, normalisation=models.IMAGENET_NORMALISATION).predict(images, device="cpu")
    np.testing.assert_allclose(found, expected, atol=1e-5)
    head = {"companion_head." + key: value for key, value in model.head.state_dict().items()}
    back = load(network.state_dict() | head, model.architecture)
    assert torch.equal(back.head.weight, model.head.weight)
    assert models.family(model.architecture) == models.family(architecture)


def test_a_network_given_in_python_keeps_its_function():
    network = models.build(SMALL, classes=5, seed=0).eval()
    model = models.from_module(network, name="mine")
    batch = models.to_batch(IMAGES, model.normalisation)
    with torch.inference_mode():
        expected = network(batch)
        assert torch.allclose(model.head(model.backbone(batch)), expected, atol=1e-5)
    # Where the last linear layer is not the output, the output is the features.
    inner = nn.Sequential(nn.Flatten(), nn.Linear(3 * 224 * 224, 4), nn.ReLU())
    assert models.from_module(inner).head is None
    inner.register_forward_hook(lambda *given: (given[-1], given[-1]))
    with pytest.raises(InputError, match="returns tuple: wrap it"):
        models.from_module(inner)


@pytest.mark.parametrize("architecture", ["resnet50", "mobilenet_v2", "vgg16_bn", SMALL])
def test_an_architecture_is_guessed_from_its_tensors(architecture):
    state = build_meta(architecture).state_dict()
    assert models.guess_architecture(state) == architecture
    del state[next(key for key in state if key.endswith("weight"))]
    assert models.guess_architecture(dict(list(state.items())[:20])) is None
