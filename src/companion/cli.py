"""The command line: the package's verbs, one line for a mistake, exit codes that mean something."""

from __future__ import annotations

import errno
import json
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any

import typer

from companion import __version__
from companion.errors import CompanionError, InputError

app = typer.Typer(
    name="companion",
    help="Which pre-trained model should I fine-tune on my images? Research software, not for clinical use.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)

DataDir = Annotated[
    Path | None, typer.Option("--data-dir", help="Where datasets are looked up and downloaded to.")
]
AsJson = Annotated[bool, typer.Option("--json", help="Print one JSON document on stdout and nothing else.")]


@contextmanager
def _progress() -> Iterator[Callable[[float, str], None] | None]:
    """Show a bar with an estimate on a terminal; None, so silence, where stderr is piped."""
    if not sys.stderr.isatty():
        yield None
        return
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

    columns = (TextColumn("{task.description}"), BarColumn(), TimeElapsedColumn(), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task("starting", total=1.0)
        yield lambda fraction, text: bar.update(task, completed=fraction, description=text)


@app.command()
def inspect(
    target: Annotated[str, typer.Argument(help="As for rank.")],
    out: Annotated[Path | None, typer.Option(help="Folder for the facts and example images.")] = None,
    images: Annotated[
        bool, typer.Option("--images/--no-images", help="With pictures, and names of files and patients.")
    ] = True,
    size: Annotated[int | None, typer.Option(help="Of MedMNIST: 28, 64, 128 or 224.")] = None,
    seed: Annotated[int, typer.Option(min=0, help="Seed of the splits, where none are given.")] = 0,
    force: Annotated[bool, typer.Option("--force", help="Overwrite earlier files in that folder.")] = False,
    data_dir: DataDir = None,
    as_json: AsJson = False,
) -> None:
    """Look at TARGET first: counts, sizes, duplicates, what is left out."""
    from companion import report
    from companion.datasets import inspect as look

    if out is not None:
        report.check_folder(out, force=force, files=report.LOOK_FILES)
    with _progress() as progress:
        tell = None if progress is None else lambda line: progress(0.0, line)
        facts = look(target, size=size, seed=seed, data_dir=data_dir, progress=tell)
    written = report.write_look(facts, out, force=force, images=images) if out is not None else []
    if as_json:
        typer.echo(json.dumps(facts.as_document(names=images), indent=1))
        return
    typer.echo(report.look_as_text(facts, names=images))
    for path in written:
        typer.echo(f"written: {path}")


@app.command()
def rank(
    target: Annotated[
        str,
        typer.Argument(
            help="MedMNIST flag, .npz file, folder of class folders, .csv or .tsv of paths and labels, procedural:NAME."
        ),
    ],
    source: Annotated[
        list[str] | None,
        typer.Option(
            "--source",
            "-s",
            help="A source model; give it once for each. Without: those that can be had here.",
        ),
    ] = None,
    size: Annotated[int | None, typer.Option(help="Image side in pixels: 28, 64, 128 or 224.")] = None,
    seed: Annotated[int, typer.Option(min=0, help="Seed of draws, random weights and training.")] = 24,
    per_class: Annotated[
        int, typer.Option(min=3, help="Images scored: this many times the number of classes.")
    ] = 100,
    repeats: Annotated[
        int, typer.Option(min=0, help="Rank so many times on parts of the images: how sure is the order?")
    ] = 0,
    verify: Annotated[
        int, typer.Option(min=0, help="Fine-tune the first so many: was the ranking right?")
    ] = 0,
    variant: Annotated[str, typer.Option(help="corrected or published.")] = "corrected",
    device: Annotated[str, typer.Option(help="auto, cpu, cuda, cuda:N or mps.")] = "auto",
    architecture: Annotated[
        str, typer.Option(help="Of imagenet, scratch, train: and checkpoints that do not say theirs.")
    ] = "resnet18",
    trust: Annotated[
        bool, typer.Option("--trust", help="Accept downloads without a published checksum.")
    ] = False,
    out: Annotated[Path | None, typer.Option(help="Folder for the table, the figure and the report.")] = None,
    images: Annotated[
        bool, typer.Option("--images/--no-images", help="With example pictures of TARGET in the report.")
    ] = True,
    force: Annotated[
        bool, typer.Option("--force", help="Overwrite an earlier report in that folder.")
    ] = False,
    data_dir: DataDir = None,
    as_json: AsJson = False,
) -> None:
    """Rank source models for TARGET without fine-tuning any of them."""
    from companion import report, store

    if variant not in ("corrected", "published"):
        raise InputError(f"--variant {variant!r} is none of corrected, published")
    if out is not None:
        report.check_folder(out, force=force)
    with store.data_directory(data_dir):
        with _progress() as progress:
            from companion import ranking
            from companion.datasets import load_dataset
            from companion.ranking.table import check_sources
            from companion.training import FINE_TUNING_PROTOCOLS

            if repeats and repeats < ranking.FEWEST:
                raise InputError(f"--repeats {repeats} says too little: give at least {ranking.FEWEST}")
            if source:
                check_sources(source)
            told = None if progress is None else lambda line: progress(0.0, line)
            dataset = load_dataset(target, size=size, trust=trust, progress=told)
            if verify:
                ranking.images_to_verify(dataset, verify)
            left_out: list[ranking.Candidate] = []
            if not source:
                source, left_out = ranking.default_sources(dataset, architecture=architecture, seed=seed)
            how: dict[str, Any] = {
                "architecture": architecture,
                "seed": seed,
                "device": device,
                "trust": trust,
            }
            scoring = how | {"per_class": per_class, "variant": variant}
            table = ranking.rank(dataset, source, progress=progress, **scoring)
        sureness = verification = None
        if (repeats or verify) and not any(pool["order"] == "determined" for pool in table.attrs["pools"]):
            typer.echo("no pool has an order, so there is nothing to repeat or to verify", err=True)
            repeats = verify = 0
        if repeats:
            _tell_cost(f"{repeats} repeats", ranking.repeat_cost(table, repeats))
            with _progress() as progress:
                sureness = ranking.repeat(table, dataset, source, repeats, progress=progress, **scoring)
        if verify:
            chosen, spent = ranking.first_sources(table, verify), table.attrs["cost"]
            quick = FINE_TUNING_PROTOCOLS["quick"]
            seconds = ranking.fine_tuning_seconds(spent, dataset, quick, chosen)
            _tell_cost(f"fine-tuning {', '.join(chosen)}", seconds)
            with _progress() as progress:
                verification = ranking.verify(table, dataset, source, verify, progress=progress, **how)
    extras = report.Extras(left_out, sureness, verification, dataset if images else None)
    written = report.write(table, out, force=force, extras=extras) if out is not None else []
    if as_json:
        typer.echo(json.dumps(report.as_document(table, extras), indent=1))
        return
    typer.echo(report.as_text(table, extras))
    for path in written:
        typer.echo(f"written: {path}")


def _tell_cost(what: str, seconds: float) -> None:
    from companion.report import duration

    typer.echo(f"{what}: about {duration(seconds)}", err=True)


@app.command()
def notebook(
    name: Annotated[str, typer.Argument(help="Notebook, by name or number.")] = "",
    parameter: Annotated[
        list[str] | None,
        typer.Option("-p", "--parameter", help="A parameter: -p name value (or name=value)."),
    ] = None,
    out: Annotated[Path | None, typer.Option(help="File for the executed notebook.")] = None,
    listing: Annotated[
        bool, typer.Option("--list", help="List notebooks and their parameters; NAME --help: those of one.")
    ] = False,
    force: Annotated[bool, typer.Option("--force", help="Overwrite the file.")] = False,
    data_dir: DataDir = None,
) -> None:
    """Execute a notebook with parameters of your own."""
    from companion import store
    from companion.notebooks import NOTEBOOKS, parse, resolve

    if listing:
        for known in [resolve(name)] if name else NOTEBOOKS:
            typer.echo(known)
            for key, field in NOTEBOOKS[known].model_fields.items():
                typer.echo(f"  {key} = {field.default!r}  # {field.description or ''}")
        return
    if not name:
        raise InputError("name a notebook, or give --list to see them")
    known = resolve(name)
    given = {key: value for key, _, value in (pair.partition("=") for pair in parameter or [])}
    parse(known, given)
    target = out or Path.cwd() / f"{known}.ipynb"
    from companion.notebooks.execution import execute, repository

    root = repository()
    if out is None and root and target.resolve().parent == (root / "notebooks").resolve():
        raise InputError(f"{target} is the committed notebook: say where to write with --out")
    if target.exists() and not force:
        raise InputError(f"{target} exists: give another --out, or --force to overwrite it")
    store.check_writable(target)
    with store.data_directory(data_dir):
        execute(known, given, target)
    typer.echo(str(target))


@app.command()
def replicate(
    protocol: Annotated[str, typer.Argument(help="paper, standard, quick, or a YAML file.")],
    out: Annotated[
        Path | None, typer.Option(help="Folder of the results; by default one in the cache directory.")
    ] = None,
    workers: Annotated[int, typer.Option(min=1, help="Processes on this machine.")] = 1,
    scheduler: Annotated[
        str | None, typer.Option(help="Address of a Dask scheduler, such as tcp://host:8786.")
    ] = None,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda, cuda:N or mps.")] = "auto",
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Say what it will cost, and stop.")] = False,
    data_dir: DataDir = None,
    as_json: AsJson = False,
) -> None:
    """Fine-tune every source of PROTOCOL on every target, here or on a cluster; running it again goes on."""
    from companion import replication, store
    from companion.models import best_device

    if scheduler and workers > 1:
        raise InputError("--workers is for this machine and --scheduler for a cluster: give one of them")
    read = replication.read(protocol)
    chosen = str(best_device(device)) if scheduler is None else device
    folder = out or store.cache_dir() / "replications" / read.name
    store.check_writable(folder / "runs.parquet")
    plan = replication.plan(read, folder, data_dir=data_dir)

    def tell(line: str) -> None:
        typer.echo(line, err=True)

    for line in replication.cost(plan, device=chosen, workers=workers, measured_here=scheduler is None):
        tell(line)
    if not dry_run:
        with _progress() as progress:
            replication.execute(
                plan,
                workers=workers,
                scheduler=scheduler,
                device=chosen,
                report=progress or (lambda _, text: tell(text)),
            )
        if plan.missing:
            tell(
                f"{len(plan.missing)} run(s) are being done by another process on {folder}: run again when it ends"
            )
    runs, scores = replication.frames(plan)
    files = [] if dry_run else replication.write(plan, (runs, scores))
    if as_json:
        document = {
            "folder": str(folder),
            "planned": len(plan.runs),
            "stored": len(plan.stored),
            "provenance": runs.attrs["provenance"],
            "runs": json.loads(runs.to_json(orient="records")),
            "scores": json.loads(scores.to_json(orient="records")),
        }
        typer.echo(json.dumps(document, indent=1))
        return
    if len(runs):
        chosen_runs = replication.select(runs)
        wide = chosen_runs.pivot_table(index="source", columns="target", values="auc")
        typer.echo("test AUC of the run with the lowest validation loss, mean over folds")
        typer.echo(wide.round(3).to_string())
    for path in files:
        typer.echo(f"written: {path}")


@app.command()
def book(
    data: Annotated[str, typer.Option(help="auto, real or procedural (synthetic).")] = "auto",
    committed: Annotated[
        bool, typer.Option("--committed", help="Build from the executed notebooks as committed.")
    ] = False,
    protocol: Annotated[
        str | None, typer.Option(help="Of the notebooks that train: quick, standard or paper.")
    ] = None,
    data_dir: DataDir = None,
) -> None:
    """Execute every notebook afresh, then build the HTML book; print the page to open."""
    from companion import store
    from companion.notebooks.book import build

    with store.data_directory(data_dir):
        typer.echo(str(build(data=data, committed=committed, protocol=protocol)))


@app.command()
def fetch(
    names: Annotated[
        list[str],
        typer.Argument(
            help="MedMNIST flags, cifar10_32, runs (the authors' fine-tunings), or source models such as imagenet."
        ),
    ],
    to: Annotated[Path | None, typer.Option("--to", help="Data directory to fetch into.")] = None,
    size: Annotated[int, typer.Option(help="Image side of datasets: 28, 64, 128 or 224.")] = 28,
    trust: Annotated[
        bool, typer.Option("--trust", help="Accept downloads without a published checksum.")
    ] = False,
) -> None:
    """Bring data and weights ahead of time, for a place without internet."""
    from companion import published, store
    from companion.datasets import NATURAL, load_dataset, medmnist_flags

    with store.data_directory(to):
        for name in names:
            if name in (*medmnist_flags(), NATURAL):
                typer.echo(
                    repr(load_dataset(name, size=size, progress=lambda line: typer.echo(line, err=True)))
                )
            elif name == "runs":
                typer.echo(f"{len(published.runs())} fine-tuning runs of the authors, in {store.data_dir()}")
            else:
                from companion.sources import load_source

                if to is not None and name.partition(":")[0] in ("imagenet", "torchvision", "timm"):
                    raise InputError(
                        f"{name}: torch keeps these weights in a cache of its own, which --to does not move; "
                        "leave --to out and copy that cache (companion doctor names it)"
                    )
                typer.echo(repr(load_source(name.removeprefix("weights:"), trust=trust)))


@app.command()
def doctor(as_json: AsJson = False) -> None:
    """Tell what is installed, which device would be used, and which data is at hand."""
    from companion import report

    found = report.surroundings()
    if as_json:
        typer.echo(json.dumps(found, indent=1))
        return
    for section, entries in found.items():
        typer.echo(f"{section}:")
        for key, value in entries.items():
            typer.echo(f"  {key}: {value}")


def _version(wanted: bool) -> None:
    if wanted:
        typer.echo(__version__)
        raise typer.Exit


@app.callback()
def _options(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version.")
    ] = False,
    debug: Annotated[
        bool, typer.Option("--debug", help="Show a traceback for errors of the user's input too.")
    ] = False,
) -> None:
    if debug:
        os.environ["COMPANION_DEBUG"] = "1"


def _pair_up(arguments: list[str]) -> list[str]:
    """Turn papermill's ``-p name value`` into ``-p name=value``: typer has no options of two values.

    ``NAME --help`` becomes ``NAME --list``: the help of a notebook is its parameters.
    """
    if "notebook" not in arguments[:2]:
        return arguments
    if "--help" in arguments and not arguments[arguments.index("notebook") + 1].startswith("-"):
        arguments = ["--list" if word == "--help" else word for word in arguments]
    paired, rest = [], list(arguments)
    while rest:
        word = rest.pop(0)
        paired.append(word)
        if word in ("-p", "--parameter") and len(rest) > 1 and "=" not in rest[0]:
            paired.append(f"{rest.pop(0)}={rest.pop(0)}")
    return paired


def main(arguments: list[str] | None = None) -> Any:
    """Run the command line; mistakes of the user's become one line and an exit code."""
    try:
        # Outside its standalone mode typer returns the exit code and lets exceptions through.
        code = (
            app(args=_pair_up(sys.argv[1:] if arguments is None else arguments), standalone_mode=False) or 0
        )
        if code == 130:  # typer turns Ctrl-C into this code
            raise KeyboardInterrupt
        sys.exit(code)
    except CompanionError as error:
        if os.environ.get("COMPANION_DEBUG"):
            raise
        _stop(str(error), error.exit_code)
    except (KeyboardInterrupt, typer.Abort):
        _stop("interrupted; nothing half-written was kept", 130)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # the reader of our output has gone
        sys.exit(0)
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES):
            raise
        _stop(f"{error.filename or 'the disk'}: {error.strerror}", 3)
    except Exception as error:
        # typer's own usage errors (unknown option, value of the wrong type) carry a message for people.
        if not hasattr(error, "format_message"):
            raise
        if type(error).__name__ == "NoArgsIsHelpError":
            print(error.format_message())
            sys.exit(2)
        _stop(" ".join(error.format_message().split()).rstrip(".") + "; see --help", 2)


def _stop(line: str, code: int) -> None:
    print(f"companion: {line}", file=sys.stderr)
    sys.exit(code)
