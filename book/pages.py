"""Numbers, tables and pictures of the book's pages, computed while the book is built.

A page calls these functions: ``{eval}`claim("note-10-size")` `` in prose; ``tau("architectures")``, ``saturation()`` in
blocks of their own. MyST-NB evaluates that in a kernel of the page; a call that fails stops the build.
"""

from __future__ import annotations

import datetime
import functools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from IPython.display import HTML, Markdown
from matplotlib.figure import Figure

import claims as recomputed
import first_page
import note_figures
from claims import measures, synthetic
from companion import evaluation, figures, published, replication, store
from companion.datasets import cached_file, load_dataset, medmnist_classes, medmnist_flags, medmnist_samples
from companion.errors import EnvironmentFailure
from companion.figures import TITLES, short
from vector import picture

# Groups of the claims file, which no count may mix.
GROUPS = {"paper": "claims of the paper", "tables": "arithmetic of its tables", "notes": "notes of ours"}
JUDGED = {1.0: "supported", 0.0: "undecided", -1.0: "contradicted"}


@functools.cache
def claims() -> pd.DataFrame:
    """Every claim, recomputed: by the first page that asks, for all pages of one build."""
    kept = Path("claims.pkl")  # in the staged folder, where the pages' kernels run
    if not kept.exists():
        recomputed.table().to_pickle(kept)
    return pd.read_pickle(kept)


def claim(name: str, digits: int = 3, *, what: str = "found") -> str:
    """Return what recomputing a claim gives, or another of its columns (``value``, ``status``)."""
    return shown(claims().loc[name, what], digits)


def number(name: str, digits: int = 3, **arguments: Any) -> str:
    """Return what one measure of the claims gives."""
    given = {key: tuple(value) if isinstance(value, list) else value for key, value in arguments.items()}
    try:
        return shown(float(measures.MEASURES[name](**given)), digits)
    except EnvironmentFailure:
        return "(not available when this page was built)"


def folds() -> str:
    """Return which folds of the second replication are complete, and of which."""
    complete = sorted(replication.ground_truth()["fold"].unique())
    planned = replication.stored_protocol().fine_tuning.folds
    return f"{', '.join(map(str, complete))} of {', '.join(map(str, planned))}"


def replicated(score: str, digits: int = 3) -> str:
    """Return the mean τ_w of a score over the targets of the second replication."""
    return shown(first_page.replicated_means().loc[score, "mean"], digits)


def effect(statement: str, quantity: str) -> str:
    """Return one quantity of the second replication: effect, interval, and only then its word."""
    row = measures.judged().loc[(statement, quantity)]
    if row["word"] == "not judged":
        return "not judged"
    value, low, high = (shown(row[name], 3) for name in ("value", "low", "high"))
    return f"{value} (95 % interval {low} to {high}: {row['word']})"


def shown(value: Any, digits: int) -> str:
    """A number as prose has it; whole numbers without a decimal point."""
    if not isinstance(value, int | float | np.number):
        return str(value)
    number = float(value)
    if np.isnan(number):
        return "(not attempted)"
    if number.is_integer():
        text = f"{number:,.0f}"
    elif abs(number) < 0.5 * 10.0**-digits:
        text = f"{number:.0e}"  # it would read as nothing
    else:
        text = f"{number:.{digits}f}"
    return text.replace("-", "−")


def _fixed(value: Any, digits: int) -> Any:
    """Text of a float that is whole."""
    return (
        f"{value:.{digits}f}".replace("-", "−") if isinstance(value, float) and value.is_integer() else value
    )


def markdown(frame: pd.DataFrame, digits: int = 3) -> Markdown:
    """A table with its index; empty cells where a value is missing, one form of number a column."""

    def texts(column: pd.Series) -> list[str]:
        floats = [value for value in column if isinstance(value, float)]
        whole = all(value.is_integer() for value in floats if not np.isnan(value))
        fixed = column if whole else column.map(lambda value: _fixed(value, digits))  # 1.000 beside 0.523
        return ["" if pd.isna(value) else shown(value, digits) for value in fixed]

    names = [frame.index.name or "", *map(str, frame.columns)]
    cells = frame.astype(object).apply(texts)
    return Markdown(cells.to_markdown(tablefmt="github", headers=names, disable_numparse=True))


def table(function: Callable[..., pd.DataFrame]) -> Callable[..., Markdown]:
    """Make a function's table one that a page can show."""
    return functools.wraps(function)(lambda *given: markdown(function(*given)))


def provenance() -> Markdown:
    """How a page was made, as the last cell of every notebook says it."""
    record = store.provenance()
    rows = {
        "Data": f"{published.PROVENANCE}; `companion.replication`",
        "Versions": f"companion {record['companion']} (results version {record['results_version']}), Python "
        f"{record['python']}, {', '.join(' '.join(pair) for pair in record['libraries'].items())}",
        "Built": datetime.date.today().isoformat(),
    }
    return markdown(pd.Series(rows, name="").rename_axis("How this page was made").to_frame())


# --- tables -------------------------------------------------------------------------------------------------


