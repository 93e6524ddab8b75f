"""`load_source`: names, files, downloads, and models trained here once."""

import io
import pickle
import zipfile

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

import companion
from companion import datasets, load_source, models, sources
from companion.errors import EnvironmentFailure, InputError
from companion.training import SourceProtocol, train_source
from image_files import Malicious

SMALL = "shufflenet_v2_x0_5"
TINY = SourceProtocol("tiny", epochs=1, images_per_epoch=32, batch_size=16)
TRAIN = "train:procedural:lesions"


def same(one: models.SourceModel, other: models.SourceModel) -> bool:
    """Are weights and features equal?"""
    first, second = one.backbone.state_dict(), other.backbone.state_dict()
    # How many batches a norm has seen changes nothing once training is over, and is not kept.
    keys = [key for key in first if not key.endswith("num_batches_tracked")]
    images = np.random.default_rng(0).integers(0, 256, (4, 32, 32)).astype(np.uint8)
    features = [model.features(images, device="cpu") for model in (one, other)]
    weights = first.keys() == second.keys() and all(torch.equal(first[key], second[key]) for key in keys)
    return weights and np.array_equal(*features)


def trained(**options) -> models.SourceModel:
    return load_source(TRAIN, architecture=SMALL, protocol=TINY, **options)


# --- trained here ------------------------------------------------------------------------------------------
def test_a_source_is_trained_once_and_then_loaded(own_cache, monkeypatch):
    fractions: list[float] = []
    first = trained(progress=lambda fraction, text: fractions.append(fraction))
    assert fractions[-1] == 1 and fractions == sorted(fractions)
    assert first.provenance["synthetic"] and "cached" not in first.provenance
    assert len(first.provenance["loss_per_epoch"]) == TINY.epochs

    monkeypatch.setattr(sources, "train_source", lambda *_, **__: pytest.fail("trained again"))
    second = trained()
    assert second.provenance["cached"]
    assert same(first, second) and torch.equal(first.head.weight, second.head.weight)
    for name in ("name", "architecture", "pretraining", "normalisation", "first_conv", "second_conv"):
        assert getattr(first, name) == getattr(second, name), name
    assert len(list(own_cache.rglob("*.safetensors"))) == 1
    for other in ({"seed": 1}, {"size": 64}, {"protocol": SourceProtocol("tiny", 1, 64)}):
        with pytest.raises(pytest.fail.Exception, match="trained again"):
            load_source(TRAIN, **({"architecture": SMALL, "protocol": TINY} | other))


