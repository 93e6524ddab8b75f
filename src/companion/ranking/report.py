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

from companion import published, store
from companion.datasets import sample
from companion.ranking.ranking import Ranking
from companion.ranking.sets import CandidateSet, agreement

FILES = ("ranking.csv", "ranking.json", "ranking.png", "ranking.html")
NOT_CLINICAL = "Research software, not for clinical use."


def recommendation(ranking: Ranking) -> list[str]:
    """What to do, in plain words: which to fine-tune first, how sure that is, the baseline, what checking costs."""
    best = ranking.ordered
    if best is None:
        return [
            "No order: "
            + "; ".join(f"{one.title}: {one.reason}" for one in ranking.sets if one.kind != "left_out")
        ]
    first, second = best.table.iloc[0], best.table.iloc[1]
    lines = [
        f"Fine-tune {first['source']} first, then {second['source']}: of {len(best.table)} candidates "
        f"({best.title}) they have the highest combined scores, {first['proposed']:.2f} and {second['proposed']:.2f}."
    ]
    if ranking.stability is not None:
        lines.append(f"How sure: {ranking.stability.summaries[best.title]}.")
    methods = agreement(best)
    methods = methods[methods["sources"] == len(best.table)]
    votes = int((methods["first"] == first["source"]).sum())
    lines.append(
        f"{votes} of {len(methods)} scores put {first['source']} first; mean Kendall τ between their orders "
        f"{methods['tau'].mean():.2f}."
    )
    if best.kind == "source_datasets":
        lines.append(_baseline(best))
    if ranking.verification is not None:
        lines.append(f"Checked: {ranking.verification.summary}.")
    else:
        seconds = ranking.fine_tuning_seconds("quick", [first["source"], second["source"]])
        lines.append(f"To check, fine-tune both: about {duration(seconds)} with the quick protocol (verify).")
    return lines


def _baseline(best: CandidateSet) -> str:
    """Put the answer that needs no score, ImageNet first, beside the order of a candidate set."""
    found = best.table[best.table["pretraining"] == "imagenet"]
    if found.empty:
        return (
            "The baseline, ImageNet first, is not among these: companion fetch imagenet brings it, and named with "
            "--source beside these, or without any --source, it is ranked too."
        )
    return (
        f"The baseline is ImageNet first: {found['source'].iloc[0]}, here in place {found['rank'].iloc[0]} of "
        f"{len(best.table)}."
    )


def context(ranking: Ranking) -> list[str]:
    """What rankings of each kind were worth in the published ground truth; computed, never typed."""
    kinds = [
        (one.kind, bool(one.table["pretraining"].isin(published.LARGE).any()))
        for one in ranking.sets
        if one.kind != "left_out"
    ]
    return [_context(*kind) for kind in dict.fromkeys(kinds)]


def _context(kind: str, large: bool) -> str:
    """One kind; whether one of ImageNet, RadImageNet and pooled MedMNIST, on which the order rests, is in the set."""
    from companion import evaluation

    pairs = evaluation.published_pairs(kind)
    among = f"({kind.replace('_', ' ')})"
    if kind == "source_datasets" and not large:
        pairs = pairs[~pairs["source"].isin(published.LARGE)]
        among = "among the sources other than ImageNet, RadImageNet and pooled MedMNIST (none of which is here either)"
    taus = evaluation.weighted_tau(pairs.drop(columns=["gradient_ratio", "nca"])).mean()
    line = (
        f"In the published ground truth, {among}, this score's order had a mean weighted τ of {taus['proposed']:.2f}, "
        f"and the mean regret of its first choice was {evaluation.regret(pairs, 'proposed').mean():.4f} AUC"
    )
    if kind == "architectures":
        best = taus.idxmax()
        return (
            f"{line}. Both terms are inverted there, decided after the fact; the highest mean τ was {best}'s."
        )
    everything = evaluation.published_pairs(kind)
    imagenet = evaluation.regret(everything, lambda rows: "imagenet").mean()
    return f"{line}; that of always taking ImageNet was {imagenet:.4f}."


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


def _shown(candidates: CandidateSet) -> pd.DataFrame:
    """Columns people compare, as text."""
    table = candidates.table
    front = ["rank", "source", "proposed", "order", "nca", "gradient_ratio"]
    rest = table.columns.difference([*front, "gap", "architecture", "pretraining"], sort=False)
    shown = table[[*front, *rest]].copy()
    for column in shown.columns.difference(["source", "order"]):
        digits = 0 if column == "rank" else 3
        shown[column] = ["–" if pd.isna(value) else f"{value:.{digits}f}" for value in shown[column]]
    return shown


