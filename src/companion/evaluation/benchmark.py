"""`benchmark`: a metric author's score beside the published ones, with everything it should be held against."""

from __future__ import annotations

import inspect
import os
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
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
from companion.scores import COMBINED, REGISTRY, TERMS, with_combined

SETTINGS = (*published.SETTINGS, "replication")
KEYS = ["source", "target"]
ARGUMENTS = ("features", "logits", "labels", "images", "model")  # what an author's function may ask for

Metric = Callable[..., float]


@dataclass(frozen=True, repr=False)
class Benchmark:
    """How a score does: what `benchmark` returns, and shows itself as a table."""

    names: list[str]
    """Columns of the score or scores given."""
    setting: str
    table: pd.DataFrame
    """The pairs compared: ``source``, ``target``, ``auc``, the given and the published scores."""
    taus: pd.DataFrame
    """Targets by scores, the given ones first: weighted Kendall τ."""
    intervals: Intervals
    """Bootstrap over sources: per target, of the mean, and of the difference to the proposed score."""
    kendall: pd.DataFrame
    """Targets by scores: unweighted Kendall τ-b."""
    regret: pd.DataFrame
    """Targets by scores and baselines: AUC of the best source less that of the first choice."""
    baselines: pd.DataFrame
    """One row per baseline: ``mean``, ``low``, ``high`` of τ_w, ``kendall``, ``regret``."""
    friedman: FriedmanResult | None
    """Over the given and the published scores; None where there is too little to compare."""
    ceiling: NoiseCeiling | None
    """Reliability of the ground truth and the attainable maximum; None where the runs are missing."""
    left_out: list[str] = field(default_factory=list)
    """What was not compared or not computed, a sentence each."""

    @property
    def mean(self) -> pd.Series:
        """Mean τ_w over the targets."""
        return self.taus.mean()

    @property
    def ranks(self) -> pd.DataFrame | None:
        """Targets by scores, 1 = best, for a critical-difference diagram; None as for `friedman`."""
        return None if self.friedman is None else self.friedman.ranks

    def summary(self) -> pd.DataFrame:
        """One row per score, baseline, reliability and ceiling, the highest mean τ_w first.

        Returns
        -------
        pandas.DataFrame
            ``kind`` (given, published or computed here, term, baseline, reliability, ceiling), ``mean`` τ_w with the
            interval ``low`` to ``high``, ``kendall``, ``regret``, ``rank`` (mean over the targets) and
            ``less_proposed``: mean difference to the proposed score on the sources and targets where both are defined,
            with the interval ``less_low`` to ``less_high``. NaN where a column does not apply.
        """
        scores = self.intervals.mean.copy()
        beside = "computed here" if self.setting == "replication" else "published"
        scores["kind"] = [
            "given" if name in self.names else "term" if name in TERMS else beside for name in scores.index
        ]
        scores["kendall"], scores["regret"] = self.kendall.mean(), self.regret.mean()
        if self.ranks is not None:
            scores["rank"] = self.ranks.mean()
        different = self.intervals.differences.rename(
            columns={"difference": "less_proposed", "low": "less_low", "high": "less_high"}
        )
        parts = [scores.join(different), self.baselines.assign(kind="baseline")]
        if self.ceiling is not None:
            both = self.ceiling.mean
            kinds = ["ceiling" if name.startswith("attainable") else "reliability" for name in both.index]
            parts.append(both.assign(kind=kinds))
        order = ["kind", "mean", "low", "high", "kendall", "regret", "rank", *different.columns]
        whole = pd.concat(parts).reindex(columns=order)
        return whole.sort_values("mean", ascending=False, kind="stable").rename_axis("score")

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
    inverted: bool | None = None,
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
        - a series indexed by (source, target), or a mapping from (source, target) to a number;
        - a function that returns a number, for ``setting="replication"`` only: its parameters are given what their
          names ask for, of ``features`` (n, d) float32, ``logits`` (n, source classes) float32 or None, ``labels`` (n,)
          integers, ``images`` uint8 and ``model``, the `companion.models.SourceModel`; any other needs a default. No
          features can be had for the published pairs.
    setting
        ``"source_datasets"`` or ``"architectures"`` (the published results; `companion.published.table` lists the
        names of the pairs), or ``"replication"`` (this project's own fine-tuning results).
    name
        What to call the score; the column to take, where a table has several.
    inverted
        Orientation of the published scores, as for `weighted_tau`. Your own is taken as given.
    draws
        Resamples of the intervals.
    seed
        Seed of the resamples.
    runs
        For the noise ceiling: ``"auto"`` reads or downloads the runs where that is possible, a table as
        `companion.published.runs` returns it is used, None leaves the ceiling out.
    progress
        Called with the fraction done and a line of text while a function is computed.

    Returns
    -------
    Benchmark
        All comparisons are made on the pairs for which every given score has a finite number; what that leaves out
        is reported in ``left_out``. A score named like a published one is shown with " (given)" behind its name.

    Raises
    ------
    InputError
        If the metric is none of the above, names an unknown source or target, gives a pair twice, has no finite
        number, or fails on a pair.
    EnvironmentFailure
        If the replication's results or images cannot be had.

    Examples
    --------
    >>> from companion import evaluation, published
    >>> table = published.table("source_datasets")
    >>> mine = table.set_index(["source", "target"])["nca"]
    >>> found = evaluation.benchmark(mine, name="mine", draws=100, runs=None)
    >>> bool(abs(found.mean["mine"] - found.mean["nca"]) < 1e-12)
    True
    """
    if setting not in SETTINGS:
        raise InputError(
            f"no setting {setting!r}: there are {', '.join(SETTINGS)}.{did_you_mean(setting, SETTINGS)}"
        )
    if isinstance(runs, str) and runs != "auto":
        raise InputError(f"runs: 'auto', a table of runs or None is needed, got {runs!r}")
    notes: list[str] = []
    if setting == "replication":
        truth = _replicated(notes)
    else:
        truth = published_pairs(setting, inverted=inverted)
    if callable(metric):
        given = _computed(metric, name or str(getattr(metric, "__name__", "mine")), truth, setting, progress)
    else:
        given = _given(metric, name)
    given = _checked(given, truth, setting, notes)
    names = list(given.columns[2:])
    table = _common(given, truth, notes)
    rivals = [column for column in truth.columns if column == COMBINED or column in REGISTRY]
    compared = [*names, *rivals]
    scored = table[[*KEYS, "auc", *compared]]
    taus = weighted_tau(scored)[compared]
    for column, lacking in table[rivals].isna().sum().items():
        if lacking:
            notes.append(
                f"{lacking} pair(s) without {column}, from its τ_w; its difference to the proposed score is over the "
                "sources that have both."
            )
    simple, simple_regret = _baselines(table, draws, seed, notes)
    test = None
    try:
        test = friedman(taus, [column for column in compared if column not in TERMS])
    except InputError as error:
        notes.append(f"Friedman's and Nemenyi's tests: {error}.")
    return Benchmark(
        names=names,
        setting=setting,
        table=scored,
        taus=taus,
        intervals=bootstrap(scored, columns=compared, draws=draws, seed=seed),
        kendall=kendall_tau(scored)[compared],
        regret=pd.DataFrame({column: regret(scored, column) for column in compared}).join(simple_regret),
        baselines=simple,
        friedman=test,
        ceiling=_ceiling(setting, table, runs, seed, notes),
        left_out=notes,
    )


def _replicated(notes: list[str]) -> pd.DataFrame:
    """Results of this project's own fine-tuning, with the combined score."""
    from companion import replication

    table = replication.table()
    counts = table.attrs.get("runs", {"planned": 0, "stored": 0})
    if counts["stored"] < counts["planned"]:
        missing = counts["planned"] - counts["stored"]
        notes.append(f"{missing} of {counts['planned']} fine-tunings, not yet run.")
    return with_combined(check_table(table).reset_index(drop=True))


def _given(metric: Any, name: str | None) -> pd.DataFrame:
    """Read the author's table, in whatever form, into ``source``, ``target`` and numeric columns."""
    if isinstance(metric, (str, os.PathLike)):
        try:
            metric = pd.read_csv(os.path.expanduser(metric))
        except (OSError, ValueError) as error:
            raise InputError(
                f"{metric} cannot be read as a CSV table with source, target and scores: {error}"
            ) from error
    elif isinstance(metric, Mapping):
        if not metric or not all(isinstance(key, tuple) and len(key) == 2 for key in metric):
            raise InputError("a mapping of scores needs (source, target) as its keys")
        metric = pd.Series(list(metric.values()), index=pd.MultiIndex.from_tuples(list(metric)))
    if isinstance(metric, pd.Series):
        if metric.index.nlevels != 2:
            raise InputError("a series of scores needs the two index levels source and target")
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
        raise InputError(
            "the table has no numeric column of scores beside source and target: it has "
            + ", ".join(str(column) for column in metric.columns)
        )
    if name and name not in numeric:
        if numeric.shape[1] > 1:
            raise InputError(f"the table has no column {name!r}.{did_you_mean(name, numeric.columns)}")
        numeric.columns = pd.Index([name])
    return metric[KEYS].join(numeric[[name]] if name else numeric)


def _computed(
    metric: Metric,
    name: str,
    truth: pd.DataFrame,
    setting: str,
    progress: Callable[[float, str], None] | None,
) -> pd.DataFrame:
    """Call the author's function once a pair of the replication."""
    if setting != "replication":
        raise InputError(
            "a function needs features, and there are none for the published pairs: give a table of scores, "
            "or setting='replication'"
        )
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
    return pd.DataFrame(rows, columns=[*KEYS, name])


def _arguments(metric: Metric, name: str) -> list[str]:
    """Names of the parameters of the author's function that it is given; any other must have a default."""
    try:
        parameters = inspect.signature(metric).parameters.values()
    except (TypeError, ValueError) as error:
        raise InputError(
            f"{name}: the names of its parameters cannot be read: wrap it in a function"
        ) from error
    wanted = []
    for one in parameters:
        if one.name in ARGUMENTS and one.kind in (one.POSITIONAL_OR_KEYWORD, one.KEYWORD_ONLY):
            wanted.append(one.name)
        elif one.default is one.empty and one.kind not in (one.VAR_POSITIONAL, one.VAR_KEYWORD):
            raise InputError(
                f"{name} asks for {one.name!r}: a function can have {', '.join(ARGUMENTS)}, by these names"
            )
    return wanted


def _checked(given: pd.DataFrame, truth: pd.DataFrame, setting: str, notes: list[str]) -> pd.DataFrame:
    """Check the names of the pairs, and give the scores names of their own."""
    for key in KEYS:
        known = set(truth[key]) | ({"chestmnist"} if setting == "source_datasets" else set())
        unknown = [value for value in given[key] if value not in known]
        if unknown:
            raise InputError(
                f"no {key} {unknown[0]!r} in the {setting} setting: there are "
                f"{', '.join(sorted(set(truth[key])))}.{did_you_mean(unknown[0], known)}"
            )
    check_pairs_once(given, "the table of scores")
    taken = {*truth.columns, *BASELINES, "always_imagenet"} - set(KEYS)
    beyond = len(given) - len(given.merge(truth[KEYS]))
    if beyond:
        notes.append(
            f"{beyond} given pair(s) without a published comparison: a source on itself, or a target without scores."
        )
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


def _listed(items: Iterable[str], most: int = 6) -> str:
    items = list(items)
    return ", ".join(items[:most]) + (f" and {len(items) - most} more" if len(items) > most else "")


def _baselines(
    table: pd.DataFrame, draws: int, seed: int, notes: list[str]
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """τ_w, τ-b and regret of the baselines; and their regret per target."""
    frame = baselines(table)
    names = [column for column in frame.columns if column in BASELINES]
    missing = [text for column, text in BASELINES.items() if column not in names]
    rows = pd.DataFrame(columns=["mean", "low", "high", "kendall"], dtype=float)
    lost = {column: regret(frame, column) for column in names}
    if names:
        found = bootstrap(frame, columns=names, against=None, draws=draws, seed=seed)
        rows = found.mean.assign(kendall=kendall_tau(frame)[names].mean())
    if (frame["source"] == "imagenet").any():
        # One choice is no order, so it has a regret and no τ.
        lost["always_imagenet"] = regret(frame, lambda rows: "imagenet")
        rows.loc["always_imagenet"] = np.nan
    else:
        missing.append("always ImageNet")
    if missing:
        notes.append(f"baselines that do not apply or lack their numbers here: {', '.join(missing)}.")
    per_target = pd.DataFrame(lost, index=pd.Index(sorted(frame["target"].unique()), name="target"))
    return rows.assign(regret=per_target.mean()), per_target


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
