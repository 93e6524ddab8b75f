"""What the explorer page shows: scores, ground truths, intervals and noise ceilings, as one script of data.

τ of all sources, its interval and the noise ceiling are computed here, when the book is built. The page's script
computes τ, places and regret again where a reader leaves sources out; a test holds it against `evaluation`.
"""

from __future__ import annotations

import functools
import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

import first_page
from companion import evaluation, figures, published, replication
from companion.errors import EnvironmentFailure
from companion.evaluation.ceiling import GROUND_TRUTHS
from companion.evaluation.hypotheses import PROPOSED_INVARIANT
from companion.figures.style import title_of
from companion.scores import INVERTED_ACROSS_DOMAINS, PAPER_SCORE, TERMS
from vector import svg

INVARIANT = "gradient_ratio_scale_invariant"
SCORES = (PAPER_SCORE, *TERMS, *published.METRICS)
LARGE = {
    "source_datasets": list(published.LARGE),
    "architectures": [],
    "replication": ["imagenet", "inat2017_birds", "inat2017_insects"],
}
SETTINGS = {
    "source_datasets": "published: source datasets (ResNet-18, trained on each)",
    "architectures": "published: architectures (each trained on ImageNet)",
    "replication": "replication: MobileNetV2 sources on seven other targets",
}
TITLES = {
    PAPER_SCORE: "proposed",
    PROPOSED_INVARIANT: "proposed, scale-invariant ratio",
    INVARIANT: "gradients alone, scale-invariant",
}
PRODUCTS = {PAPER_SCORE: TERMS, PROPOSED_INVARIANT: ("nca", INVARIANT)}
RULES = {
    "lowest_val_loss": GROUND_TRUTHS["auc_at_min_val_loss"],
    "mean_of_best": "mean of the two lowest validation losses",
    "highest_val_auc": GROUND_TRUTHS["auc_at_max_val_auc"],
}


def pairs(setting: str) -> tuple[pd.DataFrame, dict[str, str]]:
    """Rows of a setting, none of its scores inverted, and its ground truths: column -> what it is, the usual one first.

    Columns are source, target, the ground truths and the scores; source == target is left out.
    """
    if setting == "replication":
        truths = {
            rule: replication.ground_truth(rule).groupby(["source", "target"])["auc"].mean() for rule in RULES
        }
        found = first_page.replicated().join(pd.DataFrame(truths), on=["source", "target"])
        return found.drop(columns="training_images"), RULES
    table = evaluation.published_pairs(setting, inverted=False)
    simple = evaluation.baselines(table).drop(columns=["source", "target", "auc"])
    table = table.join(simple) if setting == "source_datasets" else table
    summaries = published.table("run_summaries").query("setting == @setting")
    found = table.merge(summaries[["source", "target", *GROUND_TRUTHS]], how="left", on=["source", "target"])
    # The published AUC is that of the run with the lowest validation loss, and there for every pair.
    return found.assign(auc_at_min_val_loss=found["auc"]), GROUND_TRUTHS


