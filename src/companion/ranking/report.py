"""A ranking as people and programs read it: text, JSON, CSV, a page that opens offline."""

from __future__ import annotations

import base64
import json
import os
from collections.abc import Iterable, Sequence
from dataclasses import asdict
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd

from companion import pages, store
from companion.datasets import sample
from companion.ranking.evidence import context, elsewhere, replicated
from companion.ranking.sets import COMBINED, SCALE_INVARIANT, CandidateSet, agreement
from companion.ranking.stability import stability_cost
from companion.ranking.verification import verification_cost
from companion.scores import PAPER_SCORE, REGISTRY

if TYPE_CHECKING:
    from companion.ranking.ranking import Ranking
    from companion.ranking.scoring import Scored

FILES = ("ranking.csv", "ranking.json", "ranking.png", "ranking.html")
TITLES = {name: info.title for name, info in REGISTRY.items()} | {
    COMBINED: "Combined",
    "feature_rank": "Mean rank by features (1 is best)",
    PAPER_SCORE: "Combined, paper's form",
    "gradient_ratio": "Gradient ratio, paper's form",
    SCALE_INVARIANT: "Gradient ratio",
    "linear_probe": "Linear probe accuracy",
    "knn": "k-NN accuracy",
}
MAIN = ("rank", "source", COMBINED, "feature_rank", "linear_probe", "knn", "nca")  # and the gradient ratio


def recommendation(ranking: Ranking) -> list[str]:
    """What to do, in plain words: which to fine-tune first, how sure that is, the baseline, what checking costs."""
    best = ranking.best
    if best is None:
        return ["No recommendation: every source was trained on the target itself."]
    first, *others = best.advised
    if not others:
        only = f"{first} is the only candidate that was not trained on the target itself"
        return [f"No recommendation: {only}."]
    known = elsewhere(best, ranking.dataset.name)
    votes, scores, tau = _votes(best)
    basis = "combined score" if best.ordered else "mean rank by linear probe, k-NN, NCA and LogME"
    agreed = f"{votes} of {scores} single scores put {first} first"
    if len(best.table) > 2:
        agreed += f"; their orders agree with Kendall's τ {tau:.2f} on average"
        agreed += " (1: all the same, 0: no relation)"
    if ranking.stability is None:
        cure = f"add --repeats 10, about {duration(stability_cost(ranking, 10))}"
        stable = f"Not checked: whether other images would change the order ({cure})"
    else:
        stable = ranking.stability.summaries.get(best.title, "It was not ranked again")
    lines = [
        f"Fine-tune {first} first, then {others[0]}: {_verdict(ranking, known, votes / max(scores, 1))}.",
        f"The order is that of the {basis} over {len(best.table)} candidates ({best.title}).",
        f"How sure: {agreed}. {stable}.",
        *_other_orders(best),
        *_trivial(ranking, best),
        *_elsewhere(known, first),
    ]
    if ranking.verification is not None:
        lines.append(f"Checked by fine-tuning: {ranking.verification.summary}.")
    elif {"val", "test"} <= set(ranking.dataset.labels):
        seconds = duration(verification_cost(ranking, 2))
        lines.append(
            f"Not checked: which is better after fine-tuning (add --verify 2: six short runs of each of the first two, "
            f"about {seconds} here)."
        )
    return lines


def _votes(best: CandidateSet) -> tuple[int, int, float]:
    """Scores that put the advised source first, of how many, and the mean Kendall τ between the scores' orders."""
    found = agreement(best)
    # A product is no vote of its own, and the two forms of the gradient ratio are one.
    single = ~found["method"].isin((COMBINED, PAPER_SCORE, "gradient_ratio"))
    found = found[single & (found["sources"] == len(best.table))]
    return int((found["first"] == best.advised[0]).sum()), len(found), float(found["tau"].mean())


def _verdict(ranking: Ranking, known: pd.DataFrame, share: float) -> str:
    """One word for all evidence, the weakest that holds; what was checked by fine-tuning goes before all else."""
    if ranking.verification is not None:
        return "see what fine-tuning gave, below"
    first = ranking.first(1)[0]
    elsewhere_first = known.sort_values("elsewhere")["source"].iloc[0] if len(known) else first
    if elsewhere_first != first:
        return f"the evidence conflicts, since {elsewhere_first} did better elsewhere"
    if ranking.stability is not None and len(spread := ranking.stability.table):
        if not (spread["gap_low"][spread["source"] == first] > 0).any():
            return "too close to call"
    return "most of the evidence agrees" if share > 0.5 else "too close to call"


