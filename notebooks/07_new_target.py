# %% [markdown]
# # Rank source models for images of your own
#
# :::{admonition} What you will do
# - point this notebook at your data and at the models you could start from;
# - read which model to fine-tune first, how sure that is, and what was not
#   checked;
# - keep the table, the figure and a page you can send to a colleague.
# :::
#
# You have a few hundred labelled images and several pre-trained models, and
# time to fine-tune one or two of them. This notebook scores every candidate in
# one pass over your images, without fine-tuning. Your images may be a folder
# with one sub-folder per class, a `.csv` or `.tsv` of paths and labels, or a
# `.npz` file in MedMNIST's layout; PNG, JPEG, TIFF, BMP or DICOM.
# [](../book/choosing.md) has the details.
#
# :::{warning}
# Before you run this on Colab with patients' images: running there uploads
# them to somebody else's computer. On your own machine nothing leaves it.
# :::

# %% tags=["parameters"]
# Change them here, or from outside with papermill.
target: str = "pneumoniamnist"  # folder, .csv, .tsv, .npz or MedMNIST flag
sources: list = [
    "scratch",
    "train:breastmnist",
    "train:retinamnist",
    "train:procedural:textures",
    "train:procedural:cells",
]  # candidate source models
size: int = 0  # image side: 28, 64, 128 or 224; 0: that of the images
architecture: str = "resnet18"  # of sources that do not say theirs
per_class: int = 100  # images scored, times the number of classes
repeats: int = 10  # rankings of random halves, 5 or more; 0: none
verify: int = 0  # first sources fine-tuned and compared; 0: none
seed: int = 24  # seed of draws, random weights and training
out: str = ""  # folder for table, figure and page; empty: none is written
images: bool = True  # with a few of your images, here and in the page

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
    "07_new_target",
    target=target,
    sources=sources,
    size=size,
    architecture=architecture,
    per_class=per_class,
    repeats=repeats,
    verify=verify,
    seed=seed,
    out=out,
    images=images,
)

# %%
from pathlib import Path

from companion.ranking.report import FILES
from companion.store import check_folder

if out:
    check_folder(Path(out), FILES, force=False)  # an earlier report is kept

# %% [markdown]
# ## Look at the data first
#
# Classes of very different size, or a class with a handful of images, make any
# score unsteady; the same image in training and test makes every result look
# better than it is. Look before you rank.

# %%
import pandas as pd
from IPython.display import Markdown, display

import companion

facts = companion.inspect(target, size=size or None)
lines = [
    *(facts.warnings or ["Nothing to warn of."]),
    f"Groups of equal images: {len(facts.duplicates)}, of which "
    f"{facts.across} lie across splits.",
]
display(Markdown("\n".join(f"- {line}" for line in lines)))
pd.DataFrame(facts.counts)

# %%
dataset = companion.load_dataset(target, size=size or None)
dataset

# %% mystnb={"image": {"alt": "A few training images of every class of the target"}, "figure": {"caption": "A few training images of each class, as they are scored. Look for markers, borders and text that tell the classes apart without any anatomy.", "name": "own-examples"}}
from companion import figures

figures.examples(dataset) if images else "left out"

# %% [markdown]
# ## The candidates
#
# The default candidates are small models, each trained here in about a minute,
# so that this page can be made anywhere; two of them learnt from **synthetic** pictures.
# For work that matters, name `imagenet`, other torchvision or timm models, or
# your own checkpoints (`FILE@ARCHITECTURE` where a file does not say its own).
# Four or more candidates of one architecture, or of one pre-training, get a
# combined score; fewer are compared by their features alone.

# %%
ranking = companion.rank(
    dataset,
    sources,
    per_class=per_class,
    seed=seed,
    architecture=architecture,
)
ranking