@table
def claims_summary() -> pd.DataFrame:
    """How many claims of each group have which status."""
    counts = pd.crosstab(claims()["status"], claims()["group"])
    counts = counts.reindex(index=recomputed.STATUS, columns=list(GROUPS), fill_value=0)
    return counts.rename(columns=GROUPS).rename_axis("status")


@table
def claims_table() -> pd.DataFrame:
    """Every claim: what was said, what was found, within what, on what evidence, with what result."""
    pages = {"scores": "scores.md", "reproduction": "reproduction.md"}
    rows = []
    for name, row in claims().iterrows():
        link = pages.get(row["page"], f"../notebooks/{row['page']}.ipynb")
        said = "" if pd.isna(row["value"]) else shown(row["value"], 4)
        if row["rule"] == "within" and row["tolerance"]:
            said += f" ± {row['tolerance']:g}"
        elif row["rule"] not in ("within", None, "verdict"):
            said = f"{row['rule']} {said}"
        found = "" if pd.isna(row["found"]) else shown(row["found"], 4)
        remarks = "; ".join([*row["caveats"], *([row["reason"]] if row["reason"] else [])])
        rows.append(
            {
                "claim": f"{row['claim']} ({row['where']})",
                "kind": GROUPS[row["group"]],
                "status": f"**{row['status']}**" + (f": {remarks}" if remarks else ""),
                "said": said,
                "found": JUDGED.get(row["found"], "") if row["rule"] == "verdict" else found,
                "evidence": row["evidence"],
                "shown in": f"[](<{link}>)",
                "why this tolerance": row["why"],
                "id": f"`{name}`",
            }
        )
    return pd.DataFrame(rows).set_index("claim")


@table
def datasets() -> pd.DataFrame:
    """MedMNIST's 2D sets: images, classes, modality; counted where the file is available."""
    rows = {}
    for flag in medmnist_flags():
        counts, here = medmnist_samples()[flag], cached_file(flag, 28)
        if here:
            counts = {split: len(values) for split, values in load_dataset(flag).labels.items()}
        rows[flag] = {
            "classes": len(medmnist_classes()[flag]),
            **{f"{split} images": counts[split] for split in ("train", "val", "test")},
            "role": "source" if flag == "chestmnist" else "source and target",
            "numbers": "counted here" if here else "publisher's numbers",
        }
    return pd.read_csv("modalities.csv", index_col="dataset").join(pd.DataFrame(rows).T)


@table
def source_sizes() -> pd.DataFrame:
    """Training images behind every source dataset."""
    sizes = pd.Series(evaluation.training_set_sizes("chestmnist"), name="training images")
    everything = "medmnist (all sets but the target; here without chestmnist)"
    return (
        sizes.sort_values(ascending=False).rename_axis("source").rename({"medmnist": everything}).to_frame()
    )


@table
def transfer(setting: str) -> pd.DataFrame:
    """Published AUCs, sources by targets; the best of a target is bold."""
    rows = published.table(setting).query("target != 'chestmnist'")
    wide = rows.pivot(index="source", columns="target", values="auc")
    best = wide.eq(wide.max())
    text = wide.map("{:.4f}".format).where(wide.notna(), "")
    return text.mask(best, "**" + text + "**").rename(columns=short)


def with_mean(frame: pd.DataFrame, name: str, texts: str = "", mean_texts: str = "") -> pd.DataFrame:
    """Targets by scores with readable names, and their mean below."""
    rows, mean = frame.rename(index=short), frame.mean().to_frame(name).T
    if texts:
        rows, mean = rows.map(texts.format), mean.map(mean_texts.format)
    return (
        pd.concat([rows, mean]).rename(columns=lambda score: TITLES.get(score, score)).rename_axis("target")
    )


@table
def tau(setting: str) -> pd.DataFrame:
    """Weighted Kendall τ of every score on every target."""
    return with_mean(evaluation.weighted_tau(setting), "mean")


@table
def ranks(setting: str) -> pd.DataFrame:
    """Rank of every score on every target."""
    found = evaluation.friedman(evaluation.weighted_tau(setting)).ranks
    return with_mean(found, "mean rank", "{:g}", "{:.2f}")


@table
def nemenyi(setting: str) -> pd.DataFrame:
    """P of Nemenyi's test for every pair of scores."""
    import scikit_posthocs

    found = evaluation.friedman(evaluation.weighted_tau(setting)).ranks
    names = [TITLES.get(name, name) for name in found.columns]
    values = scikit_posthocs.posthoc_nemenyi_friedman(found.to_numpy()).to_numpy()
    return pd.DataFrame(values, index=pd.Index(names, name="p"), columns=names)


@table
def chosen(setting: str) -> pd.DataFrame:
    """Hyper-parameters of the run with the lowest validation loss, every pair."""
    runs = published.table("run_summaries").query("setting == @setting and target != 'chestmnist'")
    cells = [
        f"{row.lr:g}, {row.momentum:g}, {row.weight_decay:g}, {row.batch_size:.0f}"
        for row in runs.itertuples()
    ]
    return (
        runs.assign(cell=cells).pivot(index="source", columns="target", values="cell").rename(columns=short)
    )


