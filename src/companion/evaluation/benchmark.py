"""`benchmark`: a metric author's score beside the published ones, with everything it should be held against."""

from __future__ import annotations

import inspect
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from html import escape
from typing import Any

import numpy as np
import pandas as pd

from companion import published
from companion.errors import EnvironmentFailure, InputError, did_you_mean
from companion.evaluation.agreement import (
    MIN_SOURCES,
    FriedmanResult,
    check_table,
    comparable,
    friedman,
    published_pairs,
    regret,
    weighted_tau,
)
from companion.evaluation.baselines import BASELINES, baselines
from companion.evaluation.ceiling import NoiseCeiling, noise_ceiling
from companion.evaluation.hypotheses import RANDOM
from companion.evaluation.intervals import Intervals, bootstrap
from companion.scores import PAPER_SCORE, REGISTRY, TERMS, with_combined

SETTINGS = (*published.SETTINGS, "replication")
KEYS = ["source", "target"]
FIRST_CHOICE = "always_imagenet"  # a choice and no order: it has a regret and no τ

Metric = Callable[..., float]
Progress = Callable[[float, str], None]


@dataclass(frozen=True, repr=False)
class Benchmark:
    """How a score does: what `benchmark` returns, and shows itself as a table."""

    setting: str
    table: pd.DataFrame
    """The pairs compared: ``source``, ``target``, ``auc``, all scores and baselines."""
    taus: pd.DataFrame
    """Targets by scores: weighted Kendall τ; the given scores first, then the others, then the baselines."""
    summary: pd.DataFrame
    """One row per score, baseline, reliability and ceiling, the highest mean τ_w first.

    ``kind`` (given, published or computed here, term, baseline, reliability, ceiling), ``mean`` τ_w with the interval
    ``low`` to ``high``, ``kendall`` (unweighted τ-b), ``regret`` (AUC of the best source less that of the first
    choice), ``rank`` (mean over the targets) and ``less_proposed``: mean difference to the proposed score where both
    are defined, with the interval ``less_low`` to ``less_high``. NaN where one does not apply.
    """
    intervals: Intervals
    """Bootstrap over sources: per target, of the mean, and of the difference to the proposed score."""
    friedman: FriedmanResult | None
    """Over the given and the published scores; None where there is too little to compare."""
    ceiling: NoiseCeiling | None
    """Reliability of the ground truth and the attainable maximum; None where the runs are missing."""
    left_out: list[str]
    """What was not compared or not computed, a sentence each."""

    def __str__(self) -> str:
        """Title, summary and what was left out, as text."""
        shown = self.summary.to_string(float_format="{:.3f}".format, na_rep="")
        return "\n".join([self._title(), shown, *(f"Left out: {sentence}" for sentence in self.left_out)])

    __repr__ = __str__

    def _repr_html_(self) -> str:
        """Show the same in a notebook."""
        shown = self.summary.to_html(float_format="{:.3f}".format, na_rep="", border=0)
        notes = "".join(f"<li>{escape(sentence)}</li>" for sentence in self.left_out)
        left_out = f"<p>Left out:</p><ul>{notes}</ul>" if notes else ""
        return f"<p>{escape(self._title())}</p>{shown}{left_out}"

    def _title(self) -> str:
        given = ", ".join(self.summary.index[self.summary["kind"] == "given"])
        return (
            f"{given} against the {self.setting.replace('_', ' ')} setting: {len(self.table)} pairs, "
            f"{self.table['source'].nunique()} sources, {len(self.taus)} targets"
        )


