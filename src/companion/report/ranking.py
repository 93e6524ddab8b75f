"""A ranking as people and programs read it: text, JSON, CSV, a page that opens offline."""

from __future__ import annotations

import base64
import io
import json
import math
import re
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd

from companion import published
from companion.datasets import sample
from companion.report.files import check_folder, write_all

if TYPE_CHECKING:  # a first look and the surroundings need no torch
    from companion.ranking import Candidate

# Notes are put together with semicolons, and have some of their own.
_NOTES = re.compile(r"; (?=\w+: |trained at )")
NOT_CLINICAL = "Research software, not for clinical use."


@dataclass(frozen=True)
class Extras:
    """What may stand in a report beside the ranking.

    Attributes
    ----------
    left_out
        Sources that are not among the default candidates, with the reasons.
    stability, verification
        As `companion.ranking.stability` and `companion.ranking.verify` return them.
    examples
        The target's images, for a figure; None keeps pictures out.
    """

    left_out: Sequence[Candidate] = ()
    stability: pd.DataFrame | None = None
    verification: pd.DataFrame | None = None
    examples: Any = None


NOTHING = Extras()


def context(kind: str = "source_datasets", *, large: bool = True) -> str:
    """Say what rankings of this kind were worth in the published ground truth; computed, never typed.

    Parameters
    ----------
    kind
        Of the pool.
    large
        Whether one of ImageNet, RadImageNet and pooled MedMNIST is in the pool: among source datasets the published
        order rests on these.
    """
    from companion import evaluation

    setting = "architectures" if kind == "architectures" else "source_datasets"
    table = evaluation.published_pairs(setting)
    imagenet = (
        evaluation.regret(table, lambda rows: "imagenet").mean() if kind != "architectures" else math.nan
    )
    if kind != "architectures" and not large:
        small = table[~table["source"].isin(published.LARGE)]
        taus = evaluation.weighted_tau(small[["source", "target", "auc", "proposed"]])
        return (
            "In the published ground truth, among the sources other than ImageNet, RadImageNet and pooled MedMNIST "
            "(none of which is here either), this score's order had a mean weighted τ of "
            f"{taus['proposed'].mean():.2f}, and its first choice gave away "
            f"{evaluation.regret(small, 'proposed').mean():.4f} AUC on average against the best of them; "
            f"always taking ImageNet gave away {imagenet:.4f} against the best of all. Try ImageNet first."
        )
    taus = evaluation.weighted_tau(setting)
    line = (
        f"In the published ground truth ({setting.replace('_', ' ')}) this score's order had a mean weighted τ of "
        f"{taus['proposed'].mean():.2f}, and its first choice gave away "
        f"{evaluation.regret(table, 'proposed').mean():.4f} AUC on average"
    )
    if setting == "architectures":
        best = taus.mean().idxmax()
        return f"{line}. Both terms are turned round there, decided after the fact; the highest mean τ was {best}'s."
    return f"{line}; always taking ImageNet gave away {imagenet:.4f}. Try ImageNet first."


def contexts(table: pd.DataFrame) -> str:
    """Give the context of every kind of pool in a ranking."""
    said = dict.fromkeys(
        context(pool["kind"], large=_has_large(table[table["pool"] == pool["pool"]]))
        for pool in table.attrs["pools"]
        if pool["kind"] != "left_out"
    )
    return " ".join(said)


def _has_large(rows: pd.DataFrame) -> bool:

    return bool(rows["pretraining"].isin(published.LARGE).any())


def verdict(pool: dict[str, Any], rows: pd.DataFrame) -> str:
    """One line on what the order of a pool is worth."""
    if pool["order"] == "undetermined":
        return f"order undetermined: {pool['reason']}"
    first, second = rows.iloc[0], rows.iloc[1]
    level = list(rows["source"][rows["proposed"] == second["proposed"]])
    line = (
        f"{first['source']} leads {' and '.join(level)} by {first['gap']:.3f}, where the pool spans "
        f"{rows['proposed'].min():.3f} to {rows['proposed'].max():.3f}"
    )
    return f"{line}; {pool['reason']}" if pool["reason"] else line


def trivial(pool: dict[str, Any], rows: pd.DataFrame) -> str:
    """Put the trivial answer, ImageNet first, beside the order of a pool; empty where it does not apply."""
    if pool["kind"] != "source_datasets":
        return ""
    found = rows[rows["pretraining"] == "imagenet"]
    if found.empty:
        return (
            "the trivial answer, ImageNet first, is not among these: companion fetch imagenet brings it, and named "
            "with --source beside these, or without any --source, it is ranked too"
        )
    name, place = found["source"].iloc[0], found["rank"].iloc[0]
    if pd.isna(place):
        return f"the trivial answer: {name} first"
    return f"the trivial answer: {name} first; here it has place {place} of {len(rows)}"


