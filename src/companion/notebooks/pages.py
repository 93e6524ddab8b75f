"""The prose pages: numbers, tables and figures are computed when the book is built and put where a page names them.

A page in ``book/`` is a Jinja template. ``{{ claim("note-10-size") }}`` is a recomputed number of the claims file,
``{{ table("transfer_auc") }}`` a table, ``{{ figure("saturation", "alt text") }}`` a picture. A name that does not
exist stops the build.
"""

from __future__ import annotations

import datetime
import inspect
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pandas as pd
from jinja2 import Environment, StrictUndefined, TemplateError
from matplotlib.figure import Figure

sys.path.insert(0, str(Path(__file__).parents[3] / "book"))

import claims
from claims import measures, synthetic

import companion
from companion import evaluation, figures, published, replication, store
from companion.datasets import cached_file, load_dataset, medmnist_classes, medmnist_flags, medmnist_samples
from companion.errors import EnvironmentFailure, InputError
from companion.figures import TITLES, short

MODALITIES = {
    "pathmnist": "colon pathology",
    "chestmnist": "chest X-ray",
    "dermamnist": "dermatoscopy",
    "octmnist": "retinal optical coherence tomography",
    "pneumoniamnist": "chest X-ray",
    "retinamnist": "fundus photography",
    "breastmnist": "breast ultrasound",
    "bloodmnist": "blood cell microscopy",
    "tissuemnist": "kidney cortex microscopy",
    "organamnist": "abdominal CT, axial",
    "organcmnist": "abdominal CT, coronal",
    "organsmnist": "abdominal CT, sagittal",
}


# Groups of the claims file, which no count may mix.
GROUPS = {"paper": "claims of the paper", "tables": "arithmetic of its tables", "notes": "notes of ours"}


def render(folder: Path) -> None:
    """Fill every page of a staged book, in place, and write the pictures beside them.

    Parameters
    ----------
    folder
        With the pages in ``folder/book``.

    Raises
    ------
    InputError
        If a page names a number, table or picture that does not exist.
    """
    environment = Environment(undefined=StrictUndefined, keep_trailing_newline=True, autoescape=False)
    page = Page(folder / "book" / "figures")
    environment.globals |= page.names()
    for path in sorted((folder / "book").glob("*.md")):
        text = path.read_text(encoding="utf-8")
        if "{{" not in text and "{%" not in text:
            continue
        try:
            path.write_text(environment.from_string(text).render(), encoding="utf-8")
        except TemplateError as error:
            line = getattr(error, "lineno", None)
            raise InputError(f"page {path.name}{f', line {line}' if line else ''}: {error}") from error


class Page:
    """What a page may name. Everything is computed once, when it is first asked for."""

    def __init__(self, pictures: Path) -> None:
        self.pictures = pictures
        self._claims: pd.DataFrame | None = None

    def names(self) -> dict[str, Any]:
        """Return the names a template can use."""
        return {
            "claim": self.claim,
            "number": self.number,
            "table": self.table,
            "figure": self.figure,
            "foot": foot,
            "reference": reference,
        }

    @property
    def claims(self) -> pd.DataFrame:
        """Every claim, recomputed."""
        if self._claims is None:
            self._claims = claims.table()
        return self._claims

    def claim(self, name: str, digits: int = 3, *, what: str = "found") -> str:
        """Return what recomputing a claim gives, or another of its columns (``value``, ``status``)."""
        if name not in self.claims.index:
            raise InputError(f"no claim {name!r}")
        return shown(self.claims.loc[name, what], digits)

    def number(self, name: str, digits: int = 3, **arguments: Any) -> str:
        """Return what one measure gives; see `claims.measures`."""
        if name not in measures.MEASURES:
            raise InputError(f"no measure {name!r}")
        given = {key: tuple(value) if isinstance(value, list) else value for key, value in arguments.items()}
        try:
            return shown(float(measures.MEASURES[name](**given)), digits)
        except EnvironmentFailure:
            return "(not at hand when this page was built)"

    def table(self, name: str) -> str:
        """Return a table as Markdown."""
        if name == "claims":
            return claims_table(self.claims)
        if name == "claims_summary":
            counts = pd.crosstab(self.claims["status"], self.claims["group"])
            counts = counts.reindex(index=claims.STATUS, columns=list(GROUPS), fill_value=0)
            return markdown(counts.rename(columns=GROUPS).rename_axis("status"))
        if name not in TABLES:
            raise InputError(f"no table {name!r}")
        return markdown(TABLES[name]())

    def figure(self, name: str, alt: str) -> str:
        """Draw a picture, write it and return the Markdown that shows it."""
        if name not in PICTURES:
            raise InputError(f"no picture {name!r}")
        self.pictures.mkdir(parents=True, exist_ok=True)
        PICTURES[name]().savefig(self.pictures / f"{name}.png", dpi=110)
        return f"```{{image}} figures/{name}.png\n:alt: {alt}\n:align: center\n```"


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
        text = f"{number:.0e}"  # it would read as nothing
    else:
        text = f"{number:.{digits}f}"
    return text.replace("-", "−")