# %% mystnb={"image": {"alt": "Bars of the combined score, NCA and gradient ratio of every candidate"}, "figure": {"caption": "The combined score of every candidate and its two terms, the first choice on top. A bar of zero is the lowest of these candidates in one of the terms, and not a useless model.", "name": "own-ranking"}}
figures.ranking(ranking)

# %% [markdown]
# ## What it says, and what that is worth
#
# The first lines above are the recommendation; the words after its colon
# matter most. For the small models of this page they are mostly *too close to
# call*: single scores put other sources first, and other images would, too.
# Then fine-tune the first two, or take ImageNet. The combined score is the
# product of NCA and of the gradient ratio in the form that does not depend on
# how a file was written ([](04_gradient_ratio.ipynb)), each rescaled from 0 to
# 1 over the candidates: the lowest in either has 0. The recommendation also
# says what such orders were worth in the replication, beside ImageNet first.
# What was ranked, and what it took:

# %%
beside = [
    part for part in ranking.sections if not (part.tables or part.folded)
]
Markdown("\n".join(f"- {line}" for part in beside for line in part.lines))

# %% [markdown]
# Do other scores agree? Each row is one way of ordering the same candidates:
# the combined score, its two terms, and the other scores of this package.
# `tau` is the mean Kendall τ of a row's order with the other rows' orders.
# Where they put different sources first, no score has the last word:
# fine-tune the first two and compare.

# %%
from companion.ranking import agreement
from companion.ranking.report import TITLES

orders = pd.concat({one.title: agreement(one) for one in ranking.sets})
orders.replace({"method": TITLES}).round(2)

# %% [markdown]
# ## How stable is the order?
#
# Ranked again on random halves of the images, whole patients where they are
# known. The spread over halves is the spread that other images from the same
# place would bring; it is turned into a 95 % interval of each source's lead
# over the next.

# %%
from dataclasses import replace

from companion.ranking import duration, stability

if repeats:
    cost = duration(ranking.stability_seconds(repeats))
    display(Markdown(f"{repeats} repeats take at most about {cost}."))
    ranking = replace(ranking, stability=stability(ranking, repeats))
    display(Markdown(ranking.stability.summary))
    shown = ranking.stability.table.round(2).astype(object).fillna("–")
else:
    shown = Markdown("Not repeated, since `repeats` is 0.")
shown

# %% [markdown]
# ## Check it by fine-tuning
#
# With `verify` set to 2 or more, that many sources, from the first on, are
# fine-tuned with three seeds and two learning rates each. The line below says
# which was ahead, and whether seeds and test images could reverse that; a
# linear classifier on the frozen network stands beside.

# %%
from companion.ranking import verify as fine_tune_first

if verify:
    ranking = replace(ranking, verification=fine_tune_first(ranking, verify))
    display(Markdown(ranking.verification.summary))
    shown = ranking.verification.table.round(3)
else:
    shown = Markdown("Not fine-tuned, since `verify` is 0.")
shown

# %% [markdown]
# ## Keep the result
#
# With `out` set to a folder: a table, a figure, and a page that opens without
# a connection. The page shows a few of your images unless `images` is False.
# Then `companion tune TARGET --source SOURCE --out FOLDER` fine-tunes the one
# you chose and keeps weights, predictions and what they are worth.

# %%
if out:
    written = ", ".join(map(str, ranking.save(out, images=images)))
    shown = f"Written: {written}."
else:
    shown = "Nothing is written: name a folder in `out`."
Markdown(shown)

# %% [markdown]
# **Exercise.** Leave out the first candidate and rank again: does the order of
# the others stay?
#
# :::{admonition} Takeaways
# - A ranking costs one pass over the images for each candidate.
# - It is relative to the candidates named, and its lead at the top may be
#   small: the line above says how small.
# - Where the sizes of the pre-training sets are known, ImageNet first and then
#   size is as good a rule ([](../book/choosing.md)). Where there is time for
#   one fine-tuning only, ImageNet is the choice to beat.
# :::

# %%
run.provenance(dataset)