@pytest.mark.parametrize("damage", ["cut off", "no head", "a record that is none"])
def test_a_damaged_file_in_the_cache_is_replaced(own_cache, damage):
    first = trained()
    (path,) = own_cache.rglob("*.safetensors")
    whole = path.read_bytes()
    if damage == "no head":
        save_file(first.backbone.state_dict(), path)
    elif damage == "a record that is none":
        save_file(models.read_state(path)[0], path, metadata={"companion": '{"provenance": ["x"]}'})
    else:
        path.write_bytes(whole[: len(whole) // 2])
    again = trained()
    assert "cached" not in again.provenance
    assert same(first, again)
    assert trained().provenance["cached"]


def test_training_takes_several_labels_an_image_and_moves_no_global_random_state():
    rng = np.random.default_rng(0)
    images, labels = rng.integers(0, 256, (40, 32, 32)).astype(np.uint8), rng.integers(0, 2, (40, 5))
    kind = (tuple("abcde"), "multi-label", "made up")
    several = datasets.Dataset("several", {"train": images}, {"train": labels}, *kind)
    torch.manual_seed(7)
    before = torch.get_rng_state(), np.random.get_state()[1].copy()  # noqa: NPY002
    model = train_source(several, TINY, architecture=SMALL)
    assert torch.equal(torch.get_rng_state(), before[0])
    assert (np.random.get_state()[1] == before[1]).all()  # noqa: NPY002
    assert not model.backbone.training and model.head.out_features == 5


def test_a_pool_is_trained_on_as_many_images_as_asked(own_cache):
    both = load_source("train:procedural:cells+procedural:lesions@90", architecture=SMALL, protocol=TINY)
    assert both.provenance["images"] == 90 and both.name.endswith("lesions@90")
    assert sources.parse("train:a+b@90").parts == ("a", "b")
    assert sources.parse("train:a@90").parts == ("a@90",)


# --- random, checkpoints -----------------------------------------------------------------------------------
@pytest.mark.parametrize("head", [True, False])
def test_a_saved_model_comes_back(tmp_path, head):
    network = models.build(SMALL, classes=4, seed=2)
    own = models.split_head(network)
    parts = ("mine", network.eval(), own if head else None, SMALL, "my images")
    model = models.SourceModel(*parts, models.IMAGENET_NORMALISATION, provenance={"made by": "me"})
    path = sources.save(model, tmp_path / "folder" / "mine.safetensors")
    back = load_source(path)
    assert same(model, back)
    assert (back.architecture, back.pretraining, back.name) == (SMALL, "my images", "mine")
    assert back.provenance["made by"] == "me" and (back.head is not None) == head
    assert not head or torch.equal(back.head.weight, own.weight)
    assert [p.name for p in path.parent.iterdir()] == ["mine.safetensors"]


@pytest.mark.parametrize("record", ["not json", "[]", '{"architecture": 3}', '{"normalisation": "x"}'])
def test_a_checkpoint_with_another_record_is_refused(tmp_path, record):
    state = models.build(SMALL, seed=0).state_dict()
    save_file(state, tmp_path / "x.safetensors", metadata={"companion": record})
    with pytest.raises(InputError, match=r"x\.safetensors"):
        load_source(tmp_path / "x.safetensors", architecture=SMALL)


# --- MedMNIST's released weights ---------------------------------------------------------------------------
def test_medmnists_weights_are_downloaded_when_trusted(data, server, monkeypatch, no_waiting):
    stream, inside = io.BytesIO(), io.BytesIO()  # laid out as the released archive, with random weights
    torch.save({"net": models.build("resnet18", classes=2, seed=0).state_dict()}, inside)
    with zipfile.ZipFile(stream, "w") as archive:
        archive.writestr("resnet18_224_1.pth", inside.getvalue())
        archive.writestr("resnet50_28_1.pth", b"another")
    server.serve("/weights_breastmnist.zip", stream.getvalue())
    monkeypatch.setattr(sources, "MEDMNIST_WEIGHTS", server.root + "/weights_{flag}.zip?download=1")
    with pytest.raises(InputError, match="no checksum is published.*trust"):
        load_source("breastmnist")
    assert server.requests == []
    for _ in range(2):
        model = load_source("breastmnist", trust=True)
    assert server.requests == ["/weights_breastmnist.zip"]
    assert (model.architecture, model.pretraining, model.head.out_features) == ("resnet18", "breastmnist", 2)
    assert model.normalisation == models.PLAIN_NORMALISATION
    assert "7782113" in model.provenance["origin"]
    weight = models.build("resnet18", classes=2, seed=0).state_dict()["conv1.weight"]
    assert torch.equal(model.backbone.conv1.weight, weight)
    assert (data / "weights" / "medmnist_breastmnist_resnet18_224_1.pth").is_file()


# --- ImageNet ----------------------------------------------------------------------------------------------
def test_imagenet_weights_are_downloaded(monkeypatch, tmp_path):
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    asked: list[str] = []

    def download(url: str, destination: str, *_arguments, **_options) -> None:
        asked.append(url)
        torch.save(models.build(SMALL, seed=3).state_dict(), destination)

    monkeypatch.setattr(torch.hub, "download_url_to_file", download)
    model = load_source(f"torchvision:{SMALL}")
    assert asked == [sources.imagenet_file(SMALL)[0].url]
    assert (model.pretraining, model.head.out_features) == ("imagenet", 1000)
    assert model.normalisation == models.IMAGENET_NORMALISATION
    expected = models.build(SMALL, seed=3).state_dict()["conv1.0.weight"]
    assert torch.equal(model.backbone.conv1[0].weight, expected)
    # This one has not the published sha256, and a second look finds that out.
    with pytest.raises(InputError, match="does not have the sha256 that its name gives"):
        load_source("imagenet", architecture=SMALL)


def test_imagenet_weights_with_code_in_them_are_not_run(monkeypatch, tmp_path):
    marked = Malicious(tmp_path / "code-ran")
    weights, _ = sources.imagenet_file(SMALL)
    path = tmp_path / "weights.pth"  # without the digits of a checksum in its name, which could be met
    monkeypatch.setattr(sources, "imagenet_file", lambda _architecture: (weights, path))
    torch.save({"conv1.weight": marked}, path)
    with pytest.raises(InputError, match="code in it would be run: it is not loaded"):
        load_source("imagenet", architecture=SMALL)
    with zipfile.ZipFile(path, "w") as archive:  # torch.hub unpacks such a one, and unpickles what is in it
        archive.writestr("weights.pth", pickle.dumps(marked))
    with pytest.raises(InputError, match="is not a whole checkpoint"):
        load_source("imagenet", architecture=SMALL)
    assert [found.name for found in tmp_path.iterdir()] == ["weights.pth"]


# --- names -------------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("name", "target", "stem", "where"),
    [
        ("medmnist", "breastmnist", "medmnist_without_breastmnist", "4zgrd"),
        ("radimagenet", None, "radimagenet", "RadImageNet"),
    ],
)
def test_sources_fetched_by_hand_and_what_else_lies_in_the_data_directory(data, name, target, stem, where):
    if target:
        with pytest.raises(InputError, match=f"'{name}' is trained on all sets but the target: say which"):
            load_source(name)
    with pytest.raises(EnvironmentFailure, match=f"weights of {name} are not downloaded .*{where}") as caught:
        load_source(name, target=target)
    wanted = data / "weights" / f"{stem}.safetensors"
    assert str(wanted) in str(caught.value)
    wanted.parent.mkdir()
    save_file(models.build("resnet18", classes=3, seed=0).state_dict(), wanted)
    model = load_source(name, target=target)
    assert (model.name, model.pretraining, model.head.out_features) == (name, stem, 3)
    path = sources.save(models.scratch(SMALL, seed=3), data / "weights" / "mine.safetensors")
    assert same(load_source("mine.safetensors"), load_source(str(path)))


# --- what a file does not say ------------------------------------------------------------------------------
def test_a_checkpoint_s_architecture_is_given_said_or_guessed(tmp_path):
    path = tmp_path / "imagenet_model.pth"
    torch.save(models.build("mobilenet_v3_small", classes=1000, seed=1).state_dict(), path)
    guessed, given = companion.load_source(path), companion.load_source(f"{path}@mobilenet_v3_small")
    assert guessed.architecture == given.architecture == "mobilenet_v3_small"
    assert any("architecture guessed from its tensors" in line for line in guessed.provenance["remarks"])
    assert not any("guessed" in line for line in given.provenance["remarks"])
    with pytest.raises(InputError, match=r"weights of another architecture; name theirs \(FILE@ARCHITECTURE"):
        companion.load_source(f"{path}@resnet18")


@pytest.mark.parametrize(
    ("classes", "expected"), [(1000, models.IMAGENET_NORMALISATION), (7, models.PLAIN_NORMALISATION)]
)
def test_a_normalisation_that_a_file_does_not_say_is_guessed_and_reported(tmp_path, classes, expected):
    torch.save(models.build(SMALL, classes=classes).state_dict(), tmp_path / "w.pth")
    model = companion.load_source(f"{tmp_path / 'w.pth'}@{SMALL}")
    assert model.normalisation == expected and model.provenance["normalisation_from"] == "assumed"
    assert any("normalisation assumed" in line for line in model.provenance["remarks"])


def test_a_table_of_sources_says_what_files_do_not(tmp_path):
    torch.save(models.build(SMALL, classes=7).state_dict(), tmp_path / "w.pth")
    header = "name,path,architecture,pretraining,mean,std,classes\n"
    table = tmp_path / "sources.csv"
    table.write_text(header + f"mine,w.pth,{SMALL},scans,0.1 0.2 0.3,0.25,7\nother,w.pth,{SMALL},,,,\n")
    mine, other = sources.read_sources(table)
    assert (mine.name, mine.pretraining) == ("mine", "scans")
    assert mine.normalisation == ((0.1, 0.2, 0.3), (0.25, 0.25, 0.25)) and mine.provenance["remarks"] == []
    assert other.normalisation == models.PLAIN_NORMALISATION and other.pretraining == "w"
    assert list(sources.by_name(table)) == ["mine", "other"]
    with pytest.raises(InputError, match="no source 'no such source'"):
        sources.by_name({"a": "scratch", "b": "no such source"})


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("name\nx\n", "line 2: key 'path' is missing"),
        ("name,path,sd\nx,w.pth,1\n", "unknown key 'sd'.* Did you mean 'std'"),
        (f"name,path,architecture,mean\nx,w.pth,{SMALL},0.5\n", "line 2: mean and std are needed together"),
        (f"name,path,architecture,mean,std\nx,w.pth,{SMALL},0.5,0\n", "std.0 is '0': .* greater than 0"),
        (
            f"name,path,architecture,mean,std\nx,w.pth,{SMALL},0.5,a b\n",
            "std is 'a b': one number or three are needed",
        ),
        (f"name,path,architecture,classes\nx,w.pth,{SMALL},9\n", "w.pth has a head of 7 classes, not 9"),
        ("name,path\nx,other.pth\n", "there is no such checkpoint file"),
    ],
)
def test_a_table_of_sources_that_cannot_be_used_is_refused(tmp_path, text, message):
    torch.save(models.build(SMALL, classes=7).state_dict(), tmp_path / "w.pth")
    (tmp_path / "sources.csv").write_text(text)
    with pytest.raises(InputError, match=message):
        sources.read_sources(tmp_path / "sources.csv")


def test_a_model_that_cannot_be_kept_is_used_all_the_same(own_cache, monkeypatch):
    def full(*_):
        raise EnvironmentFailure("cannot write: No space left on device")

    monkeypatch.setattr(sources, "save", full)
    model = companion.load_source("train:procedural:cells", architecture=SMALL, protocol=TINY)
    assert model.head is not None and "No space left" in model.provenance["remarks"][0]


def test_only_a_checkpoint_is_called_by_its_file_s_name():
    called = {"a@b/model.pth": "model", "x/y.v2.pth@timm:resnet50.a1": "y.v2"}
    called |= {name: name for name in ("timm:vit.augreg", "train:scans/x.csv")}
    assert {source: sources.called(source) for source in called} == called