def intervals(setting: str, inverted: bool) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Bootstrap intervals of τ over sources, by (target, score) and of the mean by score; all scores one way round."""
    if setting == "replication":
        table = pairs(setting)[0]
    else:
        table = evaluation.published_pairs(setting, inverted=inverted)
    names = [name for name in (PROPOSED_INVARIANT, *SCORES, INVARIANT) if name in table]
    if inverted:
        done = {PAPER_SCORE, *INVERTED_ACROSS_DOMAINS}
        others = [name for name in names if name not in done]
        table[others] = 1 - table[others]
    table = table[["source", "target", "auc", *names]]
    found = evaluation.bootstrap(table, columns=names, against=None)
    return found.targets, found.mean


def ceilings(setting: str) -> dict[str, list[float]]:
    """Both ends of the noise ceiling by target; in the replication, τ between folds, from the lowest to the highest."""
    if setting == "replication":
        taus = first_page.fold_taus()
        return {str(target): [float(row.min()), float(row.max())] for target, row in taus.iterrows()}
    try:
        targets = evaluation.noise_ceiling(published.runs(download=False), setting=setting).targets
    except EnvironmentFailure:
        return {}
    ways = targets[[name for name in targets if name.startswith("attainable")]]
    return {str(target): [float(row.min()), float(row.max())] for target, row in ways.iterrows()}


def _plain(values: Any) -> Any:
    """Floats for JSON, which knows no NaN: None stands for what is undefined."""
    if np.ndim(values):
        return [_plain(value) for value in values]
    return float(values) if np.isfinite(values) else None


def _spans(setting: str, inverted: bool) -> dict[str, Any]:
    """Intervals as ``{target or "mean": {score: [low, high]}}``."""
    targets, mean = intervals(setting, inverted)
    found: dict[str, Any] = {
        "mean": {str(name): _plain(mean.loc[name, ["low", "high"]]) for name in mean.index}
    }
    for (target, score), row in targets.iterrows():
        found.setdefault(str(target), {})[str(score)] = _plain(row[["low", "high"]])
    return found


def _setting(setting: str) -> dict[str, Any]:
    table, truths = pairs(setting)
    wanted = (PAPER_SCORE, PROPOSED_INVARIANT, *TERMS, INVARIANT, *published.METRICS, *evaluation.BASELINES)
    scores = [name for name in wanted if name in table]
    # As released, the product's terms are rescaled over all sources of a target, the target itself among them.
    own = pd.DataFrame() if setting == "replication" else published.table(setting).query("source == target")
    targets = {}
    for target, rows in table.groupby("target"):
        itself = own[own["target"] == target] if len(own) else own
        targets[str(target)] = {
            "title": figures.short(str(target)),
            "sources": [str(source).removesuffix("_mobilenet_v2") for source in rows["source"]],
            "truths": {name: _plain(rows[name]) for name in truths},
            "scores": {name: _plain(rows[name]) for name in scores if name not in PRODUCTS},
            "itself": {name: _plain(itself[name].dropna()) for name in TERMS} if len(itself) else {},
        }
    return {
        "title": SETTINGS[setting],
        "truths": truths,
        "scores": scores,
        "inverted": [*INVERTED_ACROSS_DOMAINS, PAPER_SCORE]
        if setting == "architectures"
        else [],  # by the paper
        "large": LARGE[setting],
        "targets": targets,
        "intervals": {name: _spans(setting, name == "inverted") for name in ("released", "inverted")},
        "ceilings": ceilings(setting),
    }


@functools.cache
def data() -> dict[str, Any]:
    """All that the page can show.

    Returns
    -------
    dict
        ``scores`` (column -> name for people), ``products`` (the product's column -> its two terms), ``baselines``
        (columns that are never inverted) and ``settings``. Per setting: ``title``; its
        ground ``truths`` and ``scores``; those that the paper inverts (``inverted``); its ``large`` sources; by target
        the sources, and for each its AUC by ground truth and its scores; ``intervals`` by orientation, target (or
        ``mean``) and score, for all sources and the first ground truth; and ``ceilings`` by target. None where
        something is undefined.
    """
    settings = {setting: _setting(setting) for setting in SETTINGS}
    names = {name: TITLES.get(name, title_of(name)) for one in settings.values() for name in one["scores"]}
    return {
        "scores": names,
        "products": PRODUCTS,
        "baselines": list(evaluation.BASELINES),
        "settings": settings,
    }


def write(folder: Path) -> None:
    """Write what the explorer page loads into a folder: its data, its script, and a still figure."""
    folder.mkdir(parents=True, exist_ok=True)
    shutil.copy2(Path(__file__).with_name("explorer.js"), folder)
    # A script and no JSON file: a page opened from disk may not fetch.
    text = json.dumps(data(), allow_nan=False, ensure_ascii=False)
    (folder / "data.js").write_text(f"const explorerData = {text};\n", encoding="utf-8")
    # Where scripts are off: every target and score among source datasets.
    still = figures.tau_table(evaluation.weighted_tau("source_datasets"), SETTINGS["source_datasets"])
    (folder / "without_scripts.svg").write_text(svg(still), encoding="utf-8")
