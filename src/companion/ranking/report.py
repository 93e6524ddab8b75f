"""A ranking as people and programs read it: text, JSON, CSV, a page that opens offline."""

from __future__ import annotations

import base64
import json
from dataclasses import asdict
from html import escape
from importlib import resources
from pathlib import Path
from typing import Any

import pandas as pd

from companion import store
from companion.datasets import sample
from companion.ranking.evidence import context, elsewhere, replicated
from companion.ranking.ranking import Ranking
from companion.ranking.sets import RECOMMENDED, SCALE_INVARIANT, CandidateSet, agreement
from companion.ranking.stability import stability_cost
from companion.ranking.verification import verification_cost
from companion.scores import COMBINED, REGISTRY
from companion.tuning import NOT_CLINICAL

FILES = ("ranking.csv", "ranking.json", "ranking.png", "ranking.html")
TITLES = {name: info.title for name, info in REGISTRY.items()} | {
    RECOMMENDED: "Combined",
    "feature_rank": "Mean rank by features (1 is best)",
    COMBINED: "Combined, paper's form",
    "gradient_ratio": "Gradient ratio, paper's form",
    SCALE_INVARIANT: "Gradient ratio",
    "linear_probe": "Linear probe accuracy",
    "knn": "k-NN accuracy",
}
MAIN = ("rank", "source", RECOMMENDED, "feature_rank", "linear_probe", "knn", "nca")  # and the gradient ratio


def recommendation(ranking: Ranking) -> list[str]:
    """What to do, in plain words: which to fine-tune first, how sure that is, the baseline, what checking costs."""
    best = ranking.best
    if best is None:
        return ["No recommendation: every source was trained on the target itself."]
    first, *others = best.advised
    if not others:
        return [
            f"No recommendation: {first} is the only candidate that was not trained on the target itself."
        ]
    known = elsewhere(best, ranking.dataset.name)
    votes, scores, tau = _votes(best)
    lines = [
        f"Fine-tune {first} first, then {others[0]}: {_verdict(ranking, known, votes / max(scores, 1))}."
    ]
    basis = "combined score" if best.ordered else "mean rank by linear probe, k-NN, NCA and LogME"
    lines.append(f"The order is that of the {basis} over {len(best.table)} candidates ({best.title}).")
    agreed = f"{votes} of {scores} single scores put {first} first"
    if len(best.table) > 2:
        agreed += (
            f"; their orders agree with Kendall's τ {tau:.2f} on average (1: all the same, 0: no relation)"
        )
    if ranking.stability is None:
        seconds = duration(stability_cost(ranking, 10))
        agreed += (
            f". Not checked: whether other images would change the order (add --repeats 10, about {seconds})"
        )
    else:
        agreed += f". {ranking.stability.summaries.get(best.title, 'It was not ranked again')}"
    lines += [
        f"How sure: {agreed}.",
        *_other_orders(best),
        *_trivial(ranking, best),
        *_elsewhere(known, first),
    ]
    if ranking.verification is not None:
        return [*lines, f"Checked by fine-tuning: {ranking.verification.summary}."]
    if {"val", "test"} <= set(ranking.dataset.labels):
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
    single = ~found["method"].isin((RECOMMENDED, COMBINED, "gradient_ratio"))
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
    spread = None if ranking.stability is None else ranking.stability.table
    if spread is not None and len(spread):
        own = spread[spread["source"] == first]
        if not (own["gap_low"] > 0).any():
            return "too close to call"
    return "most of the evidence agrees" if share > 0.5 else "too close to call"