def markdown(frame: pd.DataFrame, digits: int = 3) -> str:
    """A table as Markdown, with its index; empty cells where a value is missing, one form of number a column."""

    def text(value: Any, whole: bool) -> str:
        if value is None or value is pd.NA or (isinstance(value, float) and np.isnan(value)):
            return ""
        if whole or not isinstance(value, float) or not value.is_integer():
            return shown(value, digits)
        return f"{value:.{digits}f}".replace("-", "−")

    texts = frame.astype(object).copy()
    for column in texts.columns:
        numbers = [value for value in texts[column] if isinstance(value, float) and not np.isnan(value)]
        whole = all(value.is_integer() for value in numbers)
        texts[column] = [text(value, whole) for value in texts[column]]
    names = [frame.index.name or "", *map(str, frame.columns)]
    return texts.to_markdown(tablefmt="github", headers=names, disable_numparse=True)


def foot() -> str:
    """How a page was made, as the foot of every notebook page says it."""
    record = store.provenance()
    libraries = ", ".join(f"{name} {version}" for name, version in record["libraries"].items())
    return "\n".join(
        [
            "| How this page was made | |",
            "|---|---|",
            f"| Data | {published.PROVENANCE}; `companion.replication` |",
            f"| Versions | companion {record['companion']} (results version {record['results_version']}), "
            f"Python {record['python']}, {libraries} |",
            f"| Built | {datetime.date.today().isoformat()} |",
        ]
    )


def reference(module: str) -> str:
    """Return the public names of a module with their docstrings, as directives for Sphinx."""
    room = companion if module == "companion" else getattr(companion, module.removeprefix("companion."))
    lines = ["```{eval-rst}"]
    for name in sorted(room.__all__):
        thing = getattr(room, name)
        if isinstance(thing, ModuleType) or not callable(thing) or not inspect.getdoc(thing):
            continue
        directive = "autoclass" if inspect.isclass(thing) else "autofunction"
        lines.append(f".. {directive}:: {module}.{name}")
        # What the docstring lists as attributes would stand there twice.
        if directive == "autoclass" and "Attributes\n" not in (inspect.getdoc(thing) or ""):
            lines.append("   :members:")
        lines.append("")
    return "\n".join([*lines, "```"])


# --- tables ---------------------------------------------------------------------------------------------------


def claims_table(table: pd.DataFrame) -> str:
    """Every claim: what was said, what was found, within what, on what evidence, with what result."""
    notebooks = {"scores": "scores.md", "reproduction": "reproduction.md"}
    rows = []
    for name, row in table.iterrows():
        link = notebooks.get(row["page"], f"../notebooks/{row['page']}.ipynb")
        said = "" if pd.isna(row["value"]) else shown(row["value"], 4)
        if row["rule"] == "within" and row["tolerance"]:
            said += f" ± {row['tolerance']:g}"
        elif row["rule"] not in ("within", None, "verdict"):
            said = f"{row['rule']} {said}"
        found = {1.0: "supported", 0.0: "undecided", -1.0: "contradicted"}.get(row["found"], "")
        if row["rule"] != "verdict":
            found = "" if pd.isna(row["found"]) else shown(row["found"], 4)
        remarks = "; ".join([*row["caveats"], *([row["reason"]] if row["reason"] else [])])
        rows.append(
            {
                "claim": f"{row['claim']} ({row['where']})",
                "kind": GROUPS[row["group"]],
                "status": f"**{row['status']}**" + (f": {remarks}" if remarks else ""),
                "said": said,
                "found": found,
                "evidence": row["evidence"],
                "shown in": f"[](<{link}>)",
                "why this tolerance": row["why"],
                "id": f"`{name}`",
            }
        )
    return markdown(pd.DataFrame(rows).set_index("claim"))


