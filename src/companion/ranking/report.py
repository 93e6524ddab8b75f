"""A ranking as people and programs read it: text, JSON, CSV, a page that opens offline."""

from __future__ import annotations

import base64
import contextlib
import json
import os
from collections.abc import Iterable, Sequence
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import pandas as pd

from companion import pages, store
from companion.datasets import cautions
from companion.errors import InputError
from companion.ranking.evidence import as_published, elsewhere, is_imagenet, published_worth, replicated
from companion.ranking.sets import COMBINED, FEATURE_RANK, NO_VOTE, SCALE_INVARIANT, CandidateSet, agreement
from companion.ranking.verification import check_verifiable
from companion.scores import PAPER_SCORE, REGISTRY

if TYPE_CHECKING:
    from companion.ranking.ranking import Ranking
    from companion.ranking.scoring import Scored

FILES = ("ranking.csv", "ranking.json", "ranking.png", "ranking.html")
TITLES = {name: info.title for name, info in REGISTRY.items()} | {
    COMBINED: "Combined",
    FEATURE_RANK: "Mean rank by features (1 is best)",
    PAPER_SCORE: "Combined, paper's form",
    "gradient_ratio": "Gradient ratio, paper's form",
    SCALE_INVARIANT: "Gradient ratio",
    **dict.fromkeys(("rank", "place"), "Place"),
    "source": "Source",
    "first": "First",
    "gap": "Lead",
    "highest": "Highest",
    "lowest": "Lowest",
    **dict.fromkeys(("low", "gap_low"), "From"),
    **dict.fromkeys(("high", "gap_high"), "To"),
    "test_auc": "Test AUC",
    "frozen_auc": "Frozen",
    "seconds": "Seconds",
}
WHOLE = ("rank", "place", "highest", "lowest", "seconds")  # columns of whole numbers
MAIN = ("rank", "source", COMBINED, FEATURE_RANK, "linear_probe", "knn", "nca")  # and the gradient ratio


class Section(NamedTuple):
    """A part of a report below the recommendation."""

    title: str
    lines: Sequence[str]
    tables: Sequence[pd.DataFrame] = ()
    """Cells as text; of a candidate set the columns that people compare, then the other scores."""
    folded: bool = False
    """Whether the page shows it only when it is asked for."""


# --- what to do ---------------------------------------------------------------------------------------------


def recommendation(ranking: Ranking) -> list[str]:
    """What to do, in plain words: which to fine-tune first, how sure that is, the baseline, what checking costs."""
    best = ranking.best
    first, second = best.advised[:2]
    known = elsewhere(best, ranking.dataset.name)
    votes, scores, tau = _votes(best)
    basis = "combined score" if best.ordered else "mean rank by linear probe, k-NN, NCA and LogME"
    agreed = (
        f"{votes} of {scores} single scores put {first} first" if scores else "no score tells these apart"
    )
    if scores and len(best.table) > 2:
        agreed += f"; their orders agree with Kendall's τ {tau:.2f} on average"
        agreed += " (1: all the same, 0: no relation)"
    if ranking.stability is None:
        cure = f"add --repeats 10, about {duration(ranking.stability_seconds(10))}"
        stable = f"Not checked: whether other images would change the order ({cure})"
    else:
        stable = ranking.stability.summary
    lines = [
        f"Fine-tune {first} first, then {second}: {verdict(ranking, known, votes / max(scores, 1))}.",
        f"The order is that of the {basis} over {len(best.table)} candidates ({best.title}).",
        f"How sure: {agreed}. {stable}.",
        *_other_orders(best, ranking.dataset.name),
        *_trivial(best, ranking.dataset.name),
        *_elsewhere(known, first),
    ]
    if ranking.verification is not None:
        lines.append(f"Checked by fine-tuning: {ranking.verification.summary}.")
        return lines
    with contextlib.suppress(InputError):  # the target has not the images for it
        check_verifiable(ranking.dataset, 2)
        seconds = duration(ranking.verification_seconds(2))
        lines.append(
            f"Not checked: which is better after fine-tuning (add --verify 2: six short runs of each of the first two, "
            f"about {seconds} here)."
        )
    return lines