def agreed(table: pd.DataFrame, pool: dict[str, Any]) -> str:
    """Say in a line whom the methods put first and how alike their orders are; empty for fewer than two methods."""
    from companion.ranking import agreement

    found = agreement(table)
    found = found[(found["pool"] == pool["pool"]) & (found["sources"] == pool["sources"])]
    if len(found) < 2:
        return ""
    votes = found.groupby("first", sort=False)["method"].agg(list)
    order = sorted(votes.index, key=lambda name: -len(votes[name]))
    said = ", ".join(f"{name} by {len(votes[name])} ({', '.join(votes[name])})" for name in order)
    tau = found["tau"].mean()
    return f"put first: {said}" + (
        f"; mean Kendall τ between methods {tau:.2f}" if math.isfinite(tau) else ""
    )


def duration(seconds: float) -> str:
    """Seconds as people say them."""
    if seconds < 90:
        return f"{seconds:.0f} s" if seconds >= 10 else f"{seconds:.1f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"


def spent(table: pd.DataFrame) -> str:
    """Say what the ranking took and what it saves."""
    cost = table.attrs["cost"]
    memory = f" and {cost['peak_memory_gb']:.1f} GB of memory" if cost["peak_memory_gb"] else ""
    tuning = cost["fine_tuning"]
    return (
        f"This took {duration(cost['seconds'])}{memory} for {cost['images']} images and {len(cost['by_source'])} "
        f"sources; fine-tuning each of them once would take about {duration(tuning['quick'])} (quick protocol) "
        f"or {duration(tuning['standard'])} (standard), estimated from the time of the pass."
    )


def _pools(table: pd.DataFrame) -> list[tuple[dict[str, Any], pd.DataFrame]]:
    return [(pool, table[table["pool"] == pool["pool"]]) for pool in table.attrs["pools"]]


def _shown(rows: pd.DataFrame) -> pd.DataFrame:
    """Columns people compare, as text."""
    columns = [c for c in rows.columns if c not in ("pool", "architecture", "pretraining", "note", "gap")]
    shown = rows[columns].copy()
    for column in shown.columns:
        if column == "rank":
            shown[column] = [("–" if pd.isna(value) else str(value)) for value in shown[column]]
        elif pd.api.types.is_numeric_dtype(shown[column]):
            shown[column] = ["–" if pd.isna(value) else f"{value:.3f}" for value in shown[column]]
    return shown


def _beside(table: pd.DataFrame, extras: Extras) -> dict[str, list[str]]:
    """What stands below the tables, as titled lists of lines."""
    sections = {"Where they come from": [_origin(source) for source in table.attrs["sources"]]}
    if extras.stability is not None:
        of, repeats = extras.stability.attrs["of"], extras.stability.attrs["repeats"]
        lines = list(extras.stability.attrs["summaries"].values()) or ["no candidate set has an order"]
        lines += [
            f"{row.source}: first in {row.first:.0%}, place {_places(row)}"
            for row in extras.stability.itertuples()
        ]
        title = f"How stable the order is ({repeats} random halves of the {of})"
        sections[title] = lines
    if extras.verification is not None:
        found = extras.verification
        sections[f"Fine-tuned to see ({found.attrs['protocol']} protocol)"] = [
            found.attrs["verdict"],
            *(
                f"{row.source}: test AUC {row.test_auc:.4f} on {found.attrs['test_images']} images, {row.epochs} "
                f"epochs, {duration(row.seconds)}"
                for row in found.itertuples()
            ),
        ]
    if extras.left_out:
        sections["Left out"] = _left_out(extras.left_out)
    if table.attrs["notes"]:
        sections["About the images"] = list(table.attrs["notes"])
    return sections


def _left_out(candidates: Sequence[Candidate]) -> list[str]:
    """Sources that are left out, those with one reason in a line."""
    by_reason: dict[str, list[str]] = {}
    for candidate in candidates:
        size = f" ({candidate.megabytes} MB)" if candidate.megabytes else ""
        by_reason.setdefault(candidate.reason, []).append(candidate.source + size)
    return [f"{', '.join(names)}: {reason}" for reason, names in by_reason.items()]


def _places(row: Any) -> str:
    return str(row.highest) if row.highest == row.lowest else f"{row.highest} to {row.lowest}"


def _origin(source: dict[str, Any]) -> str:
    side = f"images of {source['input_size']} px" if source["input_size"] else "size of images not said"
    return f"{source['source']}: {source['origin']}; {side}; licence: {source['licence'] or 'not said'}"


