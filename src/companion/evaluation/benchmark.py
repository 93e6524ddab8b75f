"""`benchmark`: a metric author's score beside the published ones, with everything it should be held against."""

from __future__ import annotations

import inspect
import os
from collections.abc import Callable, Mapping, Sequence
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
    check_pairs_once,
    check_table,
    friedman,
    kendall_tau,
    published_pairs,
    regret,
    weighted_tau,
)
from companion.evaluation.baselines import BASELINES, baselines
from companion.evaluation.ceiling import NoiseCeiling, noise_ceiling
from companion.evaluation.intervals import Intervals, bootstrap
from companion.scores import PAPER_SCORE, REGISTRY, TERMS, with_combined

SETTINGS = (*published.SETTINGS, "replication")
KEYS = ["source", "target"]
ARGUMENTS = ("features", "logits", "labels", "images", "model")  # what an author's function may ask for
FIRST_CHOICE = "always_imagenet"  # a choice and no order: it has a regret and no τ

Metric = Callable[..., float]


@dataclass(frozen=True, repr=False)
class Benchmark:
    """How a score does: what `benchmark` returns, and shows itself as a table.

    Tables by target have the given scores first, then the others, then the baselines.
    """

    kinds: dict[str, str]
    """Score or baseline -> given, published or computed here, term, baseline."""
    setting: str
    table: pd.DataFrame
    """The pairs compared: ``source``, ``target``, ``auc``, all scores and baselines."""
    taus: pd.DataFrame
    """Targets by scores: weighted Kendall τ."""
    intervals: Intervals
    """Bootstrap over sources: per target, of the mean, and of the difference to the proposed score."""
    kendall: pd.DataFrame
    """Targets by scores: unweighted Kendall τ-b."""
    regret: pd.DataFrame
    """Targets by scores: AUC of the best source less that of the first choice."""
    friedman: FriedmanResult | None
    """Over the given and the published scores; None where there is too little to compare."""
    ceiling: NoiseCeiling | None
    """Reliability of the ground truth and the attainable maximum; None where the runs are missing."""
    left_out: list[str]
    """What was not compared or not computed, a sentence each."""

    @property
    def names(self) -> list[str]:
        """Columns of the score or scores given."""
        return [name for name, kind in self.kinds.items() if kind == "given"]

    @property
    def mean(self) -> pd.Series:
        """Mean τ_w over the targets."""
        return self.taus.mean()

    @property
    def ranks(self) -> pd.DataFrame | None:
        """Targets by scores, 1 = best, for a critical-difference diagram; None as for `friedman`."""
        return None if self.friedman is None else self.friedman.ranks

    @property
    def baselines(self) -> pd.DataFrame:
        """Rows of `summary` that need no score."""
        return self.summary().loc[[name for name, kind in self.kinds.items() if kind == "baseline"]]

    def summary(self) -> pd.DataFrame:
        """One row per score, baseline, reliability and ceiling, the highest mean τ_w first.

        ``kind`` (as in `kinds`, or reliability, ceiling), ``mean`` τ_w with the interval ``low`` to ``high``,
        ``kendall``, ``regret``, ``rank`` (mean over the targets) and ``less_proposed``: mean difference to the proposed
        score where both are defined, with the interval ``less_low`` to ``less_high``. NaN where one does not apply.
        """
        rows = pd.DataFrame({"kind": self.kinds}).join(self.intervals.mean)
        rows["kendall"], rows["regret"] = self.kendall.mean(), self.regret.mean()
        rows["rank"] = np.nan if self.ranks is None else self.ranks.mean()
        beside = self.intervals.differences.drop(index=list(BASELINES), errors="ignore")
        rows = rows.join(beside.set_axis(["less_proposed", "less_low", "less_high"], axis=1))
        if self.ceiling is not None:
            both = self.ceiling.mean
            kinds = ["ceiling" if name.startswith("attainable") else "reliability" for name in both.index]
            rows = pd.concat([rows, both.assign(kind=kinds)])
        return rows.sort_values("mean", ascending=False, kind="stable").rename_axis("score")

    def __str__(self) -> str:
        """Title, summary and what was left out, as text."""
        shown = self.summary().to_string(float_format="{:.3f}".format, na_rep="")
        return "\n".join([self._title(), shown, *(f"Left out: {sentence}" for sentence in self.left_out)])

    __repr__ = __str__

    def _repr_html_(self) -> str:
        """Show the same in a notebook."""
        shown = self.summary().to_html(float_format="{:.3f}".format, na_rep="", border=0)
        notes = "".join(f"<li>{escape(sentence)}</li>" for sentence in self.left_out)
        left_out = f"<p>Left out:</p><ul>{notes}</ul>" if notes else ""
        return f"<p>{escape(self._title())}</p>{shown}{left_out}"

    def _title(self) -> str:
        return (
            f"{', '.join(self.names)} against the {self.setting.replace('_', ' ')} setting: {len(self.table)} pairs, "
            f"{self.table['source'].nunique()} sources, {len(self.taus)} targets"
        )


