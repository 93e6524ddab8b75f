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
from IPython.display import HTML, SVG, Markdown
from matplotlib.figure import Figure

import claims as recomputed
import first_page
import note_figures
from claims import measures, synthetic
from companion import evaluation, published, replication, store
from companion.datasets import cached_file, load_dataset, medmnist_classes, medmnist_flags, medmnist_samples
from companion.errors import EnvironmentFailure
from companion.evaluation.hypotheses import IMAGENET, interval
from companion.figures import TITLES
from companion.figures.style import title_of
from vector import picture, svg

# Groups of the claims file, which no count may mix.
GROUPS = {"paper": "claims of the paper", "tables": "arithmetic of its tables", "notes": "notes of ours"}
SUPERSCRIPT = str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹")
# Keys of sources and measures -> their published names; a dataset of MedMNIST is `PathMNIST` for `pathmnist`.
NAMES = {
    "imagenet": "ImageNet",
    "radimagenet": "RadImageNet",
    "medmnist": "MedMNIST but the target",
    "octmnist": "OCTMNIST",
    "organamnist": "OrganAMNIST",
    "organcmnist": "OrganCMNIST",
    "organsmnist": "OrganSMNIST",
    "densenet": "DenseNet-121",
    "efficientnet": "EfficientNetV2-S",
    "googlenet": "GoogLeNet",
    "mnasnet": "MNASNet 1.0",
    "mobilenet": "MobileNetV3-small",
    "vgg": "VGG-11",
    "convnext": "ConvNeXt-tiny",
    "shufflenet": "ShuffleNetV2 ×0.5",
    "resnet": "ResNet-18",
    "overlap": "shared nearest neighbours",
    "cka": "linear CKA",
    "separation": "separation of the classes",
}
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
    """Return how many folds of the second replication are complete, and of how many."""
    planned = replication.stored_protocol().fine_tuning.folds
    return f"{replication.ground_truth()['fold'].nunique()} of {len(planned)}"


def replicated(score: str, digits: int = 3) -> str:
    """Return the mean τ_w of a score over the targets of the second replication."""
    return shown(first_page.replicated_means().loc[score, "mean"], digits)


def replicated_lead(score: str, over: str) -> str:
    """Return the lead of a score over another in τ_w, with Student's interval over the replication's targets."""
    values = first_page.replicated_taus()[[score, over]].dropna()
    lead = (values[score] - values[over]).to_numpy()
    low, high = interval(lead)
    return f"{shown(lead.mean(), 3)} (95 % interval {shown(float(low), 3)} to {shown(float(high), 3)})"


def imagenet_replicated() -> str:
    """Return on how many of the replication's targets ImageNet was the best source, and its mean regret."""
    pairs = replication.table().query("source != 'scratch'")
    lost = evaluation.regret(pairs, lambda rows: IMAGENET)
    return f"{(lost == 0).sum()} of {len(lost)} targets and on average {shown(lost.mean(), 3)} AUC below the best one"


def self_first() -> str:
    """Return how often a feature score puts a target of the replication that is a source itself first, of how often."""
    scored = replication.scores().query("source != 'scratch'")
    names = [name for name in (*published.METRICS, "nca") if name in scored]
    ranks = scored.groupby(["target", "fold"])[names].rank(ascending=False)
    itself = scored["source"] == scored["target"]
    places = ranks[itself].groupby(scored["target"]).mean()
    return f"{int((places < 1.5).sum().sum())} of {int(places.notna().sum().sum())}"


def fold_agreement() -> str:
    """Return the mean τ_w over the targets between the replication's folds, lowest to highest pair of folds."""
    found = first_page.fold_taus().mean()
    low, high = shown(found.min(), 2), shown(found.max(), 2)
    return low if len(found) == 1 else f"{low} to {high}"


def seed_spread() -> str:
    """Return the standard deviation of the AUC over the seeds of the seed study, from the least target to the most."""
    found = replication.seed_runs().groupby("target")["test_auc"].std()
    return f"{shown(found.min(), 3)} to {shown(found.max(), 3)}"


def best_replicated() -> str:
    """Return the published score with the highest mean τ_w in the second replication, and that mean."""
    found = first_page.replicated_means()["mean"].reindex(list(published.METRICS))
    return f"{shown(found.max(), 3)} for {title_of(str(found.idxmax()))}"


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
        digit, power = f"{number:.0e}".split("e")  # it would read as nothing
        text = ("" if digit == "1" else f"{digit} × ") + f"10{str(int(power)).translate(SUPERSCRIPT)}"
    else:
        text = f"{number:.{digits}f}"
    return text.replace("-", "−")


def named(key: str) -> str:
    """Published name of a source, a target or a measure."""
    if key.endswith("mnist") and key not in NAMES:
        return f"{key.removesuffix('mnist').capitalize()}MNIST"
    return NAMES.get(key, key)