@table
def chosen_counts() -> pd.DataFrame:
    """How often each value was chosen, over all pairs of both settings."""
    runs = published.table("run_summaries")
    parts = []
    for name in ("lr", "momentum", "weight_decay"):
        counts = runs.groupby([name, "setting"]).size().unstack(fill_value=0)
        parts.append(counts.rename(lambda value, name=name: f"{name.replace('_', ' ')} {value:g}"))
    return pd.concat(parts).rename(columns=lambda name: name.replace("_", " ")).rename_axis("value")


@table
def similarity() -> pd.DataFrame:
    """How much closer NCA comes to fine-tuned features than LDA and than no projection."""
    parts = {
        f"NCA against {label}": measures.leads(replication.projections(), over)
        for over, label in (("lda", "LDA"), ("before", "no projection"))
    }
    whole = pd.concat(parts, names=["compared", "measure"]).reset_index("measure")
    return whole.assign(
        word=np.select([whole["low"] > 0, whole["high"] < 0], ["closer", "less close"], "undecided")
    )


def noise() -> pd.DataFrame:
    """LogME of pure noise with 200 points, by number of features, as published and corrected."""
    variants, widths = ("published", "corrected"), (32, 128, 256, 512, 1024, 4096)
    values = {variant: [synthetic.logme_on_noise(width, variant) for width in widths] for variant in variants}
    return pd.DataFrame(values, index=pd.Index(widths, name="features"))


noise_by_width = table(noise)


@table
def without_large() -> pd.DataFrame:
    """Mean τ_w with and without the three large sources."""
    rows = evaluation.published_pairs("source_datasets")[["source", "target", "auc", *measures.SEVEN]]
    small = rows[~rows["source"].isin(published.LARGE)]
    parts = {"all 15 sources": rows, "without the three large": small}
    return pd.DataFrame({name: evaluation.weighted_tau(part).mean() for name, part in parts.items()}).rename(
        TITLES
    )


@table
def first_on_itself() -> pd.DataFrame:
    """Targets that put themselves first as their own source, by score."""
    measure = measures.MEASURES["first_on_itself"]
    names = [name for name in (*published.METRICS, "gradient_ratio") if name != "ncti"]
    counts = {TITLES[name]: int(measure(name)) for name in names}
    return pd.Series(counts, name="targets of 11").rename_axis("score").to_frame()


@table
def seeds() -> pd.DataFrame:
    """NLEEP of one set of synthetic features over seeds of its mixture."""
    values = np.array(synthetic.nleep_over_seeds())
    row = {
        "seeds": len(values),
        "mean": values.mean(),
        "sd": values.std(ddof=1),
        "smallest": values.min(),
        "largest": values.max(),
    }
    return pd.DataFrame(row, index=pd.Index(["NLEEP"], name="synthetic features"))


@table
def ground_truths() -> pd.DataFrame:
    """Mean τ_w of every score against other summaries of the same runs."""
    return evaluation.ground_truths().rename(index=TITLES)


@table
def statements() -> pd.DataFrame:
    """What the replication says of the statements written down before it."""
    return measures.judged().reset_index("quantity")


# --- pictures -----------------------------------------------------------------------------------------------


def result() -> HTML:
    """The figure of the first page."""
    return first_page.result()


def ceiling_words() -> str:
    """What the caption of that figure says of the noise ceiling."""
    if first_page.ceiling() is None:
        return "The noise ceiling of the published ground truth is missing, since the authors' runs were not available."
    return "The grey band is the noise ceiling: what a perfect score could reach against this noisy ground truth."


@picture
def saturation() -> Figure:
    """Share of the sources to which SFDA gives exactly 1, by target and setting."""
    parts = {}
    for setting in published.SETTINGS:
        rows = published.table(setting).dropna(subset="logme")
        parts[setting] = (rows["sfda"] == 1).groupby(rows["target"]).mean()
    return note_figures.saturation(pd.DataFrame(parts))


@picture
def size_and_auc() -> Figure:
    """τ_w of the number of training images against AUC, with all sources and without the three large ones."""
    sized = measures.sized_pairs()[["source", "target", "auc", "training_set_size"]]
    parts = {"all sources": sized, "without the three large": sized[~sized["source"].isin(published.LARGE)]}
    taus = {name: evaluation.weighted_tau(part)["training_set_size"] for name, part in parts.items()}
    return note_figures.size_and_auc(pd.DataFrame(taus))


@picture
def noise_figure() -> Figure:
    """LogME of pure noise by number of features."""
    return note_figures.by_width(noise().to_dict(), 200)


@picture
def inversion() -> Figure:
    """Mean τ_w among architectures, as released and inverted as in the paper."""
    released = evaluation.weighted_tau("architectures", inverted=False)
    return figures.inversion(released.mean(), evaluation.weighted_tau("architectures").mean())


@picture
def other_ground_truths() -> Figure:
    """Mean τ_w against other summaries of the same runs."""
    return note_figures.other_ground_truths(evaluation.ground_truths(), ["proposed", "nleep", "leep"])