def _other_orders(best: CandidateSet) -> list[str]:
    """Who is first by the paper's own form of the score and by the features alone, where it is somebody else."""
    if not best.ordered:
        return []
    lines, table = [], best.table.set_index("source")
    first, features = best.advised[0], table["feature_rank"]
    if table[PAPER_SCORE].notna().all() and (paper := table[PAPER_SCORE].idxmax()) != first:
        lines.append(
            f"The paper's own form of the score puts {paper} first; it depends on how a checkpoint was written "
            "(normalisation, folded batch norm), so the order does not go by it."
        )
    if (ahead := features.idxmin()) != first:
        lines.append(
            f"By features alone (linear probe, k-NN, NCA, LogME) {ahead} is ahead: mean rank {features[ahead]:.1f} "
            f"against {features[first]:.1f} of {first}."
        )
    return lines


def _trivial(ranking: Ranking, best: CandidateSet) -> list[str]:
    """The choice that needs no score, ImageNet first, and how good it was where that is known."""
    if best.kind == "architectures":
        return []
    found = replicated(best.ordered, ranking.dataset.name)
    here, simple = found.loc["here"], found.loc["baseline"]
    low, high = simple["low"], simple["high"]
    told = "better than" if low > 0 else "worse than" if high < 0 else "not shown to be better or worse than"
    imagenet = best.table["source"][best.table["pretraining"].map(is_imagenet)]
    choice = "The trivial choice, ImageNet, is not among these (companion fetch imagenet: ResNet-18)."
    if len(name := imagenet.head(1)):
        place = best.advised.index(name.item()) + 1
        choice = f"The trivial choice is ImageNet: {name.item()}, here in place {place} of {len(best.table)}."
    return [
        f"{choice} In this package's replication the order used here was {told} ImageNet first, then the larger "
        f"source: mean weighted τ {here['tau']:.2f} against {simple['tau']:.2f} (1 is the right order, 0 none; "
        f"difference 95 % interval {low:+.2f} to {high:+.2f}), AUC given up by the first choice "
        f"{here['regret']:.3f} against {simple['regret']:.3f}."
    ]


def is_imagenet(pretraining: str) -> bool:
    """Whether a name of a pre-training, such as a checkpoint's stem or a tag of timm's, says ImageNet."""
    name = pretraining.lower().replace("radimagenet", "")
    return "imagenet" in name or "in1k" in name


def _elsewhere(known: pd.DataFrame, first: str) -> list[str]:
    if known.empty:
        return []
    ordered = known.sort_values("elsewhere")
    order = ", ".join(f"{row.source} {row.elsewhere:.1f}" for row in ordered.itertuples())
    line = f"Fine-tuned on {known['targets'].iloc[0]} other targets, these had the mean places {order}."
    if ordered["source"].iloc[0] != first:
        line += f" That speaks for {ordered['source'].iloc[0]}: try both."
    return [
        f"{line} The order above does not use it; the mean of the place here and the place there puts "
        f"{known['source'].iloc[0]} first."
    ]


def duration(seconds: float) -> str:
    """Seconds as people say them."""
    if seconds < 90:
        return f"{seconds:.0f} s" if seconds >= 10 else f"{seconds:.1f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"


def cost(ranking: Ranking) -> str:
    """Say what the ranking took and what it saves."""
    memory = f" and {ranking.peak_memory_gb:.1f} GB of memory" if ranking.peak_memory_gb else ""
    quick, standard = (duration(ranking.fine_tuning_seconds(name)) for name in ("quick", "standard"))
    return (
        f"This took {duration(ranking.seconds)}{memory} for {ranking.images} images and {len(ranking.scored)} sources; "
        f"fine-tuning each of them once would take about {quick} (quick protocol) or {standard} (standard), estimated "
        "from the time of the pass."
    )