def _remarks(table: pd.DataFrame, pool: dict[str, Any], rows: pd.DataFrame) -> list[str]:
    said = [*pool["warnings"], trivial(pool, rows), "" if pool["kind"] == "left_out" else agreed(table, pool)]
    sources: dict[str, list[str]] = {}
    for row in rows.itertuples():
        for note in filter(None, _NOTES.split(str(row.note))):
            sources.setdefault(note, []).append(str(row.source))
    return [line for line in said if line] + [
        f"{', '.join(names)}: {note}" for note, names in sources.items()
    ]


def as_text(table: pd.DataFrame, extras: Extras = NOTHING) -> str:
    """Lay the ranking out for a terminal: a table a pool, what each is worth, and what stands beside it."""
    lines = [f"target: {table.attrs['target']}"]
    if table.attrs.get("synthetic"):
        lines.append(f"{table.attrs['synthetic'].upper()}: such numbers say nothing about medical images")
    for pool, rows in _pools(table):
        lines += ["", pool["pool"], _shown(rows).to_string(index=False), verdict(pool, rows)]
        lines += [f"  {line}" for line in _remarks(table, pool, rows)]
    for title, entries in _beside(table, extras).items():
        lines += ["", title, *(f"  {entry}" for entry in entries)]
    return "\n".join([*lines, "", contexts(table), spent(table), NOT_CLINICAL])


def _plain(value: Any) -> Any:
    """JSON has no NaN: missing numbers become null."""
    if value is pd.NA or isinstance(value, float) and not math.isfinite(value):
        return None
    return value.item() if hasattr(value, "item") else value


def _records(table: pd.DataFrame | None) -> list[dict[str, Any]]:
    rows = [] if table is None else table.to_dict("records")
    return [{str(key): _plain(value) for key, value in row.items()} for row in rows]


def as_document(table: pd.DataFrame, extras: Extras = NOTHING) -> dict[str, Any]:
    """Turn the ranking into what ``--json`` prints."""
    from companion.ranking import agreement

    pools = [
        {
            **pool,
            "trivial": trivial(pool, rows),
            "rows": [{key: value for key, value in row.items() if key != "pool"} for row in _records(rows)],
        }
        for pool, rows in _pools(table)
    ]
    document: dict[str, Any] = {
        "target": table.attrs["target"],
        "synthetic": table.attrs.get("synthetic", ""),
        "notes": table.attrs["notes"],
        "pools": pools,
        "agreement": _records(agreement(table)),
        "sources": table.attrs["sources"],
        "left_out": [asdict(candidate) for candidate in extras.left_out],
        "context": contexts(table),
        "cost": table.attrs["cost"],
        "provenance": table.attrs["provenance"],
    }
    for name in ("stability", "verification"):
        found = getattr(extras, name)
        if found is not None:
            document[name] = {**found.attrs, "rows": _records(found)}
    return json.loads(json.dumps(document, default=str))


def as_page(table: pd.DataFrame, picture: bytes, extras: Extras = NOTHING, examples: bytes = b"") -> str:
    """Render the ranking as one self-contained HTML page; every name in it is escaped."""
    import jinja2

    pools = []
    for pool, rows in _pools(table):
        shown = _shown(rows)
        pools.append(
            {
                "title": pool["pool"],
                "undetermined": pool["order"] == "undetermined",
                "verdict": verdict(pool, rows),
                "columns": list(shown.columns),
                "rows": shown.to_numpy().tolist(),
                "notes": _remarks(table, pool, rows),
            }
        )
    template = jinja2.Environment(autoescape=True).from_string(
        resources.files("companion").joinpath("report.html").read_text(encoding="utf-8")
    )
    return template.render(
        target=table.attrs["target"],
        name=next(iter(table.attrs["provenance"]["data"])),
        synthetic=table.attrs.get("synthetic"),
        pools=pools,
        beside=_beside(table, extras),
        context=contexts(table),
        spent=spent(table),
        not_clinical=NOT_CLINICAL,
        provenance=table.attrs["provenance"],
        picture=base64.b64encode(picture).decode(),
        examples=base64.b64encode(examples).decode(),
    )


def write(table: pd.DataFrame, folder: Path, *, force: bool = False, extras: Extras = NOTHING) -> list[Path]:
    """Write the ranking to a folder as CSV, JSON, PNG and HTML; all of them or, on failure, none."""
    from companion import figures

    check_folder(folder, force=force)
    picture = _png(figures.ranking(table), dpi=150)
    examples = b"" if extras.examples is None else _png(figures.examples(sample(extras.examples)), dpi=80)
    contents = {
        "ranking.csv": table.to_csv(index=False).encode(),
        "ranking.json": json.dumps(as_document(table, extras), indent=1).encode(),
        "ranking.png": picture,
        "ranking.html": as_page(table, picture, extras, examples).encode(),
    }
    return write_all(folder, contents)


def _png(figure: Any, *, dpi: int) -> bytes:
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=dpi)
    return buffer.getvalue()