def _votes(best: CandidateSet) -> tuple[int, int, float]:
    """Scores that put the advised source first, of how many, and the mean Kendall τ between the scores' orders."""
    found = agreement(best)
    found = found[~found["method"].isin(NO_VOTE) & (found["sources"] == len(best.table))]
    return int((found["first"] == best.advised[0]).sum()), len(found), float(found["tau"].mean())


def verdict(ranking: Ranking, known: pd.DataFrame, share: float) -> str:
    """One word for all evidence, the weakest that holds; what was checked by fine-tuning goes before all else.

    `known` is what `elsewhere` gives, `share` how many of the single scores put the first source first.
    """
    if ranking.verification is not None:
        return "see what fine-tuning gave, below"
    first = ranking.first(1)[0]
    elsewhere_first = known.sort_values("elsewhere")["source"].iloc[0] if len(known) else first
    if elsewhere_first != first:
        return f"the evidence conflicts, since {elsewhere_first} did better elsewhere"
    if ranking.stability is not None and len(spread := ranking.stability.table):
        if not spread["gap_low"].iloc[0] > 0:
            return "too close to call"
    return "most of the evidence agrees" if share > 0.5 else "too close to call"


def _other_orders(best: CandidateSet, target: str) -> list[str]:
    """Who is first by the paper's own form of the score and by the features alone, where it is somebody else."""
    if not best.ordered:
        return []
    lines, table = [], best.table.set_index("source")
    first, features = best.advised[0], table[FEATURE_RANK]
    if table[PAPER_SCORE].notna().all() and (paper := table[PAPER_SCORE].idxmax()) != first:
        tau = replicated(True, target)["tau"]
        lines.append(
            f"The paper's own form of the score puts {paper} first; it depends on how a checkpoint was written "
            f"(normalisation, folded batch norm), and in the replication its mean weighted τ was {tau['paper']:.2f} "
            f"against {tau['here']:.2f}, so the order does not go by it."
        )
    if (ahead := features.idxmin()) != first:
        lines.append(
            f"By features alone (linear probe, k-NN, NCA, LogME) {ahead} is ahead: mean rank {features[ahead]:.1f} "
            f"against {features[first]:.1f} of {first}."
        )
    return lines


def _trivial(best: CandidateSet, target: str) -> list[str]:
    """The choice that needs no score, ImageNet first, and how good it was where that is known."""
    if best.kind == "architectures":  # of which the replication has one
        return []
    found = replicated(best.ordered, target)
    here, simple = found.loc["here"], found.loc["baseline"]
    low, high = simple["low"], simple["high"]
    told = "better than" if low > 0 else "worse than" if high < 0 else "not shown to be better or worse than"
    imagenet = best.table["source"][best.table["pretraining"].map(is_imagenet)]
    choice = "The trivial choice, ImageNet, is not among these (companion fetch imagenet: ResNet-18)."
    if len(name := imagenet.head(1)):
        place = best.advised.index(name.item()) + 1
        choice = f"The trivial choice is ImageNet: {name.item()}, here in place {place} of {len(best.table)}."
    return [
        f"{choice} In this package's replication ({here['sources']:.0f} MobileNetV2 sources, {here['targets']:.0f} "
        f"other medical targets) the order used here was {told} ImageNet first, then the larger source: mean weighted "
        f"τ {here['tau']:.2f} against {simple['tau']:.2f} (1 is the right order, 0 none; difference 95 % interval "
        f"{low:+.2f} to {high:+.2f}), AUC given up by the first choice {here['regret']:.3f} against "
        f"{simple['regret']:.3f}."
    ]


def _elsewhere(known: pd.DataFrame, first: str) -> list[str]:
    if known.empty:
        return []
    ordered = known.sort_values("elsewhere")
    order = ", ".join(f"{row.source} {row.elsewhere:.1f}" for row in ordered.itertuples())
    line = f"Fine-tuned on {known['targets'].iloc[0]} other targets, these had the mean places {order}."
    if ordered["source"].iloc[0] != first:
        line += f" That speaks for {ordered['source'].iloc[0]}: try both."
    both = f"the mean of the place here and the place there puts {known['source'].iloc[0]} first"
    return [f"{line} The order above does not use it; {both}."]


def duration(seconds: float) -> str:
    """Seconds as people say them."""
    if seconds < 90:
        return f"{seconds:.0f} s" if seconds >= 10 else f"{seconds:.1f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"


