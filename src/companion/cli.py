"""The command line: the package's verbs, one line for a mistake, exit codes that mean something."""

from __future__ import annotations

import errno
import inspect as python_inspect
import json
import os
import shutil
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any, Literal, get_args, get_origin

import typer

from companion import __version__, parameters
from companion.errors import CompanionError, InputError

app = typer.Typer(
    name="companion",
    help="Which pre-trained model should I fine-tune on my images? Research software, not for clinical use.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)


def _as_typer_reads(annotation: Any) -> Any:
    """Type of a parameter for typer: one of several words is text to it, and the model's to check."""
    if get_origin(annotation) is Literal:
        return str
    return str | None if any(get_origin(part) is Literal for part in get_args(annotation)) else annotation


def _command(model: type[parameters.CommandParameters]) -> Callable[[Callable[[Any], None]], None]:
    """Make a command of a function that takes a model: typer reads the words, the model says what they mean."""

    def register(function: Callable[[Any], None]) -> None:
        declared = []
        for name, field in model.model_fields.items():
            flags = parameters.flags_of(model, name)
            about = f"{field.description[0].upper()}{field.description[1:]}." if field.description else ""
            info: Any = (
                typer.Argument(help=about)
                if flags is parameters.PLACE
                else typer.Option(*(flags.names if flags else ()), help=about)
            )
            declared.append(
                python_inspect.Parameter(
                    name,
                    python_inspect.Parameter.KEYWORD_ONLY,
                    default=python_inspect.Parameter.empty if field.is_required() else field.default,
                    annotation=Annotated[_as_typer_reads(field.annotation), info],
                )
            )

        def run(**given: Any) -> None:
            function(parameters.checked(model, given))

        run.__name__, run.__doc__ = function.__name__, function.__doc__
        run.__signature__ = python_inspect.Signature(declared)  # type: ignore[attr-defined]
        run.__annotations__ = {each.name: each.annotation for each in declared}
        app.command()(run)

    return register


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


@_command(parameters.Inspect)
def inspect(given: parameters.Inspect) -> None:
    """Look at TARGET first: counts, sizes, duplicates, what is left out."""
    from companion import report, store
    from companion.datasets import inspect as look

    if given.out is not None:
        store.check_folder(given.out, report.LOOK_FILES, force=given.force)
    with _progress() as progress:
        tell = None if progress is None else lambda line: progress(0.0, line)
        facts = look(given.target, size=given.size, seed=given.seed, data_dir=given.data_dir, progress=tell)
    written = (
        report.write_look(facts, given.out, force=given.force, images=given.images)
        if given.out is not None
        else []
    )
    if given.as_json:
        typer.echo(json.dumps(facts.as_document(names=given.images), indent=1))
        return
    typer.echo(report.look_as_text(facts, names=given.images))
    for path in written:
        typer.echo(f"written: {path}")


@_command(parameters.Rank)
def rank(given: parameters.Rank) -> None:
    """Rank source models for TARGET without fine-tuning any of them."""
    from companion import ranking, store
    from companion.datasets import load_dataset
    from companion.ranking.report import FILES

    if given.out is not None:
        store.check_folder(given.out, FILES, force=given.force)
    with store.data_directory(given.data_dir):
        with _progress() as progress:
            if given.source:
                ranking.check_sources(given.source)
            tell = None if progress is None else lambda line: progress(0.0, line)
            dataset = load_dataset(given.target, size=given.size, trust=given.trust, progress=tell)
            if given.verify:
                ranking.check_verifiable(dataset, given.verify)
            found = ranking.rank(
                dataset,
                given.source or None,
                architecture=given.architecture,
                seed=given.seed,
                device=given.device,
                trust=given.trust,
                per_class=given.per_class,
                variant=given.variant,
                progress=progress,
            )
        if (given.repeats or given.verify) and not found.ordered:
            typer.echo("no candidate set has an order, so there is nothing to repeat or to verify", err=True)
        elif given.repeats:
            _announce(f"{given.repeats} repeats", ranking.stability_cost(found, given.repeats))
            with _progress() as progress:
                stability = ranking.stability(found, given.repeats, progress=progress)
            found = replace(found, stability=stability)
        if given.verify and found.ordered:
            chosen = found.first(given.verify)
            _announce(f"fine-tuning {', '.join(chosen)}", found.fine_tuning_seconds("quick", chosen))
            with _progress() as progress:
                verification = ranking.verify(found, given.verify, progress=progress)
            found = replace(found, verification=verification)
    written = found.save(given.out, force=given.force, images=given.images) if given.out else []
    typer.echo(json.dumps(found.as_document(), indent=1) if given.as_json else str(found))
    for path in [] if given.as_json else written:
        typer.echo(f"written: {path}")


def _announce(what: str, seconds: float) -> None:
    from companion.ranking import duration

    typer.echo(f"{what}: about {duration(seconds)}", err=True)


@_command(parameters.Notebook)
def notebook(given: parameters.Notebook) -> None:
    """Execute a notebook with parameters of your own."""
    from companion import store
    from companion.notebooks import NOTEBOOKS, parse, resolve

    if given.listing:
        for known in [resolve(given.name)] if given.name else NOTEBOOKS:
            typer.echo(known)
            for key, field in NOTEBOOKS[known].model_fields.items():
                typer.echo(f"  {key} = {field.default!r}  # {field.description or ''}")
        return
    if not given.name:
        raise InputError("name a notebook, or give --list to see them")
    known = resolve(given.name)
    values = {key: value for key, _, value in (pair.partition("=") for pair in given.parameter)}
    parse(known, values)
    target = given.out or Path.cwd() / f"{known}.ipynb"
    from companion.notebooks.execution import execute, repository

    root = repository()
    if given.out is None and root and target.resolve().parent == (root / "notebooks").resolve():
        raise InputError(f"{target} is the committed notebook: say where to write with --out")
    if target.exists() and not given.force:
        raise InputError(f"{target} exists: give another --out, or --force to overwrite it")
    store.check_writable(target)
    with store.data_directory(given.data_dir):
        execute(known, values, target)
    typer.echo(str(target))


@_command(parameters.Replicate)
def replicate(given: parameters.Replicate) -> None:
    """Fine-tune every source of PROTOCOL on every target, here or on a cluster; running it again goes on."""
    from companion import replication, store
    from companion.models import best_device

    if given.scheduler and given.workers > 1:
        raise InputError("--workers is for this machine and --scheduler for a cluster: give one of them")
    read = replication.read(given.protocol)
    chosen = str(best_device(given.device)) if given.scheduler is None else given.device
    folder = given.out or store.cache_dir() / "replications" / read.name
    store.check_writable(folder / "runs.parquet")
    plan = replication.plan(read, folder, data_dir=given.data_dir)

    def tell(line: str) -> None:
        typer.echo(line, err=True)

    for line in replication.cost(
        plan, device=chosen, workers=given.workers, measured_here=given.scheduler is None
    ):
        tell(line)
    if not given.dry_run:
        with _progress() as progress:
            replication.execute(
                plan,
                workers=given.workers,
                scheduler=given.scheduler,
                device=chosen,
                report=progress or (lambda _, text: tell(text)),
            )
        if plan.missing:
            tell(
                f"{len(plan.missing)} run(s) are being done by another process on {folder}: run again when it ends"
            )
    runs, scores = replication.frames(plan)
    files = [] if given.dry_run else replication.write(plan, (runs, scores))
    if given.as_json:
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


@_command(parameters.Book)
def book(given: parameters.Book) -> None:
    """Execute every notebook afresh, then build the HTML book; print the page to open."""
    from companion import store
    from companion.notebooks.book import build

    with store.data_directory(given.data_dir):
        typer.echo(str(build(data=given.data, committed=given.committed, protocol=given.protocol)))


@_command(parameters.Fetch)
def fetch(given: parameters.Fetch) -> None:
    """Bring data and weights ahead of time, for a place without internet."""
    from companion import published, store
    from companion.datasets import NATURAL, cached_file, load_dataset, medmnist_flags

    here = {name: cached_file(name, given.size) for name in given.names if name in medmnist_flags()}
    with store.data_directory(given.to):
        for name in given.names:
            if name in (*medmnist_flags(), NATURAL):
                known = here.get(name)
                if given.to and known and not (given.to / known.name).exists():
                    with store.atomic_path(given.to / known.name) as copied:  # loading checks it
                        shutil.copyfile(known, copied)
                found = load_dataset(name, size=given.size, progress=lambda line: typer.echo(line, err=True))
                typer.echo(repr(found))
            elif name == "runs":
                typer.echo(f"{len(published.runs())} fine-tuning runs of the authors, in {store.data_dir()}")
            else:
                from companion.sources import load_source

                if given.to is not None and name.partition(":")[0] in ("imagenet", "torchvision", "timm"):
                    raise InputError(
                        f"{name}: torch keeps these weights in a cache of its own, which --to does not move; "
                        "leave --to out and copy that cache (companion doctor names it)"
                    )
                typer.echo(repr(load_source(name.removeprefix("weights:"), trust=given.trust)))


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