def benchmark(
    metric: pd.DataFrame | str | os.PathLike | pd.Series | Metric,
    *,
    setting: str = "source_datasets",
    name: str | None = None,
    draws: int = 1000,
    seed: int = 24,
    runs: pd.DataFrame | str | None = "auto",
    progress: Progress | None = None,
) -> Benchmark:
    """Hold a score of your own against the ground truth, the published scores and baselines.

    Parameters
    ----------
    metric
        Higher must mean better; if lower is better in yours, give its negative. One of

        - a table with ``source``, ``target`` and one numeric column a score, or the path of such a CSV file;
        - a series of one number for each (source, target);
        - for ``setting="replication"`` only, a function that returns a number and names its parameters after what it
          needs: ``features`` (n, d) float32, ``logits`` (n, source classes) float32 or None, ``labels`` (n,) integers,
          ``images`` uint8, ``model`` (`companion.models.SourceModel`).
    setting
        ``"source_datasets"`` or ``"architectures"`` (the published results; `companion.published.table` lists the
        names of the pairs), or ``"replication"`` (this project's own fine-tuning results).
    name
        What to call the score of a series or function; the column to take, where a table has several.
    draws, seed
        Resamples of the intervals, and their seed.
    runs
        For the noise ceiling: ``"auto"`` reads or downloads the runs where that is possible, a table as
        `companion.published.runs` returns it is used, None leaves the ceiling out.
    progress
        Called with the fraction done and a line of text while a function is computed.

    Returns
    -------
    Benchmark
        On the pairs for which every given score has a finite number; what is left out is reported in ``left_out``. A
        score named like a published one is shown with " (given)" behind its name.

    Raises
    ------
    InputError
        If the metric is none of the above, names an unknown source or target, gives a pair twice, has no finite
        number, or fails on a pair.
    EnvironmentFailure
        If the replication's results or images cannot be had.
    """
    if setting not in SETTINGS:
        near = did_you_mean(setting, SETTINGS)
        raise InputError(f"no setting {setting!r}: there are {', '.join(SETTINGS)}.{near}")
    if isinstance(runs, str) and runs != "auto":
        raise InputError(f"runs: 'auto', a table of runs or None is needed, got {runs!r}")
    notes: list[str] = []
    truth = _replicated(notes) if setting == "replication" else published_pairs(setting)
    if not callable(metric):
        given = _given(metric, name)
    elif setting == "replication":
        given = _computed(metric, name or str(getattr(metric, "__name__", "mine")), truth, progress)
    else:
        raise InputError(
            "a function needs features, and there are none for the published pairs: give a table of scores, "
            "or setting='replication'"
        )
    taken = {*truth.columns, *BASELINES, FIRST_CHOICE} - set(KEYS)
    given = given.rename(columns={column: f"{column} (given)" for column in taken})
    table = _common(given, truth, notes)
    rivals = [column for column in truth if column == PAPER_SCORE or column in REGISTRY]
    simple = baselines(table).drop(columns=[*KEYS, "auc"])
    if lacking := [what for column, what in BASELINES.items() if column not in simple]:
        notes.append(f"baselines that do not apply or lack their numbers here: {', '.join(lacking)}.")
    if partial := [column for column in rivals if table[column].isna().any()]:
        notes.append(f"from the τ_w of {', '.join(partial)}: the pairs that these scores lack.")
    kinds = dict.fromkeys(given.columns[2:], "given")
    beside = "computed here" if setting == "replication" else "published"
    kinds |= {column: "term" if column in TERMS else beside for column in rivals}
    compared = [column for column, kind in kinds.items() if kind != "term"]
    scored = table[[*KEYS, "auc", *kinds]].join(simple)
    kinds |= dict.fromkeys(simple, "baseline")
    taus, test = weighted_tau(scored)[list(kinds)], None
    try:
        test = friedman(taus, compared)
    except InputError as error:
        notes.append(f"Friedman's and Nemenyi's tests: {error}.")
    intervals = bootstrap(scored, columns=list(kinds), draws=draws, seed=seed)
    ceiling = _ceiling(setting, table, runs, seed, notes)
    summary = _summary(kinds, scored, taus, intervals, test, ceiling)
    return Benchmark(setting, scored, taus, summary, intervals, test, ceiling, notes)


def _summary(
    kinds: dict[str, str],
    scored: pd.DataFrame,
    taus: pd.DataFrame,
    intervals: Intervals,
    test: FriedmanResult | None,
    ceiling: NoiseCeiling | None,
) -> pd.DataFrame:
    """`Benchmark.summary`, of its other fields and the kind of every score."""
    rows = pd.DataFrame({"kind": kinds}).join(intervals.mean)
    by_target = scored.groupby("target")[[*kinds, "auc"]]
    kendall = by_target.apply(lambda block: block[list(kinds)].corrwith(block["auc"], method="kendall"))
    rows["kendall"] = kendall.where(taus.notna()).mean()
    rows["regret"] = [regret(scored, name).mean() for name in kinds]
    rows["rank"] = np.nan if test is None else test.ranks.mean()
    beside = intervals.differences.drop(index=list(BASELINES), errors="ignore")
    rows = rows.join(beside.set_axis(["less_proposed", "less_low", "less_high"], axis=1))
    if (scored["source"] == "imagenet").any():
        lost = regret(scored, lambda rows: "imagenet").mean()
        rows = pd.concat([rows, pd.DataFrame({"kind": "baseline", "regret": lost}, [FIRST_CHOICE])])
    if ceiling is not None:
        both = ceiling.mean
        named = ["ceiling" if name.startswith("attainable") else "reliability" for name in both.index]
        rows = pd.concat([rows, both.assign(kind=named)])
    return rows.sort_values("mean", ascending=False, kind="stable").rename_axis("score")


def _replicated(notes: list[str]) -> pd.DataFrame:
    """Results of this project's own fine-tuning but for random weights, no candidate, with the combined score."""
    from companion import replication

    table = replication.table()
    stored, planned = table.attrs["runs"]["stored"], table.attrs["runs"]["planned"]
    if stored < planned:
        notes.append(f"{planned - stored} of {planned} fine-tunings, not yet run.")
    return with_combined(comparable(table[table["source"] != RANDOM]).reset_index(drop=True))


