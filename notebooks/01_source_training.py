# %% [markdown]
# # Train source models, one dataset or all but the target
#
# :::{admonition} What you will learn
# - what a source model of the paper is trained on, and by which protocol;
# - how several datasets with different classes become one, in a joint label
#   space, with the target left out;
# - how the training loop works, down to the last line.
# :::
#
# A transferability score chooses among *source models*. The paper
# {cite}`juodelyte2024` has fifteen of one architecture (ResNet-18): ImageNet,
# RadImageNet, one for each of the twelve MedMNIST sets {cite}`yang2023`, and
# one trained on all MedMNIST sets but the target. This page trains small ones,
# live, and shows what the paper does at full size.

# %% tags=["parameters"]
# Change them here, or from outside with papermill.
target: str = "breastmnist"  # target dataset: left out of the merged sources
sources: list = [
    "train:pneumoniamnist",
    "train:retinamnist",
]  # sources to train; leave-target-out merges them all
size: int = 28  # image side in pixels: 28, 64, 128 or 224
seed: int = 24  # seed of draws, random weights and training
protocol: str = "quick"  # source protocol: quick, standard or paper

# %% tags=["hide-cell"]
# Where the package is missing (on Colab, say) it is installed; torch and numpy
# stay as they are. Then the parameters are checked, before any work.
import importlib.util
import os
import subprocess
import sys

if importlib.util.find_spec("companion") is None:
    _pip = [sys.executable, "-m", "pip", "install", "--quiet"]
    _release = "transferability-companion==0.1.0"
    _wanted = os.environ.get("COMPANION_INSTALL", _release)
    subprocess.run([*_pip, _wanted], check=True)

from companion import notebook

# %matplotlib inline

run = notebook.start(
    "01_source_training",
    target=target,
    sources=sources,
    size=size,
    seed=seed,
    protocol=protocol,
)

# %% [markdown]
# ## The protocol
#
# Everything that decides how a source is trained stands in one object. The
# paper's protocol for its leave-target-out sources is the column `paper`:
# stochastic gradient descent, learning rate 0.1 divided by ten every 15
# epochs, at most 45 epochs, stop when the validation loss has not fallen for
# 20 epochs. RadImageNet has its own (batches of 256, patience 10).

# %%
from dataclasses import asdict

import pandas as pd

from companion.training import SOURCE_PROTOCOLS

chosen = SOURCE_PROTOCOLS[protocol]
pd.DataFrame(
    {name: asdict(known) for name, known in SOURCE_PROTOCOLS.items()}
).drop("name").fillna("–")

# %% [markdown]
# ## The data
#
# Classes are rarely of equal size. Each epoch draws images *with replacement*,
# so that every class is equally likely; a rare class is then seen as often as
# a common one, in copies that augmentation makes different.

# %%
import companion

names = [source.removeprefix("train:") for source in sources]
datasets = {name: companion.load_dataset(name, size=size) for name in names}
from IPython.display import Markdown, display

display(*datasets.values())

# %%
import numpy as np

from companion.training import balanced_weights

first = datasets[names[0]]
labels = first.labels["train"]
drawn = np.random.default_rng(seed).choice(
    labels, size=5000, p=balanced_weights(labels)
)
pd.DataFrame(
    {
        "in the data": np.bincount(labels) / len(labels),
        "as drawn": np.bincount(drawn, minlength=first.n_classes) / len(drawn),
    },
    index=first.classes,
).round(3)

# %% [markdown]
# ## Augmentation
#
# The paper's six: horizontal flip, random resized crop, rotation by up to 5°,
# sharpness, autocontrast and equalisation. They are applied to a whole batch
# at once, with other random numbers for every image, by the library kornia.

# %% tags=["hide-input"] mystnb={"image": {"alt": "Six training images as they are, and below each of them three differently augmented versions"}, "figure": {"caption": "Training images as they are (top), and three draws of the paper's six augmentations below. The label has to survive all of them: check that findings remain visible.", "name": "augmentations"}}
from companion.figures.style import figure_of, mark_synthetic