def benchmark(
    metric: pd.DataFrame | pd.Series | Mapping[tuple[str, str], float] | str | os.PathLike | Metric,
    *,
    setting: str = "source_datasets",
    name: str | None = None,
    draws: int = 1000,
    seed: int = 24,
    runs: pd.DataFrame | str | None = "auto",
    progress: Callable[[float, str], None] | None = None,
) -> Benchmark:
    """Hold a score of your own against the ground truth, the published scores and baselines.

    Parameters
    ----------
    metric
        Higher must mean better; if lower is better in yours, give its negative. One of

        - a table with ``source``, ``target`` and one numeric column a score, or the path of such a CSV file;
        - a series or mapping from (source, target) to a number;
        - for ``setting="replication"`` only, a function that returns a number and names its parameters after what it
          needs: ``features`` (n, d) float32, ``logits`` (n, source classes) float32 or None, ``labels`` (n,) integers,
          ``images`` uint8, ``model`` (`companion.models.SourceModel`).
    setting
        ``"source_datasets"`` or ``"architectures"`` (the published results; `companion.published.table` lists the
        names of the pairs), or ``"replication"`` (this project's own fine-tuning results).
    name
        What to call the score; the column to take, where a table has several.
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
    given = _checked(given, truth, setting, notes)
    table = _common(given, truth, notes)
    rivals = [column for column in truth if column == PAPER_SCORE or column in REGISTRY]
    for column, lacking in table[rivals].isna().sum().items():
        if lacking:
            notes.append(
                f"{lacking} pair(s) without {column}, from its τ_w; its difference to the proposed score is over the "
                "sources that have both."
            )
    simple = _baselines(table, notes)
    beside = "computed here" if setting == "replication" else "published"
    kinds = dict.fromkeys(given.columns[2:], "given")
    kinds |= {column: "term" if column in TERMS else beside for column in rivals}
    compared = [column for column, kind in kinds.items() if kind != "term"]
    scored = table[[*KEYS, "auc", *kinds]].join(simple)
    kinds |= dict.fromkeys(simple, "baseline")
    columns = list(kinds)
    taus = weighted_tau(scored)[columns]
    lost = pd.DataFrame({column: regret(scored, column) for column in columns})
    if (table["source"] == "imagenet").any():
        kinds[FIRST_CHOICE] = "baseline"
        lost[FIRST_CHOICE] = regret(scored, lambda rows: "imagenet")
    test = None
    try:
        test = friedman(taus, compared)
    except InputError as error:
        notes.append(f"Friedman's and Nemenyi's tests: {error}.")
    return Benchmark(
        kinds=kinds,
        setting=setting,
        table=scored,
        taus=taus,
        intervals=bootstrap(scored, columns=columns, draws=draws, seed=seed),
        kendall=kendall_tau(scored)[columns],
        regret=lost,
        friedman=test,
        ceiling=_ceiling(setting, table, runs, seed, notes),
        left_out=notes,
    )


def _replicated(notes: list[str]) -> pd.DataFrame:
    """Results of this project's own fine-tuning, with the combined score."""
    from companion import replication

    table = replication.table()
    stored, planned = table.attrs["runs"]["stored"], table.attrs["runs"]["planned"]
    if stored < planned:
        notes.append(f"{planned - stored} of {planned} fine-tunings, not yet run.")
    return with_combined(check_table(table).reset_index(drop=True))