def shown(candidates: CandidateSet) -> tuple[pd.DataFrame, pd.DataFrame]:
    """The columns that people compare, as text, and the other scores."""
    table = candidates.table
    main = [name for name in (*MAIN, candidates.ratio) if name in table]
    hidden = {*main, "gap", "order", "architecture", "pretraining"}
    return _as_text(table[main]), _as_text(table[["source", *(name for name in table if name not in hidden)]])


def _as_text(table: pd.DataFrame) -> pd.DataFrame:
    text = table.dropna(axis="columns", how="all").copy()
    for column in text.columns.difference(["source"]):
        digits = {"rank": 0, "feature_rank": 1}.get(column, 3)
        text[column] = ["–" if pd.isna(value) else f"{value:.{digits}f}" for value in text[column]]
    return text.rename(columns=TITLES | {"rank": "Place", "source": "Source"})


def _sections(ranking: Ranking, worth: Sequence[str]) -> dict[str, list[str]]:
    """What stands below the tables, as titled lists of lines: evidence first, provenance last."""
    counts = ", ".join(f"{len(labels)} {split}" for split, labels in ranking.dataset.labels.items())
    scored = f"{counts}; {ranking.dataset.size} px; {ranking.images} training images were scored, no others"
    sections: dict[str, list[str]] = {"About the images": [scored, *ranking.notes]}
    if (found := ranking.stability) is not None:
        title = f"How stable the order is ({found.repeats} random halves of the {found.of})"
        told = ranking.best and ranking.best.title  # the recommendation has its summary
        sections[title] = [line for title, line in found.summaries.items() if title != told]
        for row in found.table.itertuples():
            places = f"{row.highest} to {row.lowest}" if row.highest != row.lowest else row.highest
            first = f"first in {row.first * found.repeats:.0f} of {found.repeats}"
            sections[title].append(f"{row.source}: {first}, place {places}")
    if (checked := ranking.verification) is not None:
        title = f"Fine-tuned to see ({checked.protocol} protocol; {checked.runs})"
        rows = [_fine_tuned(row) for row in checked.table.to_dict("records")]
        sections[title] = [checked.summary, *checked.remarks, *rows]
    said = ranking.remarks
    sections["What such a ranking is worth"] = [*worth, cost(ranking)]
    sections["About the scores"] = _grouped((line, name) for name in said for line in said[name])
    sections["Where the sources come from"] = [_origin(one) for one in ranking.scored]
    sections["Left out"] = _grouped((one.reason, one.source) for one in ranking.left_out)
    return {title: lines for title, lines in sections.items() if lines}


def _fine_tuned(row: dict[str, Any]) -> str:
    form = "{source}: test AUC {test_auc:.3f} ({low:.3f} to {high:.3f}), frozen {frozen_auc:.3f}"
    classes = {name.removeprefix("auc of "): row[name] for name in row if name.startswith("auc of ")}
    return ", ".join([form.format(**row), *(f"{name} {auc:.3f}" for name, auc in classes.items())])


def origin(one: Scored) -> dict[str, Any]:
    """Where a source comes from, and how its images are normalised: what JSON says of it."""
    known = one.provenance
    return {
        "source": one.name,
        "origin": str(known.get("origin") or f"trained on {one.pretraining}"),
        "licence": known.get("licence"),
        "input_size": known.get("input_size"),
        "normalisation": one.normalisation,
        "normalisation_from": known.get("normalisation_from", "its own"),
    }


def _origin(one: Scored) -> str:
    found = origin(one)
    side, licence = found["input_size"] or "not given", found["licence"] or "not given"
    mean, deviation = (" ".join(f"{value:g}" for value in values) for values in one.normalisation)
    normalisation = f"normalisation mean {mean}, sd {deviation}, {found['normalisation_from']}"
    return f"{one.name}: {found['origin']}; image side: {side}; licence: {licence}; {normalisation}"


def _grouped(pairs: Iterable[tuple[str, str]]) -> list[str]:
    """Names with one reason in a line."""
    by_reason: dict[str, list[str]] = {}
    for reason, name in pairs:
        by_reason.setdefault(reason, []).append(name)
    return [f"{', '.join(names)}: {reason}" for reason, names in by_reason.items()]