def _given(metric: Any, name: str | None) -> pd.DataFrame:
    """Read the author's table, CSV file or series into ``source``, ``target`` and numeric columns."""
    if isinstance(metric, str | os.PathLike):
        try:
            metric = pd.read_csv(metric)
        except (OSError, ValueError) as error:
            raise InputError(f"{metric} cannot be read as a CSV table of scores: {error}") from error
    if isinstance(metric, pd.Series) and metric.index.nlevels == 2:
        named = metric if set(metric.index.names) == set(KEYS) else metric.rename_axis(KEYS)
        metric = named.rename(name or metric.name or "mine").reset_index()
    if not isinstance(metric, pd.DataFrame):
        wanted = "a table, its CSV file, a series by (source, target) or a function"
        raise InputError(f"{type(metric).__name__} is no metric: give {wanted}")
    check_table(metric, KEYS)
    numeric = metric.drop(columns=[*KEYS, "auc"], errors="ignore").select_dtypes("number").rename(columns=str)
    if name is not None and name not in numeric:
        raise InputError(f"the table has no score {name!r}.{did_you_mean(name, map(str, numeric))}")
    if numeric.empty:
        has = ", ".join(map(str, metric.columns))
        raise InputError(f"the table has no numeric column of scores beside source and target: it has {has}")
    return pd.concat([metric[KEYS], numeric[[name]] if name else numeric], axis=1)


def _computed(metric: Metric, name: str, truth: pd.DataFrame, progress: Progress | None) -> pd.DataFrame:
    """Call the author's function once a pair of the replication, with what its parameters ask for by name."""
    from companion import replication
    from companion.scores.forward_pass import single_pass

    rows = []
    for pair in replication.pairs(targets=sorted(truth["target"].unique()), progress=progress):
        if pair.source == RANDOM:
            continue
        passed = single_pass(pair.model, pair.images, pair.labels)
        there: dict[str, Any] = {"features": passed.features, "logits": passed.logits}
        there |= {"labels": pair.labels, "images": pair.images, "model": pair.model}
        try:
            wanted = inspect.signature(metric).parameters
            value = float(metric(**{key: given for key, given in there.items() if key in wanted}))
        except Exception as error:
            raise InputError(
                f"{name} failed for source {pair.source!r}, target {pair.target!r}: {type(error).__name__}: {error}; a "
                f"function can have {', '.join(there)}, by these names, and returns a number"
            ) from error
        rows.append({"source": pair.source, "target": pair.target, name: value})
    return pd.DataFrame(rows)


def _common(given: pd.DataFrame, truth: pd.DataFrame, notes: list[str]) -> pd.DataFrame:
    """Rows of the ground truth for which every given score is finite, on targets with enough of them."""
    for key in KEYS:
        beside = {"target": "chestmnist", "source": RANDOM}[key]  # a target without scores, and no candidate
        known = {*truth[key], beside}
        if unknown := [value for value in given[key] if value not in known]:
            there = f"there are {', '.join(sorted(set(truth[key])))}.{did_you_mean(unknown[0], known)}"
            raise InputError(f"no {key} {unknown[0]!r} in this setting: {there}")
    if beyond := len(given) - len(given.merge(truth[KEYS])):
        notes.append(
            f"{beyond} given pair(s) without a comparison: a source on itself, or one without scores."
        )
    names = list(given.columns[2:])
    table = truth.merge(given, on=KEYS, how="left")
    finite = np.isfinite(table[names].to_numpy(dtype=float)).all(axis=1)
    if not finite.any():
        raise InputError(f"{', '.join(names)}: no finite score for any pair of the setting")
    if not finite.all():
        lost = [f"{row.source} on {row.target}" for row in table.loc[~finite, KEYS].itertuples()]
        notes.append(
            f"{len(lost)} of {len(table)} pairs without a finite given score, for all scores alike: {_listed(lost)}."
        )
    table = table[finite].reset_index(drop=True)
    sizes = table.groupby("target")["source"].transform("size")
    if few := sorted(set(table.loc[sizes < MIN_SOURCES, "target"])):
        notes.append(f"{len(few)} target(s) with fewer than {MIN_SOURCES} sources left: {_listed(few)}.")
    table = table[sizes >= MIN_SOURCES].reset_index(drop=True)
    if table.empty:
        raise InputError(f"{', '.join(names)}: no target with scores for at least {MIN_SOURCES} sources")
    if same := [name for name in names if table.groupby("target")[name].nunique().max() < 2]:
        notes.append(f"τ_w of {', '.join(same)}: the same for every source of a target.")
    return table


def _listed(items: Sequence[str], most: int = 6) -> str:
    return ", ".join(items[:most]) + (f" and {len(items) - most} more" if len(items) > most else "")


def _ceiling(
    setting: str, table: pd.DataFrame, runs: pd.DataFrame | str | None, seed: int, notes: list[str]
) -> NoiseCeiling | None:
    """Noise ceiling of the published runs, or a note why there is none."""
    if setting == "replication":
        notes.append("the noise ceiling: it is computed from the published runs.")
        return None
    if runs is None:
        return None
    try:
        frame = runs if isinstance(runs, pd.DataFrame) else published.runs()
    except EnvironmentFailure as error:
        notes.append(f"the noise ceiling, since its runs are missing: {error}.")
        return None
    if lost := sorted(set(table["source"]) - set(frame.loc[frame["setting"] == setting, "source"])):
        notes.append(f"source(s) without runs, from the noise ceiling: {', '.join(lost)}.")
    return noise_ceiling(frame, setting=setting, seed=seed, pairs=table)