def _beside(ranking: Ranking) -> dict[str, list[str]]:
    """What stands below the tables, as titled lists of lines."""
    sections: dict[str, list[str]] = {}
    if ranking.notes:
        sections["About the images"] = ranking.notes
    if ranking.stability is not None:
        found = ranking.stability
        lines = list(found.summaries.values()) or ["no candidate set has an order"]
        for row in found.table.itertuples():
            places = f"{row.highest} to {row.lowest}" if row.highest != row.lowest else row.highest
            lines.append(f"{row.source}: first in {row.first:.0%}, place {places}")
        sections[f"How stable the order is ({found.repeats} random halves of the {found.of})"] = lines
    if ranking.verification is not None:
        checked = ranking.verification
        sections[f"Fine-tuned to see ({checked.protocol} protocol)"] = [
            checked.summary,
            *(
                f"{row.source}: test AUC {row.test_auc:.4f} on {checked.test_images} images, {row.epochs} epochs, "
                f"{duration(row.seconds)}"
                for row in checked.table.itertuples()
            ),
        ]
    sections["About the scores"] = _grouped(
        (remark, name) for name, remarks in ranking.remarks.items() for remark in remarks
    )
    sections["Where the sources come from"] = [
        f"{one['source']}: {one['origin']}; image side: {one['input_size'] or 'not given'}; licence: "
        f"{one['licence'] or 'not given'}"
        for one in ranking.origins
    ]
    sections["Left out"] = _grouped(
        (one.reason, one.source + (f" ({one.megabytes} MB)" if one.megabytes else ""))
        for one in ranking.left_out
    )
    sections["What such a ranking is worth"] = [*context(ranking), cost(ranking)]
    return {title: lines for title, lines in sections.items() if lines}


def _grouped(pairs: Any) -> list[str]:
    """Names with one reason in a line."""
    by_reason: dict[str, list[str]] = {}
    for reason, name in pairs:
        by_reason.setdefault(reason, []).append(name)
    return [f"{', '.join(names)}: {reason}" for reason, names in by_reason.items()]


def as_text(ranking: Ranking) -> str:
    """Lay the ranking out for a terminal: what to do, the tables, and what stands beside them."""
    lines = [f"target: {ranking.dataset!r}"]
    if ranking.synthetic:
        lines.append(f"{ranking.synthetic.upper()}: such numbers say nothing about medical images")
    lines += ["", *recommendation(ranking)]
    for one in ranking.sets:
        lines += ["", one.title, _shown(one).to_string(index=False)]
        lines += [f"  {line}" for line in (_state(one), *one.warnings) if line]
    for title, entries in _beside(ranking).items():
        lines += ["", title, *(f"  {entry}" for entry in entries)]
    return "\n".join([*lines, "", NOT_CLINICAL])


def _state(candidates: CandidateSet) -> str:
    """What of a set's order is undetermined, and why."""
    return candidates.reason if candidates.ordered else f"order undetermined: {candidates.reason}"


def as_html(ranking: Ranking) -> str:
    """What to do and the tables, for a notebook."""
    parts = [f"<p>{escape(line)}</p>" for line in recommendation(ranking)]
    for one in ranking.sets:
        parts.append(
            f"<p><strong>{escape(one.title)}</strong></p>{_shown(one).to_html(index=False, border=0)}"
        )
        parts += [f"<p>{escape(line)}</p>" for line in (_state(one), *one.warnings) if line]
    return "".join(parts)


def _records(table: pd.DataFrame) -> list[dict[str, Any]]:
    """Rows as JSON-able mappings; JSON has no NaN: missing numbers become null."""
    return table.astype(object).where(table.notna(), None).to_dict("records")


def as_document(ranking: Ranking) -> dict[str, Any]:
    """Turn the ranking into what ``--json`` prints."""
    document: dict[str, Any] = {
        "target": repr(ranking.dataset),
        "synthetic": ranking.synthetic,
        "recommendation": recommendation(ranking),
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
        sets=[(one, _state(one), _shown(one)) for one in ranking.sets],
        beside=_beside(ranking),
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