def _below(candidates: CandidateSet) -> list[str]:
    """What stands below a set's table: what of its order is undetermined and why, and its warnings."""
    state = candidates.reason
    if candidates.kind != "left_out":
        none = "" if candidates.ordered else "No combined score: "
        state = (
            "Higher is better in every column but the mean rank; linear probe and k-NN are cross-validated on the "
            f"training images. {none}{state}."
        )
    return [line for line in (state, *candidates.warnings) if line]


def as_text(ranking: Ranking) -> str:
    """Lay the ranking out for a terminal: what to do, the tables, and what stands beside them."""
    lines = recommendation(ranking)
    if ranking.synthetic:
        lines.insert(0, f"{ranking.synthetic.upper()}: such numbers say nothing about medical images")
    for one in ranking.sets:
        tables = [f"{table.to_string(index=False)}\n" for table in shown(one)]
        lines += ["", one.title, *tables, *(f"  {line}" for line in _below(one))]
    for title, entries in _sections(ranking, context(ranking)).items():
        lines += ["", title, *(f"  {entry}" for entry in entries)]
    return "\n".join([*lines, "", f"Target: {ranking.dataset!r}", pages.NOT_CLINICAL])


def as_html(ranking: Ranking) -> str:
    """What to do and the tables, for a notebook."""
    parts = [f"<p>{escape(line)}</p>" for line in recommendation(ranking)]
    for one in ranking.sets:
        parts.append(f"<p><strong>{escape(one.title)}</strong></p>")
        parts += [table.to_html(index=False, border=0) for table in shown(one)]
        parts += [f"<p>{escape(line)}</p>" for line in _below(one)]
    return "".join(parts)


def _records(table: pd.DataFrame) -> list[dict[str, Any]]:
    """Rows as JSON-able mappings; JSON has no NaN: missing numbers become null."""
    return table.astype(object).where(table.notna(), None).to_dict("records")


def as_document(ranking: Ranking) -> dict[str, Any]:
    """Turn the ranking into what ``--json`` prints."""
    best = ranking.best
    costs = {name: ranking.fine_tuning_seconds(name) for name in ("quick", "standard")}
    document: dict[str, Any] = {
        "recommendation": recommendation(ranking),
        "order": best.advised if best else [],
        "target": repr(ranking.dataset),
        "synthetic": ranking.synthetic,
        "notes": ranking.notes,
        "candidate_sets": [
            {
                "title": one.title,
                "kind": one.kind,
                "order": "determined" if one.ordered else "undetermined",
                "reason": one.reason,
                "warnings": one.warnings,
                "rows": _records(one.table),
                "agreement": _records(agreement(one)),
            }
            for one in ranking.sets
        ],
        "elsewhere": _records(elsewhere(best, ranking.dataset.name)) if best else [],
        "remarks": ranking.remarks,
        "sources": [origin(one) for one in ranking.scored],
        "left_out": [asdict(candidate) for candidate in ranking.left_out],
        "context": context(ranking),
        "cost": ranking.cost | {"fine_tuning": costs},
        "provenance": ranking.provenance,
    }
    for name in ("stability", "verification"):
        found = getattr(ranking, name)
        if found is not None:
            document[name] = {**vars(found), "table": _records(found.table)}
    return json.loads(json.dumps(document, default=str))


def as_page(ranking: Ranking, document: dict[str, Any], picture: bytes, examples: bytes = b"") -> str:
    """Render the ranking, whose facts its document holds already, as one self-contained HTML page."""
    return pages.render(
        "ranking.html",
        ranking=ranking,
        recommendation=document["recommendation"],
        sets=[(one, _below(one), *shown(one)) for one in ranking.sets],
        sections=_sections(ranking, document["context"]),
        picture=base64.b64encode(picture).decode(),
        examples=base64.b64encode(examples).decode(),
    )


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
    document = as_document(ranking)
    picture = figures.png(figures.ranking(ranking), dpi=150)
    examples = figures.png(figures.examples(sample(ranking.dataset)), dpi=80) if images else b""
    table, text = ranking.table.to_csv(index=False), json.dumps(document, indent=1)
    page = as_page(ranking, document, picture, examples)
    contents = (table.encode(), text.encode(), picture, page.encode())
    return store.write_files(folder, dict(zip(FILES, contents, strict=True)))