def draw_augmentations(images, rows, *, synthetic=False):
    """Draw images as they are (first row) and augmented (one more row each)."""
    figure, axes = figure_of(
        1.0 * len(images) + 1,
        1.1 * (len(rows) + 1),
        len(rows) + 1,
        len(images),
        squeeze=False,
    )
    plain = images / 255.0
    stacks = {"as they are": plain} | {
        label: np.moveaxis(batch, 1, -1).squeeze(-1)
        if batch.shape[1] == 1
        else np.moveaxis(batch, 1, -1)
        for label, batch in rows.items()
    }
    for row, (label, stack) in zip(axes, stacks.items(), strict=True):
        for axis, image in zip(row, stack, strict=True):
            axis.imshow(image, cmap="gray", vmin=0, vmax=1)
            axis.set_xticks([])
            axis.set_yticks([])
        row[0].set_ylabel(
            label, fontsize=8, rotation=0, ha="right", va="center"
        )
    mark_synthetic(figure, synthetic)
    return figure


import torch

from companion import figures
from companion.training.augmentation import augmented

some = first.images["train"][:6]
channels = (
    torch.from_numpy(
        some[:, None] if some.ndim == 3 else np.moveaxis(some, 3, 1).copy()
    ).float()
    / 255
)
with torch.random.fork_rng():
    torch.manual_seed(seed)
    versions = {
        f"version {number}": augmented("paper", channels).numpy()
        for number in (1, 2, 3)
    }
draw_augmentations(some, versions, synthetic=first.synthetic)

# %% [markdown]
# ## The loop, written out
#
# Images stay in memory as bytes; a batch is gathered by index, scaled,
# augmented and normalised, and stochastic gradient descent takes a step. Two
# short epochs by hand give the losses of the package, whose one loop trains
# sources and fine-tunes them.

# %%
from torch import nn

from companion.models import build, one_core_left_free
from companion.training import SourceProtocol, train_source
from companion.training.augmentation import augmentation

tiny = SourceProtocol("tiny", epochs=2, images_per_epoch=128, batch_size=32)


def train_by_hand(dataset, plan):
    """Train a ResNet-18 from random weights; the mean loss of every epoch."""
    images = torch.from_numpy(dataset.images["train"])
    images = (
        images[:, None] if images.ndim == 3 else images.permute(0, 3, 1, 2)
    )
    labels = torch.from_numpy(dataset.labels["train"])
    weights = balanced_weights(dataset.labels["train"])
    augment = augmentation(plan.augmentation, dataset.size)
    network = build("resnet18", classes=dataset.n_classes, seed=seed).train()
    optimiser = torch.optim.SGD(
        network.parameters(),
        lr=plan.lr,
        momentum=plan.momentum,
        weight_decay=plan.weight_decay,
        nesterov=plan.nesterov,
    )
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(
        optimiser, plan.epochs
    )
    torch.manual_seed(seed)
    rng = np.random.default_rng(seed)
    losses = []
    for _ in range(plan.epochs):
        order = rng.choice(len(labels), plan.images_per_epoch, p=weights)
        total = 0.0
        for index in torch.from_numpy(order).split(plan.batch_size):
            batch = augment(images[index].float() / 255) * 2 - 1
            batch = batch.expand(-1, 3, -1, -1).contiguous()
            loss = nn.functional.cross_entropy(network(batch), labels[index])
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
            total += loss.item() * len(index)
        schedule.step()
        losses.append(total / len(order))
    return losses


with torch.random.fork_rng(), one_core_left_free():  # the same threads
    by_hand = train_by_hand(first, tiny)
package = train_source(first, tiny, seed=seed, device="cpu")
package = package.provenance["loss_per_epoch"]
assert np.allclose(by_hand, package, rtol=1e-3), (by_hand, package)
pd.DataFrame(
    {"loss by hand": by_hand, "loss by the package": package},
    index=["epoch 1", "epoch 2"],
).round(4)

# %% [markdown]
# ## Train one source for each dataset
#
# A model trained once is kept: the next call with the same data, protocol,
# seed and architecture loads it.