def _given(metric: Any, name: str | None) -> pd.DataFrame:
    """Read the author's table, in whatever form, into ``source``, ``target`` and numeric columns."""
    if isinstance(metric, (str, os.PathLike)):
        try:
            metric = pd.read_csv(os.path.expanduser(metric))
        except (OSError, ValueError) as error:
            wanted = "a CSV table with source, target and scores"
            raise InputError(f"{metric} cannot be read as {wanted}: {error}") from error
    elif isinstance(metric, (pd.Series, Mapping)):
        metric = metric if isinstance(metric, pd.Series) else pd.Series(dict(metric))
        if metric.index.nlevels != 2:
            raise InputError("a series or mapping of scores needs (source, target) as its keys")
        metric = metric.rename(name or metric.name or "mine").rename_axis(KEYS).to_frame()
    if not isinstance(metric, pd.DataFrame):
        raise InputError(
            f"{type(metric).__name__} is no metric: give a table, a series, a mapping, a CSV file or a function"
        )
    metric = metric.reset_index(drop=not set(KEYS) <= set(metric.index.names))
    missing = [key for key in KEYS if key not in metric]
    if missing:
        raise InputError(f"the table of scores lacks the column(s) {', '.join(missing)}")
    numeric = metric.drop(columns=[*KEYS, "auc"], errors="ignore").select_dtypes("number").rename(columns=str)
    if numeric.empty:
        has = ", ".join(map(str, metric.columns))
        raise InputError(f"the table has no numeric column of scores beside source and target: it has {has}")
    if name and name not in numeric:
        if numeric.shape[1] > 1:
            raise InputError(f"the table has no column {name!r}.{did_you_mean(name, numeric.columns)}")
        numeric.columns = pd.Index([name])
    return metric[KEYS].join(numeric[[name]] if name else numeric)


def _computed(
    metric: Metric, name: str, truth: pd.DataFrame, progress: Callable[[float, str], None] | None
) -> pd.DataFrame:
    """Call the author's function once a pair of the replication."""
    from companion import replication
    from companion.scores.forward_pass import single_pass

    wanted = _arguments(metric, name)
    rows = []
    for pair in replication.pairs(targets=sorted(truth["target"].unique()), progress=progress):
        passed = single_pass(pair.model, pair.images, pair.labels)
        there = {"labels": pair.labels, "images": pair.images, "model": pair.model}
        there |= {"features": passed.features, "logits": passed.logits}
        where = f"for source {pair.source!r}, target {pair.target!r}"
        try:
            value = metric(**{argument: there[argument] for argument in wanted})
        except Exception as error:
            raise InputError(f"{name} failed {where}: {type(error).__name__}: {error}") from error
        try:
            rows.append({"source": pair.source, "target": pair.target, name: float(value)})
        except (TypeError, ValueError) as error:
            raise InputError(f"{name} gave {type(value).__name__} {where}: a number is needed") from error
    return pd.DataFrame(rows)


def _arguments(metric: Metric, name: str) -> list[str]:
    """Names of the parameters of the author's function that it is given; any other must have a default."""
    try:
        parameters = inspect.signature(metric).parameters.values()
    except (TypeError, ValueError) as error:
        problem = "the names of its parameters cannot be read: wrap it in a function"
        raise InputError(f"{name}: {problem}") from error
    wanted = []
    for one in parameters:
        if one.name in ARGUMENTS and one.kind in (one.POSITIONAL_OR_KEYWORD, one.KEYWORD_ONLY):
            wanted.append(one.name)
        elif one.default is one.empty and one.kind not in (one.VAR_POSITIONAL, one.VAR_KEYWORD):
            can = f"a function can have {', '.join(ARGUMENTS)}, by these names"
            raise InputError(f"{name} asks for {one.name!r}: {can}")
    return wanted