def _other_orders(best: CandidateSet) -> list[str]:
    """Who is first by the paper's own form of the score and by the features alone, where it is somebody else."""
    lines, first = [], best.advised[0]
    if not best.ordered:
        return []
    if best.table[COMBINED].notna().all():
        paper = best.table.sort_values(COMBINED, ascending=False, kind="stable")["source"].iloc[0]
        if paper != first:
            lines.append(
                f"The paper's own form of the score puts {paper} first; it depends on how a checkpoint was written "
                "(normalisation, folded batch norm), so the order does not go by it."
            )
    features = best.table.sort_values("feature_rank", kind="stable").iloc[0]
    if features["source"] != first:
        own = best.table.set_index("source").loc[first, "feature_rank"]
        lines.append(
            f"By features alone (linear probe, k-NN, NCA, LogME) {features['source']} is ahead: mean rank "
            f"{features['feature_rank']:.1f} against {own:.1f} of {first}."
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
    worth = (
        f"In this package's replication the order used here was {told} ImageNet first, then the larger source: mean "
        f"weighted τ {here['tau']:.2f} against {simple['tau']:.2f} (1 is the right order, 0 none; difference 95 % "
        f"interval {low:+.2f} to {high:+.2f}), AUC given up by the first choice {here['regret']:.3f} against "
        f"{simple['regret']:.3f}."
    )
    imagenet = best.table[best.table["pretraining"].map(is_imagenet)]
    if imagenet.empty:
        return [
            f"The trivial choice, ImageNet, is not among these (companion fetch imagenet: ResNet-18). {worth}"
        ]
    name = imagenet["source"].iloc[0]
    return [
        f"The trivial choice is ImageNet: {name}, here in place {best.advised.index(name) + 1} of {len(best.table)}. "
        f"{worth}"
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
    spent = ranking.cost
    memory = f" and {spent['peak_memory_gb']:.1f} GB of memory" if spent["peak_memory_gb"] else ""
    return (
        f"This took {duration(spent['seconds'])}{memory} for {spent['images']} images and {len(spent['by_source'])} "
        f"sources; fine-tuning each of them once would take about {duration(ranking.fine_tuning_seconds('quick'))} "
        f"(quick protocol) or {duration(ranking.fine_tuning_seconds('standard'))} (standard), estimated from the time "
        "of the pass."
    )


def shown(candidates: CandidateSet) -> tuple[pd.DataFrame, pd.DataFrame]:
    """The columns that people compare, as text, and the other scores."""
    table = candidates.table
    main = [name for name in (*MAIN, candidates.ratio) if name in table]
    hidden = {"gap", "order", "architecture", "pretraining"}
    rest = ["source", *(name for name in table if name not in {*main, *hidden})]
    return _as_text(table[main]), _as_text(table[rest])


def _as_text(table: pd.DataFrame) -> pd.DataFrame:
    text = table.dropna(axis="columns", how="all").copy()
    for column in text.columns.difference(["source"]):
        digits = {"rank": 0, "feature_rank": 1}.get(column, 3)
        text[column] = ["–" if pd.isna(value) else f"{value:.{digits}f}" for value in text[column]]
    return text.rename(columns=TITLES | {"rank": "Place", "source": "Source"})


def _sections(ranking: Ranking) -> dict[str, list[str]]:
    """What stands below the tables, as titled lists of lines: evidence first, provenance last."""
    sections: dict[str, list[str]] = {}
    counts = ", ".join(f"{len(labels)} {split}" for split, labels in ranking.dataset.labels.items())
    scored = f"{counts}; {ranking.dataset.size} px; {ranking.cost['images']} training images were scored, no others"
    sections["About the images"] = [scored, *ranking.notes]
    if ranking.stability is not None:
        found = ranking.stability
        titles = [] if ranking.best is None else [ranking.best.title]  # the recommendation has its summary
        lines = [line for title, line in found.summaries.items() if title not in titles]
        for row in found.table.itertuples():
            places = f"{row.highest} to {row.lowest}" if row.highest != row.lowest else row.highest
            lines.append(
                f"{row.source}: first in {row.first * found.repeats:.0f} of {found.repeats}, place {places}"
            )
        sections[f"How stable the order is ({found.repeats} random halves of the {found.of})"] = lines
    if ranking.verification is not None:
        checked = ranking.verification
        sections[f"Fine-tuned to see ({checked.protocol} protocol; {checked.runs})"] = [
            checked.summary,
            *checked.remarks,
            *(
                f"{row['source']}: test AUC {row['test_auc']:.3f} ({row['low']:.3f} to {row['high']:.3f}), frozen "
                f"{row['frozen_auc']:.3f}, "
                + ", ".join(
                    f"{name.removeprefix('auc of ')} {row[name]:.3f}"
                    for name in row.index
                    if name.startswith("auc of ")
                )
                for _, row in checked.table.iterrows()
            ),
        ]
    sections["What such a ranking is worth"] = [*context(ranking), cost(ranking)]
    sections["About the scores"] = _grouped(
        (remark, name) for name, remarks in ranking.remarks.items() for remark in remarks
    )
    sections["Where the sources come from"] = [
        f"{one['source']}: {one['origin']}; image side: {one['input_size'] or 'not given'}; licence: "
        f"{one['licence'] or 'not given'}; normalisation {_normalisation(one)}"
        for one in ranking.origins
    ]
    sections["Left out"] = _grouped((one.reason, one.source) for one in ranking.left_out)
    return {title: lines for title, lines in sections.items() if lines}


def _normalisation(origin: dict[str, Any]) -> str:
    mean, deviation = (" ".join(f"{value:g}" for value in values) for values in origin["normalisation"])
    return f"mean {mean}, sd {deviation}, {origin['normalisation_from']}"


def _grouped(pairs: Any) -> list[str]:
    """Names with one reason in a line."""
    by_reason: dict[str, list[str]] = {}
    for reason, name in pairs:
        by_reason.setdefault(reason, []).append(name)
    return [f"{', '.join(names)}: {reason}" for reason, names in by_reason.items()]


def _state(candidates: CandidateSet) -> str:
    """What of a set's order is undetermined, and why."""
    if candidates.kind == "left_out":
        return candidates.reason
    columns = (
        "Higher is better in every column but the mean rank; linear probe and k-NN are cross-validated on the training "
        "images. "
    )
    return (
        columns
        + (candidates.reason if candidates.ordered else f"No combined score: {candidates.reason}")
        + "."
    )


def as_text(ranking: Ranking) -> str:
    """Lay the ranking out for a terminal: what to do, the tables, and what stands beside them."""
    lines = list(recommendation(ranking))
    if ranking.synthetic:
        lines.insert(0, f"{ranking.synthetic.upper()}: such numbers say nothing about medical images")
    for one in ranking.sets:
        lines += ["", one.title]
        for table in shown(one):
            lines += [table.to_string(index=False), ""]
        lines += [f"  {line}" for line in (_state(one), *one.warnings) if line]
    for title, entries in _sections(ranking).items():
        lines += ["", title, *(f"  {entry}" for entry in entries)]
    return "\n".join([*lines, "", f"Target: {ranking.dataset!r}", NOT_CLINICAL])


def as_html(ranking: Ranking) -> str:
    """What to do and the tables, for a notebook."""
    parts = [f"<p>{escape(line)}</p>" for line in recommendation(ranking)]
    for one in ranking.sets:
        parts.append(f"<p><strong>{escape(one.title)}</strong></p>")
        parts += [table.to_html(index=False, border=0) for table in shown(one)]
        parts += [f"<p>{escape(line)}</p>" for line in (_state(one), *one.warnings) if line]
    return "".join(parts)


def _records(table: pd.DataFrame) -> list[dict[str, Any]]:
    """Rows as JSON-able mappings; JSON has no NaN: missing numbers become null."""
    return table.astype(object).where(table.notna(), None).to_dict("records")


def as_document(ranking: Ranking) -> dict[str, Any]:
    """Turn the ranking into what ``--json`` prints."""
    best = ranking.best
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
        "sources": ranking.origins,
        "left_out": [asdict(candidate) for candidate in ranking.left_out],
        "context": context(ranking),
        "cost": ranking.cost
        | {"fine_tuning": {name: ranking.fine_tuning_seconds(name) for name in ("quick", "standard")}},
        "provenance": ranking.provenance,
    }
    for name in ("stability", "verification"):
        found = getattr(ranking, name)
        if found is not None:
            document[name] = {**vars(found), "table": _records(found.table)}
    return json.loads(json.dumps(document, default=str))


def as_page(ranking: Ranking, picture: bytes, examples: bytes = b"") -> str:
    """Render the ranking as one self-contained HTML page; every name in it is escaped."""
    import jinja2

    template = jinja2.Environment(autoescape=True).from_string(
        resources.files(__package__).joinpath("report.html").read_text(encoding="utf-8")
    )
    return template.render(
        ranking=ranking,
        recommendation=recommendation(ranking),
        sets=[(one, _state(one), *shown(one)) for one in ranking.sets],
        sections=_sections(ranking),
        not_clinical=NOT_CLINICAL,
        picture=base64.b64encode(picture).decode(),
        examples=base64.b64encode(examples).decode(),
    )


def save(ranking: Ranking, folder: Path, *, force: bool, images: bool) -> list[Path]:
    """Write the ranking to a folder; see `companion.ranking.Ranking.save`."""
    from companion import figures

    store.check_folder(folder, FILES, force=force)
    picture = figures.png(figures.ranking(ranking), dpi=150)
    examples = figures.png(figures.examples(sample(ranking.dataset)), dpi=80) if images else b""
    contents = (
        ranking.table.to_csv(index=False).encode(),
        json.dumps(as_document(ranking), indent=1).encode(),
        picture,
        as_page(ranking, picture, examples).encode(),
    )
    return store.write_files(folder, dict(zip(FILES, contents, strict=True)))
