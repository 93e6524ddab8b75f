# %% [markdown]
# # Rank source models for images of your own
#
# :::{admonition} What you will do
# - point this notebook at your data and at the models you could start from;
# - get a ranking, with what it is worth said beside it;
# - keep the table, the figure and a page you can send to a colleague.
# :::
#
# You have a few hundred labelled images and several pre-trained models, and time to fine-tune one or two of them. This
# notebook scores every candidate in one pass over your images, without fine-tuning. It is a first form: it takes a
# `.npz` file in MedMNIST's layout or a folder with one sub-folder per class.
#
# :::{warning}
# Before you run this on Colab with patients' images: running there uploads them to somebody else's computer. On your own
# machine nothing leaves it.
# :::

# %% tags=["hide-cell"]
# Does nothing where the package is present; elsewhere (Colab, say) it installs it, leaving torch and numpy alone.
import importlib.util
import os
import subprocess
import sys

if importlib.util.find_spec("companion") is None:
    _wanted = os.environ.get("COMPANION_INSTALL", "transferability-companion==0.1.0")
    subprocess.run([sys.executable, "-m", "pip", "install", "--quiet", _wanted], check=True)

# %% tags=["parameters"]
# Parameters: change them here, or from outside with papermill.
target: str = "pneumoniamnist"  # your data: a .npz file or a folder of class folders; or a MedMNIST flag
sources: list = [  # candidate source models
    "scratch",
    "train:breastmnist",
    "train:retinamnist",
    "train:procedural:textures",
    "train:procedural:cells",
]
size: int = 28  # image side in pixels: 28, 64, 128 or 224
per_class: int = 100  # images scored: this many times the number of classes
seed: int = 24  # seed of draws, random weights and training

# %%
from companion.notebooks import check

run = check("07_new_target", globals())

# %% [markdown]
# ## Look at the data first
#
# Classes of very different size, or a class with a handful of images, make any score unsteady. Look at the counts before
# you look at a ranking.

# %%
import pandas as pd

import companion

dataset = companion.load_dataset(target, size=size)
print(dataset)
pd.DataFrame({split: dataset.class_counts(split) for split in dataset.labels})

# %% mystnb={"image": {"alt": "A few training images of every class of the target"}}
from companion import figures

figures.examples(dataset)

# %% [markdown]
# ## The candidates
#
# The default candidates are small models trained here in seconds, so that this page can be made anywhere; two of them
# learnt from **synthetic** pictures. For work that matters, name `imagenet`, other torchvision or timm models, or your
# own checkpoints. Candidates of one architecture are compared with each other, and so are different architectures
# with the same pre-training; the two kinds are never mixed.

# %%
ranking = companion.rank(dataset, sources, per_class=per_class, seed=seed)
ranking.drop(columns=["architecture", "pretraining", "note"]).round(3)

# %% mystnb={"image": {"alt": "Bars of the combined score, NCA and gradient ratio of every candidate"}}
figures.ranking(ranking)

# %% [markdown]
# ## What it says, and what that is worth

# %%
from companion import report

for pool in ranking.attrs["pools"]:
    rows = ranking[ranking["pool"] == pool["pool"]]
    print(f"{pool['pool']}: {report.verdict(pool, rows)}")
print(report.contexts(ranking))

# %% [markdown]
# Do other scores agree? Each column is a rank by one score alone, 1 for the best. Where the columns disagree, no score has
# the last word: fine-tune the first two and compare.

# %%
by_score = ranking[["proposed", "nca", "gradient_ratio", "logme", "leep", "nleep", "parc", "ncti"]]
by_score.rank(ascending=False).set_axis(ranking["source"])

# %% [markdown]
# ## Keep the result
#
# A table, a figure, and a page that opens without a connection.

# %%
import tempfile
from pathlib import Path

folder = Path(tempfile.mkdtemp()) / "ranking"
print(", ".join(path.name for path in report.write(ranking, folder)))

# %% [markdown]
# :::{admonition} What was seen
# - A ranking costs one pass over the images for each candidate.
# - It is relative to the candidates named, and its lead at the top may be small: the line above says how small.
# - Where there is no time for more than one fine-tuning, ImageNet is the choice to beat.
# :::

# %%
from companion.notebooks import foot

foot(run, dataset)