def _checked(given: pd.DataFrame, truth: pd.DataFrame, setting: str, notes: list[str]) -> pd.DataFrame:
    """Check the names of the pairs, and give the scores names of their own."""
    for key in KEYS:
        known = set(truth[key]) | ({"chestmnist"} if setting == "source_datasets" else set())
        unknown = [value for value in given[key] if value not in known]
        if unknown:
            there = f"there are {', '.join(sorted(set(truth[key])))}.{did_you_mean(unknown[0], known)}"
            raise InputError(f"no {key} {unknown[0]!r} in the {setting} setting: {there}")
    check_pairs_once(given, "the table of scores")
    beyond = len(given) - len(given.merge(truth[KEYS]))
    if beyond:
        notes.append(
            f"{beyond} given pair(s) without a published comparison: a source on itself, or a target without scores."
        )
    taken = {*truth.columns, *BASELINES, FIRST_CHOICE} - set(KEYS)
    return given.rename(columns={column: f"{column} (given)" for column in taken})


def _common(given: pd.DataFrame, truth: pd.DataFrame, notes: list[str]) -> pd.DataFrame:
    """Rows of the ground truth for which every given score is finite, on targets with enough of them."""
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
    few = sorted(set(table.loc[sizes < MIN_SOURCES, "target"]))
    if few:
        notes.append(f"{len(few)} target(s) with fewer than {MIN_SOURCES} sources left: {_listed(few)}.")
    table = table[sizes >= MIN_SOURCES].reset_index(drop=True)
    if table.empty:
        raise InputError(f"{', '.join(names)}: no target with scores for at least {MIN_SOURCES} sources")
    constant = [name for name in names if table.groupby("target")[name].nunique().max() < 2]
    if constant:
        notes.append(f"τ_w of {', '.join(constant)}: the score is the same for every source of a target.")
    return table


def _listed(items: Sequence[str], most: int = 6) -> str:
    return ", ".join(items[:most]) + (f" and {len(items) - most} more" if len(items) > most else "")


def _baselines(table: pd.DataFrame, notes: list[str]) -> pd.DataFrame:
    """Columns of `BASELINES` that can be had for these pairs."""
    found = baselines(table).drop(columns=[*KEYS, "auc"])
    missing = [text for column, text in BASELINES.items() if column not in found]
    if (table["source"] != "imagenet").all():
        missing.append("always ImageNet")
    if missing:
        notes.append(f"baselines that do not apply or lack their numbers here: {', '.join(missing)}.")
    return found


def _ceiling(
    setting: str, table: pd.DataFrame, runs: pd.DataFrame | str | None, seed: int, notes: list[str]
) -> NoiseCeiling | None:
    """Noise ceiling of the published runs, or a note why there is none."""
    if setting == "replication":
        notes.append(
            "the noise ceiling: it is computed from the published runs; for the replication, compare its folds "
            "(companion.replication.select gives a ground truth for each)."
        )
        return None
    if runs is None:
        notes.append("the noise ceiling: it was not asked for.")
        return None
    try:
        frame = published.runs() if isinstance(runs, str) else runs
    except EnvironmentFailure as error:
        notes.append(f"the noise ceiling, since its runs are missing: {error}.")
        return None
    lost = sorted(set(table["source"]) - set(frame.loc[frame["setting"] == setting, "source"]))
    if lost:
        notes.append(f"source(s) without runs, from the noise ceiling: {', '.join(lost)}.")
    return noise_ceiling(frame, setting=setting, seed=seed, pairs=table)