def brief(key: str) -> str:
    """Published name of a target without its ending, for the head of a narrow column."""
    return named(key).removesuffix("MNIST")


def span(low: float, high: float, digits: int = 3) -> str:
    """Both ends of an interval."""
    return "" if pd.isna(low) else f"{shown(low, digits)} to {shown(high, digits)}"


def probability(p: float) -> str:
    """A p-value with three decimals."""
    return "" if pd.isna(p) else "< 0.001" if p < 0.001 else shown(p, 3)


def _fixed(value: Any, digits: int) -> Any:
    """Text of a float that is whole."""
    return (
        f"{value:.{digits}f}".replace("-", "−") if isinstance(value, float) and value.is_integer() else value
    )


def markdown(frame: pd.DataFrame, digits: int = 3, caption: str = "") -> Markdown:
    """A table with its index; empty cells where a value is missing, one form of number a column."""

    def texts(column: pd.Series) -> list[str]:
        floats = [value for value in column if isinstance(value, float)]
        whole = all(value.is_integer() for value in floats if not np.isnan(value))
        fixed = column if whole else column.map(lambda value: _fixed(value, digits))  # 1.000 beside 0.523
        return ["" if pd.isna(value) else shown(value, digits) for value in fixed]

    names = [frame.index.name or "", *map(str, frame.columns)]
    cells = frame.astype(object).apply(texts)
    text = cells.to_markdown(tablefmt="github", headers=names, disable_numparse=True)
    return Markdown(f"```{{table}} {caption}\n{text}\n```" if caption else text)