# --- the order, the evidence, the provenance ----------------------------------------------------------------


def sections(ranking: Ranking) -> list[Section]:
    """Everything below the recommendation: the order of each candidate set, then evidence, provenance last."""
    quick, standard = (duration(ranking.fine_tuning_seconds(name)) for name in ("quick", "standard"))
    cost = (
        f"This took {duration(ranking.seconds)} for {len(ranking.drawn)} images and {len(ranking.scored)} sources; "
        f"fine-tuning each of them once would take about {quick} (quick protocol) or {standard} (standard)."
    )
    kinds = dict.fromkeys(one.kind for one in ranking.sets if as_published(one))
    counts = ", ".join(f"{len(labels)} {split}" for split, labels in ranking.dataset.labels.items())
    scored = (
        f"{counts}; {ranking.dataset.size} px; {len(ranking.drawn)} training images were scored, no others"
    )
    said = ((line, name) for name, lines in ranking.remarks.items() for line in lines)
    left_out = ((reason, source) for source, reason in ranking.left_out.items())
    found = [
        *(Section(one.title, _reading(one), shown(one)) for one in ranking.sets),
        Section("Images and time", [scored, cost, *cautions(ranking.dataset)]),
        *_checks(ranking),
        Section("What such orders were worth", [published_worth(kind) for kind in kinds]),
        Section("About the scores", _grouped(said), folded=True),
        Section("Where the sources come from", [_origin(one) for one in ranking.scored], folded=True),
        Section("Left out", _grouped(left_out), folded=True),
    ]
    return [section for section in found if section.lines]


def _reading(candidates: CandidateSet) -> list[str]:
    """How to read a set's table: what of its order is undetermined and why, and its warnings."""
    none = "" if candidates.ordered else "No combined score: "
    inverted = candidates.kind == "architectures"
    but = (
        "the mean rank and, among architectures, NCA and the gradient ratio" if inverted else "the mean rank"
    )
    read = (
        f"Higher is better in every column but {but}; linear probe and k-NN are cross-validated on the training "
        f"images. {none}{candidates.reason}."
    )
    return [read, *candidates.warnings]


def shown(candidates: CandidateSet) -> tuple[pd.DataFrame, pd.DataFrame]:
    """The columns that people compare, as text, and the other scores."""
    table = candidates.table
    main = [name for name in (*MAIN, candidates.ratio) if name in table]
    hidden = {*main, "gap", "order", "architecture", "pretraining"}
    return _as_text(table[main]), _as_text(table[["source", *(name for name in table if name not in hidden)]])


def _as_text(table: pd.DataFrame) -> pd.DataFrame:
    text = table.dropna(axis="columns", how="all").copy()
    for column in text.columns.difference(["source"]):
        digits = {FEATURE_RANK: 1}.get(column, 0 if column in WHOLE else 3)
        text[column] = ["–" if pd.isna(value) else f"{value:.{digits}f}" for value in text[column]]
    return text.rename(columns=TITLES)


def _checks(ranking: Ranking) -> list[Section]:
    """What was asked for besides: other images, fine-tuning. Their summaries stand in the recommendation."""
    found = []
    if (again := ranking.stability) is not None and len(again.table):
        title = f"How stable the order is ({again.repeats} random halves of the {again.of})"
        read = (
            "Highest and lowest: 95 % of the places. First: share of the halves. Lead: over the next, with its 95 % "
            f"interval over {again.of}."
        )
        found.append(Section(title, [read], [_as_text(again.table)]))
    if (checked := ranking.verification) is not None:
        read = f"{checked.runs}; 95 % interval over seeds and test images; frozen: a linear classifier only"
        classes = checked.table.set_index("source").filter(regex="^auc of ")
        by_class = [
            f"AUC by class, {source}: "
            + ", ".join(f"{name.removeprefix('auc of ')} {auc:.3f}" for name, auc in row.items())
            for source, row in classes.iterrows()
        ]
        table = checked.table.drop(columns=classes.columns)
        found.append(Section("Fine-tuned to see", [read, *checked.remarks, *by_class], [_as_text(table)]))
    return found