def datasets() -> pd.DataFrame:
    """MedMNIST's 2D sets: images, classes, modality; counted where the file is at hand."""
    rows = {}
    for flag in medmnist_flags():
        counts, counted = medmnist_samples()[flag], "publisher's numbers"
        if cached_file(flag, 28):
            counts = {split: len(values) for split, values in load_dataset(flag).labels.items()}
            counted = "counted here"
        rows[flag] = {
            "modality": MODALITIES[flag],
            "classes": len(medmnist_classes()[flag]),
            **{f"{split} images": counts[split] for split in ("train", "val", "test")},
            "role": "source" if flag == "chestmnist" else "source and target",
            "numbers": counted,
        }
    return pd.DataFrame.from_dict(rows, orient="index").rename_axis("dataset")


def source_sizes() -> pd.DataFrame:
    """Training images behind every source dataset."""
    sizes = evaluation.training_set_sizes("chestmnist")
    table = pd.Series(sizes, name="training images").sort_values(ascending=False).to_frame()
    return table.rename_axis("source").rename(
        index={"medmnist": "medmnist (all sets but the target; here without chestmnist)"}
    )


def _transfer(setting: str) -> pd.DataFrame:
    table = published.table(setting)
    wide = table[table["target"] != "chestmnist"].pivot(index="source", columns="target", values="auc")
    best = wide.max()
    marked = wide.apply(
        lambda column: [
            "" if np.isnan(value) else f"**{value:.4f}**" if value == best[column.name] else f"{value:.4f}"
            for value in column
        ]
    )
    return marked.rename(columns=short)


def _taus(setting: str) -> pd.DataFrame:
    taus = evaluation.weighted_tau(setting)
    whole = pd.concat([taus.rename(index=short), taus.mean().to_frame("mean").T])
    return whole.rename(columns=lambda name: TITLES.get(name, name)).rename_axis("target")


def _ranks(setting: str) -> pd.DataFrame:
    ranks = evaluation.friedman(evaluation.weighted_tau(setting)).ranks
    means = ranks.mean().map("{:.2f}".format).to_frame("mean rank").T
    whole = pd.concat([ranks.rename(index=short).map("{:g}".format), means])
    return whole.rename(columns=lambda name: TITLES.get(name, name)).rename_axis("target")


def _nemenyi(setting: str) -> pd.DataFrame:
    import scikit_posthocs

    ranks = evaluation.friedman(evaluation.weighted_tau(setting)).ranks
    names = [TITLES.get(name, name) for name in ranks.columns]
    found = scikit_posthocs.posthoc_nemenyi_friedman(ranks.to_numpy())
    return pd.DataFrame(found.to_numpy(), index=pd.Index(names, name="p"), columns=names)


def _chosen(setting: str) -> pd.DataFrame:
    """Hyper-parameters of the run with the lowest validation loss, every pair."""
    runs = published.table("run_summaries")
    runs = runs[(runs["setting"] == setting) & (runs["target"] != "chestmnist")]
    cells = [
        f"{row.lr:g}, {row.momentum:g}, {row.weight_decay:g}, {row.batch_size:.0f}"
        for row in runs.itertuples()
    ]
    wide = runs.assign(cell=cells).pivot(index="source", columns="target", values="cell")
    return wide.rename(columns=short)


def chosen_counts() -> pd.DataFrame:
    """How often each value was chosen, over all pairs of both settings."""
    runs = published.table("run_summaries")
    parts = []
    for name in ("lr", "momentum", "weight_decay"):
        counts = runs.groupby([name, "setting"]).size().unstack(fill_value=0)
        counts.index = pd.Index([f"{name.replace('_', ' ')} {value:g}" for value in counts.index])
        parts.append(counts)
    return pd.concat(parts).rename(columns=lambda name: name.replace("_", " ")).rename_axis("value")


def statements() -> pd.DataFrame:
    """What our replication says of the statements written down before it."""
    return replication.statements().set_index("statement")


def closeness_leads() -> pd.DataFrame:
    """How much closer NCA comes to fine-tuned features than LDA and than no projection."""
    from companion.evaluation.similarity import leads

    table = replication.projections()
    words = {1.0: "closer", 0.0: "undecided", -1.0: "less close"}
    parts = {}
    for over, label in (("lda", "NCA against LDA"), ("before", "NCA against no projection")):
        found = leads(table, over)
        found["verdict"] = found["verdict"].map(words)
        parts[label] = found
    whole = pd.concat(parts, names=["compared", "measure"]).reset_index("measure")
    return whole


def notes_on_noise() -> pd.DataFrame:
    """LogME of synthetic noise by width."""
    return pd.DataFrame(noise_by_width()).rename_axis("features")