def table(function: Callable[..., pd.DataFrame]) -> Callable[..., Markdown]:
    """Make a function's table one that a page can show, with a caption where the page gives one."""
    return functools.wraps(function)(lambda *given, caption="": markdown(function(*given), caption=caption))


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
def claims_table(group: str) -> pd.DataFrame:
    """Every claim of a group: its verdict, what was said and found, within what, on what evidence."""
    pages = {"scores": "scores.md", "reproduction": "reproduction.md"}
    rows = []
    for name, row in claims().query("group == @group").iterrows():
        link = pages.get(row["page"], f"../notebooks/{row['page']}.ipynb")
        said = "" if pd.isna(row["value"]) else shown(row["value"], 4)
        if row["rule"] == "within" and row["tolerance"]:
            said += f" ± {shown(row['tolerance'], 5)}"
        elif row["rule"] not in ("within", None, "verdict"):
            said = f"{row['rule']} {said}"
        found = "" if pd.isna(row["found"]) else shown(row["found"], 4)
        remarks = "; ".join([*row["caveats"], *([row["reason"]] if row["reason"] else [])])
        rows.append(
            {
                "claim": f"{row['claim']} ({row['where']})".replace("τ_w", "weighted τ"),
                "verdict": f"**{row['status']}**"
                + (f": {remarks}".replace("τ_w", "weighted τ") if remarks else ""),
                "said": said,
                "found": JUDGED.get(row["found"], "") if row["rule"] == "verdict" else found,
                "evidence": f"{row['evidence']}, [](<{link}>)",
                "tolerance": f"{row['why']} (`{name}`)",
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
    return pd.read_csv("modalities.csv", index_col="dataset").join(pd.DataFrame(rows).T).rename(index=named)


@table
def source_sizes() -> pd.DataFrame:
    """Training images behind every source dataset."""
    sizes = pd.Series(evaluation.training_set_sizes("chestmnist"), name="training images")
    everything = {"medmnist": "MedMNIST but the target (here without ChestMNIST)"}
    ordered = sizes.sort_values(ascending=False).rename_axis("source")
    return ordered.rename(lambda key: everything.get(key, named(key))).to_frame()


@table
def transfer(setting: str) -> pd.DataFrame:
    """Published AUCs, sources by targets; the best of a target is bold."""
    rows = published.table(setting).query("target != 'chestmnist'")
    wide = rows.pivot(index="source", columns="target", values="auc")
    best = wide.eq(wide.max())
    text = wide.map("{:.3f}".format).where(wide.notna(), "–")
    return text.mask(best, "**" + text + "**").rename(index=named, columns=brief)


def with_mean(frame: pd.DataFrame, name: str, texts: str = "", mean_texts: str = "") -> pd.DataFrame:
    """Targets by scores with readable names, and their mean below."""
    rows, mean = frame.rename(index=named), frame.mean().to_frame(name).T
    if texts:
        rows, mean = rows.map(texts.format), mean.map(mean_texts.format)
    return pd.concat([rows, mean]).rename(columns=title_of).rename_axis("target")


@table
def tau(setting: str) -> pd.DataFrame:
    """Weighted Kendall τ of every score on every target."""
    found = with_mean(evaluation.weighted_tau(setting), "mean")
    return found.map(lambda value: "–" if np.isnan(value) else f"{value:.3f}".replace("-", "−"))


@table
def ranks(setting: str) -> pd.DataFrame:
    """Rank of every score on every target."""
    found = evaluation.friedman(evaluation.weighted_tau(setting)).ranks
    return with_mean(found, "mean rank", "{:g}", "{:.2f}")


@table
def nemenyi(setting: str) -> pd.DataFrame:
    """P of Nemenyi's test for every pair of scores."""
    found = evaluation.nemenyi(evaluation.friedman(evaluation.weighted_tau(setting)).ranks)
    for place, name in enumerate(found):
        found.loc[name, found.columns[place]] = np.nan  # a score is not compared with itself
    return found.map(probability).rename(index=title_of, columns=title_of).rename_axis("score")


@table
def chosen(setting: str) -> pd.DataFrame:
    """Hyper-parameters of the run with the lowest validation loss, every pair, one below the other."""
    runs = published.table("run_summaries").query("setting == @setting and target != 'chestmnist'")
    cells = [
        "<br>".join(shown(value, 2) for value in (row.lr, row.momentum, row.weight_decay, row.batch_size))
        for row in runs.itertuples()
    ]
    wide = runs.assign(cell=cells).pivot(index="source", columns="target", values="cell").fillna("–")
    return wide.rename(index=named, columns=brief)


@table
def chosen_counts() -> pd.DataFrame:
    """How often each value was chosen, over all pairs of both settings."""
    runs = published.table("run_summaries")
    parts = []
    titles = {"lr": "learning rate", "momentum": "momentum", "weight_decay": "weight decay"}
    for name in titles:
        counts = runs.groupby([name, "setting"]).size().unstack(fill_value=0)
        parts.append(counts.rename(lambda value, name=name: f"{titles[name]} {shown(value, 1)}"))
    return pd.concat(parts).rename(columns=lambda name: name.replace("_", " ")).rename_axis("value")


@table
def similarity() -> pd.DataFrame:
    """How much closer NCA comes to fine-tuned features than LDA and than no projection."""
    rows = []
    for over, label in (("lda", "LDA"), ("before", "no projection")):
        for measure, row in measures.leads(replication.projections(), over).iterrows():
            closer = "closer" if row["low"] > 0 else "less close" if row["high"] < 0 else "undecided"
            rows.append(
                {
                    "measure": f"{named(measure)}, against {label}",
                    "NCA is": f"**{closer}**",
                    "NCA": row["nca"],
                    "the other": row["other"],
                    "lead of NCA": row["lead"],
                    "95 % interval": span(row["low"], row["high"]),
                }
            )
    return pd.DataFrame(rows).set_index("measure")


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
def statements() -> pd.DataFrame:
    """What the replication says of the statements written down before it: verdict second, then the numbers."""
    rows = []
    for (statement, quantity), row in measures.judged().iterrows():
        words = " ".join(TITLES.get(word, word).partition(" (")[0] for word in quantity.split())
        needed = row["needed"]
        rows.append(
            {
                "quantity": f"{statement.partition(',')[0]}. {words}".replace("τ_w", "weighted τ"),
                "verdict": f"**{row['word']}**",
                "effect": "" if pd.isna(row["value"]) else shown(row["value"], 3),
                "95 % interval": span(row["low"], row["high"]),
                "without one target": span(row["least"], row["most"], 2),
                "targets to decide": ""
                if pd.isna(needed)
                else shown(needed, 0)
                if np.isfinite(needed)
                else "> 1,000",
                "p": probability(row["p"]),
            }
        )
    return pd.DataFrame(rows).set_index("quantity")


# --- pictures -----------------------------------------------------------------------------------------------


def result() -> HTML:
    """The figure of the first page."""
    return first_page.result()


def ceiling_words() -> str:
    """What the caption of that figure says of the noise ceiling."""
    if first_page.ceiling() is None:
        return "The noise ceiling of the published ground truth is missing, since the authors' runs were not available."
    return "The grey band on the left is the noise ceiling: what a perfect score could reach against this noisy truth."


def available() -> list[str]:
    """MedMNIST's 2D sets whose file is on this machine."""
    return [flag for flag in medmnist_flags() if cached_file(flag, 28) and flag != "chestmnist"]


def samples() -> SVG | HTML:
    """Sample images and class balance of the MedMNIST sets that are available."""
    if not available():
        return HTML("<p>No file of MedMNIST was available when this page was built.</p>")
    return SVG(svg(note_figures.samples({named(flag): load_dataset(flag) for flag in available()})))


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
def other_ground_truths() -> Figure:
    """Mean τ_w against other summaries of the same runs."""
    return note_figures.other_ground_truths(evaluation.ground_truths(), ["proposed", "nleep", "leep"])