def _origin(one: Scored) -> str:
    known = one.provenance
    mean, deviation = (" ".join(f"{value:g}" for value in values) for values in one.normalisation)
    return (
        f"{one.name}: {known.get('origin') or f'trained on {one.pretraining}'}; "
        f"image side: {known.get('input_size') or 'not given'}; licence: {known.get('licence') or 'not given'}; "
        f"normalisation mean {mean}, sd {deviation}, {known.get('normalisation_from', 'its own')}"
    )


def _grouped(pairs: Iterable[tuple[str, str]]) -> list[str]:
    """Names with one reason in a line."""
    by_reason: dict[str, list[str]] = {}
    for reason, name in pairs:
        by_reason.setdefault(reason, []).append(name)
    return [f"{', '.join(names)}: {reason}" for reason, names in by_reason.items()]


# --- text, HTML, JSON, files --------------------------------------------------------------------------------


def as_text(ranking: Ranking) -> str:
    """Lay the ranking out for a terminal."""
    lines = [*ranking.recommendation]
    if ranking.synthetic:
        lines.insert(0, f"{ranking.synthetic.upper()}: such numbers say nothing about medical images")
    for section in ranking.sections:
        tables = (f"{table.to_string(index=False)}\n" for table in section.tables)
        lines += ["", section.title, *tables, *(f"  {line}" for line in section.lines)]
    return "\n".join([*lines, "", f"Target: {ranking.dataset!r}", pages.NOT_CLINICAL])


def as_html(ranking: Ranking) -> str:
    """What to do and the tables, for a notebook."""
    said = (
        [ranking.synthetic.upper(), *ranking.recommendation] if ranking.synthetic else ranking.recommendation
    )
    parts = [f"<p>{escape(line)}</p>" for line in said]
    for section in ranking.sections:
        if section.tables:
            parts.append(f"<p><strong>{escape(section.title)}</strong></p>")
            parts += [table.to_html(index=False, border=0) for table in section.tables]
            parts += [f"<p>{escape(line)}</p>" for line in section.lines]
    return "".join(parts)


def as_page(ranking: Ranking, picture: bytes, examples: bytes = b"") -> str:
    """One self-contained HTML page, with PNGs of the figure and, where wanted, of some of the images."""
    encoded = {"picture": base64.b64encode(picture).decode(), "examples": base64.b64encode(examples).decode()}
    return pages.render("ranking.html", ranking=ranking, **encoded)


def as_document(ranking: Ranking) -> dict[str, Any]:
    """Turn the ranking into what ``--json`` prints."""
    best = ranking.best
    sets = [vars(one) | {"ordered": one.ordered, "agreement": agreement(one)} for one in ranking.sets]
    kept = ("name", "remarks", "normalisation", "seconds")
    document = {
        "recommendation": ranking.recommendation,
        "order": best.advised,
        "target": repr(ranking.dataset),
        "synthetic": ranking.synthetic,
        "candidate_sets": sets,
        "elsewhere": elsewhere(best, ranking.dataset.name),
        "sections": {section.title: section.lines for section in ranking.sections},
        "sources": [{name: getattr(one, name) for name in kept} for one in ranking.scored],
        "left_out": ranking.left_out,
        "stability": ranking.stability and vars(ranking.stability),
        "verification": ranking.verification and vars(ranking.verification),
        "provenance": ranking.provenance,
    }
    return pages.json_able(document)


def save(
    ranking: Ranking, folder: str | os.PathLike, *, force: bool = False, images: bool = True
) -> list[Path]:
    """Write table (CSV), document (JSON), figure (PNG) and report (HTML) to a folder; all of them or none.

    Parameters
    ----------
    folder
        Made where it is missing.
    force
        Whether an earlier report there may be replaced.
    images
        Whether the report shows a few of the target's images.

    Raises
    ------
    InputError
        If the folder is a file, cannot be written or holds a report.
    """
    from companion import figures

    folder = Path(folder)
    store.check_folder(folder, FILES, force=force)
    picture = figures.png(figures.ranking(ranking), dpi=150)
    examples = figures.png(figures.examples(ranking.dataset), dpi=80) if images else b""
    table, text = ranking.table.to_csv(index=False), json.dumps(as_document(ranking), indent=1)
    contents = (table.encode(), text.encode(), picture, as_page(ranking, picture, examples).encode())
    return store.write_files(folder, dict(zip(FILES, contents, strict=True)))