def without_large() -> pd.DataFrame:
    """Mean τ_w with and without the three large sources."""
    table = evaluation.published_pairs("source_datasets")[["source", "target", "auc", *measures.SEVEN]]
    return pd.DataFrame(
        {
            "all 15 sources": evaluation.weighted_tau(table).mean(),
            "without the three large": evaluation.weighted_tau(
                table[~table["source"].isin(published.LARGE)]
            ).mean(),
        }
    ).rename(index=TITLES)


def first_on_itself() -> pd.DataFrame:
    """Targets that put themselves first as their own source, by score."""
    measure = measures.MEASURES["first_on_itself"]
    names = [name for name in (*published.METRICS, "gradient_ratio") if name != "ncti"]
    return pd.DataFrame({"targets of 11": {TITLES[name]: int(measure(name)) for name in names}}).rename_axis(
        "score"
    )


def truths() -> pd.DataFrame:
    """Mean τ_w of every score against other summaries of the same runs."""
    return evaluation.ground_truths().rename(index=TITLES)


def seeds() -> pd.DataFrame:
    """NLEEP of one set of synthetic features over seeds of its mixture."""
    values = np.array(synthetic.nleep_over_seeds())
    return pd.DataFrame(
        {
            "seeds": [len(values)],
            "mean": [values.mean()],
            "sd": [values.std(ddof=1)],
            "smallest": [values.min()],
            "largest": [values.max()],
        },
        index=pd.Index(["NLEEP"], name="synthetic features"),
    )


TABLES: Mapping[str, Callable[[], pd.DataFrame]] = {
    "datasets": datasets,
    "source_sizes": source_sizes,
    "transfer_auc": lambda: _transfer("source_datasets"),
    "transfer_auc_architectures": lambda: _transfer("architectures"),
    "tau": lambda: _taus("source_datasets"),
    "tau_architectures": lambda: _taus("architectures"),
    "ranks": lambda: _ranks("source_datasets"),
    "ranks_architectures": lambda: _ranks("architectures"),
    "nemenyi": lambda: _nemenyi("source_datasets"),
    "chosen": lambda: _chosen("source_datasets"),
    "chosen_architectures": lambda: _chosen("architectures"),
    "chosen_counts": chosen_counts,
    "statements": statements,
    "closeness": closeness_leads,
    "noise_by_width": notes_on_noise,
    "without_large": without_large,
    "first_on_itself": first_on_itself,
    "truths": truths,
    "seeds": seeds,
}


# --- pictures -------------------------------------------------------------------------------------------------


def noise_by_width() -> dict[str, dict[int, float]]:
    """LogME of pure noise with 200 points, by number of features, as published and corrected."""
    widths = (32, 128, 256, 512, 1024, 4096)
    return {
        variant: {width: synthetic.logme_on_noise(width, variant) for width in widths}
        for variant in ("published", "corrected")
    }


def _saturation() -> Figure:
    parts = {}
    for setting in published.SETTINGS:
        table = published.table(setting)
        table = table[table["logme"].notna()]
        parts[setting] = (table["sfda"] == 1).groupby(table["target"]).mean()
    return figures.saturation(pd.DataFrame(parts))


def _chance() -> Figure:
    values = {
        "as published": synthetic.nca_on_noise("published"),
        "the point left out": synthetic.nca_on_noise("corrected"),
    }
    rows = pd.DataFrame(
        values, index=[f"{synthetic.POINTS} points, {synthetic.WIDTH} features, labels without meaning"]
    )
    return figures.chance(rows, 0.5)


def _sizes() -> Figure:
    sized = measures.sized_pairs()[["source", "target", "auc", "training_set_size"]]
    small = sized[~sized["source"].isin(published.LARGE)]
    return figures.size_and_auc(
        pd.DataFrame(
            {
                "all sources": evaluation.weighted_tau(sized)["training_set_size"],
                "without the three large": evaluation.weighted_tau(small)["training_set_size"],
            }
        )
    )


PICTURES: Mapping[str, Callable[[], Figure]] = {
    "noise_by_width": lambda: figures.by_width(noise_by_width(), 200),
    "saturation": _saturation,
    "turned_round": lambda: figures.inversion(
        evaluation.weighted_tau("architectures", inverted=False).mean(),
        evaluation.weighted_tau("architectures").mean(),
    ),
    "chance": _chance,
    "other_truths": lambda: figures.other_ground_truths(
        evaluation.ground_truths(), ["proposed", "nleep", "leep"]
    ),
    "size_and_auc": _sizes,
}