# %%
models = {
    source: companion.load_source(
        source, size=size, seed=seed, protocol=chosen
    )
    for source in sources
}
pd.DataFrame(
    {
        figures.short(name): {
            "training images": model.provenance["images"],
            "classes": model.provenance["classes"],
            "epochs": len(model.provenance["loss_per_epoch"]),
            "last training loss": round(
                model.provenance["loss_per_epoch"][-1], 3
            ),
            "seconds when it was trained": round(model.provenance["seconds"]),
        }
        for name, model in models.items()
    }
)

# %% mystnb={"image": {"alt": "Training loss by epoch, one line a source model"}, "figure": {"caption": "Training loss of the sources made on this page. A curve that still falls at its end is a source that would gain from more epochs.", "name": "source-losses"}}
losses = {
    name: model.provenance["loss_per_epoch"] for name, model in models.items()
}
figures.curves(
    {"training loss": losses},
    synthetic=any(d.synthetic for d in datasets.values()),
)

# %% [markdown]
# What the models learnt, on validation images they have not seen:

# %%
from companion.training.loop import Resident, evaluate

rows = {}
for name, model in models.items():
    dataset = datasets[name.removeprefix("train:")]
    held = Resident(
        dataset.images["val"], dataset.labels["val"], model.normalisation
    )
    network = nn.Sequential(model.backbone, model.head).to(held.images.device)
    measured = evaluate(network, held)
    rows[figures.short(name)] = {
        "validation AUC": measured["auc"],
        "accuracy": measured["accuracy"],
    }
pd.DataFrame(rows).T.round(3)

# %% [markdown]
# ## All but the target: a joint label space
#
# To train on several sets at once, their classes become columns of one 0/1
# table, and the loss is binary cross-entropy. Most classes get a column of
# their own. Three cases share: the three organ sets show the same eleven
# organs; ChestMNIST and PneumoniaMNIST share "pneumonia"; and ChestMNIST's
# images without a finding (a fifteenth column) share PneumoniaMNIST's
# "normal".

# %%
from companion.datasets import joint_columns, medmnist_classes, medmnist_flags

classes = medmnist_classes()


def columns_without(left_out: str | None) -> int:
    """Columns of the joint label space of all MedMNIST sets but one."""
    pooled = joint_columns(
        {flag: found for flag, found in classes.items() if flag != left_out}
    )
    return 1 + max(max(found) for found in pooled.values())


pd.Series(
    {"nothing": columns_without(None)}
    | {flag: columns_without(flag) for flag in medmnist_flags()},
    name="columns",
).to_frame().rename_axis("left out")

# %% [markdown]
# With chest as the target, pneumonia keeps two columns of its own. The same
# here, with the datasets of this page and the target left out:

# %%
others = [name for name in names if name != target]
spec = "train:" + "+".join(others)
pooled = (
    companion.datasets.pool([datasets[name] for name in others])
    if len(others) > 1
    else datasets[others[0]]
)
pooled

# %%
leave_target_out = companion.load_source(
    spec, size=size, seed=seed, protocol=chosen
)
display(
    Markdown(
        f"`{leave_target_out.name}` has {leave_target_out.head.out_features} "
        "outputs."
    )
)
losses = leave_target_out.provenance["loss_per_epoch"]
pd.DataFrame(
    {"training loss": losses},
    index=pd.RangeIndex(1, len(losses) + 1, name="epoch"),
).round(3)

# %% [markdown]
# From the command line, `companion replicate` trains sources as a protocol
# file says, the paper's or your own:
#
# ```
# companion replicate quick --dry-run
# ```
#
# **Exercise.** Train with `protocol="standard"`, or leave the balanced drawing
# out of the loop above (`p=None`). Which class pays for it?
#
# :::{admonition} Takeaways
# - A source protocol is one object; the paper's stands beside the short one
#   that this page used.
# - Class-balanced drawing makes classes equally frequent, whatever their size.
# - The joint label space of all twelve MedMNIST sets has 69 columns, and at
#   most as many without the target.
# - The models of this page are small and trained in seconds to minutes: good
#   for seeing how it works, not for use.
# :::

# %%
run.provenance(*datasets.values())
