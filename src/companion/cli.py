"""The command line: the package's verbs, one line for a mistake, exit codes that mean something."""

from __future__ import annotations

import errno
import json
import os
import shutil
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Annotated, Any, Literal

import typer
from typer import Argument, Option

from companion import __version__
from companion.errors import CompanionError, InputError
from companion.pages import NOT_CLINICAL

app = typer.Typer(
    name="companion",
    help=f"Which pre-trained model should I fine-tune on my images? {NOT_CLINICAL}",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)


def _zero_or(least: int) -> Callable[[int], int]:
    def checked(value: int) -> int:
        if value != 0 and value < least:
            raise typer.BadParameter(f"{value}: 0 for none, or at least {least}")
        return value

    return checked


DataDir = Annotated[Path | None, Option(help="Where datasets are looked up and downloaded to.")]
Json = Annotated[bool, Option("--json", help="Print one JSON document on stdout and nothing else.")]
Device = Annotated[str, Option(help="Device: auto, cpu, cuda, cuda:N or mps.")]
Trust = Annotated[bool, Option("--trust", help="Accept downloads without a published checksum.")]
Force = Annotated[bool, Option("--force", help="Overwrite what an earlier run wrote there.")]
Size = Annotated[int | None, Option(help="Image side in pixels: 28, 64, 128 or 224.")]
Seed = Annotated[int, Option(min=0, max=2**32 - 1, help="Seed of everything random, 0 or more.")]
SOURCES = "Once for each, FILE@ARCHITECTURE too, or a .csv that lists them; else what is here."
Sources = Annotated[list[str] | None, Option("--source", "-s", help=SOURCES)]
PerClass = Annotated[int, Option(min=3, max=10_000, help="Images scored, times the number of classes.")]
Repeats = Annotated[int, Option(callback=_zero_or(5), help="Rankings of random halves, 5 or more; 0: none.")]
VERIFY = "First sources to fine-tune and compare, six runs each, 2 or more; 0: none."
Verify = Annotated[int, Option(callback=_zero_or(2), help=VERIFY)]
Architecture = Annotated[str, Option(help="Of sources that do not say theirs.")]
# How the files of a target are read: for every command that loads one, as the options of `load_dataset`.
Root = Annotated[Path | None, Option(help="Folder that a manifest's paths are relative to and lie in.")]
PATIENTS = "1: the folder in a class folder names the patient; 2: one deeper; 0: none."
PatientsFromFolder = Annotated[int | None, Option(min=0, help=PATIENTS)]
SkipUnreadable = Annotated[bool, Option("--skip-unreadable", help="Leave out what cannot be read.")]
DropClasses = Annotated[list[str] | None, Option("--drop-classes", help="Class to leave out; once for each.")]
Variant = Annotated[Literal["corrected", "published"], Option(help="Variant of the scores.")]
TARGET = "MedMNIST flag, .npz file, folder of class folders, .csv or .tsv of path and label, procedural:NAME."


@contextmanager
def _progress() -> Iterator[Callable[[float, str], None]]:
    """Show a bar with an estimate on a terminal; where stderr is piped, a line a source and every ten seconds."""
    if not sys.stderr.isatty():
        last = [time.monotonic()]

        def tell(fraction: float, text: str) -> None:
            if "about " in text or time.monotonic() - last[0] > 10:
                last[0] = time.monotonic()
                _note(f"{fraction:4.0%}  {text}")

        yield tell
        return
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

    columns = (TextColumn("{task.description}"), BarColumn(), TimeElapsedColumn(), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task("starting", total=1.0)
        yield lambda fraction, text: bar.update(task, completed=fraction, description=text)


def _note(line: str) -> None:
    typer.echo(line, err=True)


def _answer(found: Any, as_json: bool, written: list[Path]) -> None:
    """Print a result as one JSON document and nothing else, or as text with the files that were written."""
    if as_json:
        typer.echo(json.dumps(found.as_document(), indent=1))
        return
    typer.echo(str(found))
    for path in written:
        typer.echo(f"written: {path}")


# How a target is read, as `load_dataset` takes it.
READING = ("size", "root", "patients_from_folder", "skip_unreadable", "drop_classes")


def _given(context: typer.Context, *names: str) -> dict[str, Any]:
    """Options of a command that go on to a function under the same names, but for those that were not given."""
    return {name: context.params[name] for name in names if context.params[name] is not None}


@app.command()
def inspect(
    context: typer.Context,
    target: Annotated[str, Argument(help="As for rank.")],
    out: Annotated[Path | None, Option(help="Folder for the facts and example images.")] = None,
    size: Size = None,
    root: Root = None,
    patients_from_folder: PatientsFromFolder = None,
    skip_unreadable: SkipUnreadable = False,
    drop_classes: DropClasses = None,
    force: Force = False,
    data_dir: DataDir = None,
    as_json: Json = False,
) -> None:
    """Summarise TARGET before it is ranked for: counts, sizes, duplicates, what is left out."""
    from companion import figures, store
    from companion.datasets import inspect as look

    files = ("inspection.json", "examples.png")
    if out is not None:
        store.check_folder(out, files, force=force)
    with store.data_directory(data_dir), _progress() as progress:
        facts = look(target, progress=partial(progress, 0.0), **_given(context, *READING))
    written = []
    if out is not None:
        document = json.dumps(facts.as_document(), indent=1).encode()
        picture = figures.png(figures.examples(facts.dataset), dpi=100)
        written = store.write_files(out, dict(zip(files, (document, picture), strict=True)))
    _answer(facts, as_json, written)


@app.command()
def rank(
    context: typer.Context,
    target: Annotated[str, Argument(help=TARGET)],
    source: Sources = None,
    size: Size = None,
    seed: Seed = 24,
    per_class: PerClass = 100,
    repeats: Repeats = 0,
    verify: Verify = 0,
    variant: Variant = "corrected",
    device: Device = "auto",
    architecture: Architecture = "resnet18",
    trust: Trust = False,
    out: Annotated[Path | None, Option(help="Folder for the table, the figure and the report.")] = None,
    images: Annotated[bool, Option(help="With example pictures of TARGET in the report.")] = True,
    root: Root = None,
    patients_from_folder: PatientsFromFolder = None,
    skip_unreadable: SkipUnreadable = False,
    drop_classes: DropClasses = None,
    force: Force = False,
    data_dir: DataDir = None,
    as_json: Json = False,
) -> None:
    """Rank source models for TARGET without fine-tuning any of them."""
    from companion import ranking, store
    from companion.datasets import load_dataset
    from companion.ranking.report import FILES
    from companion.sources import by_name

    if out is not None:
        store.check_folder(out, FILES, force=force)
    how = _given(context, "seed", "per_class", "variant", "device", "architecture", "trust")
    with store.data_directory(data_dir):
        named = by_name(source) if source else None  # refused before the images are loaded
        with _progress() as progress:
            dataset = load_dataset(target, progress=partial(progress, 0.0), **_given(context, *READING))
            if verify:
                ranking.check_verifiable(dataset, verify)
            found = ranking.rank(dataset, named, progress=progress, **how)
        if repeats:
            _note(f"{repeats} repeats: about {ranking.duration(found.stability_seconds(repeats))}")
            with _progress() as progress:
                found = replace(found, stability=ranking.stability(found, repeats, progress=progress))
        if verify:
            seconds = ranking.duration(found.verification_seconds(verify))
            _note(f"fine-tuning {', '.join(found.first(verify))}, six runs each: about {seconds}")
            with _progress() as progress:
                found = replace(found, verification=ranking.verify(found, verify, progress=progress))
    written = found.save(out, force=force, images=images) if out is not None else []
    _answer(found, as_json, written)


@app.command()
def tune(
    context: typer.Context,
    target: Annotated[str, Argument(help=TARGET)],
    source: Annotated[str, Option("--source", "-s", help="The source to fine-tune.")],
    out: Annotated[Path, Option(help="Folder for weights, predictions, tables and report.")],
    protocol: Annotated[Literal["quick", "standard"], Option(help="How long to train.")] = "quick",
    seeds: Annotated[int, Option(min=1, max=100, help="Trainings, each with another seed.")] = 1,
    size: Size = None,
    seed: Seed = 24,
    device: Device = "auto",
    architecture: Architecture = "resnet18",
    root: Root = None,
    patients_from_folder: PatientsFromFolder = None,
    skip_unreadable: SkipUnreadable = False,
    drop_classes: DropClasses = None,
    trust: Trust = False,
    force: Force = False,
    data_dir: DataDir = None,
    as_json: Json = False,
) -> None:
    """Fine-tune one source on TARGET: weights, test AUC with its interval, predictions, a report."""
    from companion import store, tuning
    from companion.datasets import load_dataset
    from companion.sources import check_name, load_source

    store.check_folder(out, tuning.FILES, force=force)
    with store.data_directory(data_dir), _progress() as progress:
        check_name(source)
        dataset = load_dataset(target, progress=partial(progress, 0.0), **_given(context, *READING))
        how = _given(context, "architecture", "seed", "device", "trust")
        model = load_source(source, target=dataset.name, progress=lambda _, line: progress(0.0, line), **how)
        wanted = range(seed, seed + seeds)
        done = tuning.tune(model, dataset, protocol=protocol, seeds=wanted, device=device, progress=progress)
    _answer(done, as_json, done.save(out, force=force))


# Typer has no option of two values, so that what it does not know is read here: papermill's -p NAME VALUE.
_REST = {"allow_extra_args": True, "ignore_unknown_options": True, "help_option_names": []}


@app.command(context_settings=_REST)
def notebook(
    context: typer.Context,
    name: Annotated[str, Argument(help="Notebook, by name or number.", show_default=False)] = "",
    out: Annotated[Path | None, Option(help="File for the executed notebook.")] = None,
    listing: Annotated[bool, Option("--list", help="List notebooks and their parameters.")] = False,
    force: Force = False,
    data_dir: DataDir = None,
    about: Annotated[bool, Option("--help", help="This text; with NAME, its parameters.")] = False,
) -> None:
    """Execute a notebook with parameters of your own: -p NAME VALUE (or --parameter), as often as needed."""
    from companion import notebook as module
    from companion import store

    if about and not name:
        typer.echo(context.get_help())
        return
    if about or listing:
        for path in [module.find(name)] if name else module.paths().values():
            typer.echo(path.stem)
            for each in module.declared(path).values():
                typer.echo(f"  {each['name']} = {each['default']}  # {each['help']}")
        return
    if not name:
        raise InputError("name a notebook, or give --list to see them")
    path = module.find(name)
    values = module.read_values(path, _pairs(context.args))
    target = out or Path(path.name)
    if target.exists() and not force:
        raise InputError(f"{target} exists: give another --out, or --force to overwrite it")
    store.check_writable(target)
    with store.data_directory(data_dir):
        if data_dir is not None:
            os.environ["COMPANION_DATA"] = str(data_dir.absolute())  # for the kernel, another process
        module.execute(path, values, target)
    typer.echo(str(target))


def _pairs(words: list[str]) -> dict[str, str]:
    """Read ``-p NAME VALUE -p NAME VALUE …``."""
    given, rest = {}, iter(words)
    for word in rest:
        name, value = next(rest, None), next(rest, None)
        if word not in ("-p", "--parameter") or name is None or value is None:
            raise InputError(f"notebook: {word!r} is no option; a parameter is given as  -p NAME VALUE")
        given[name] = value
    return given


@app.command()
def replicate(
    protocol: Annotated[str, Argument(help="One of the package, such as quick, or a YAML file.")],
    out: Annotated[Path | None, Option(help="Folder of the results, else in the cache directory.")] = None,
    workers: Annotated[int, Option(min=1, help="Processes on this machine, 1 or more.")] = 1,
    scheduler: Annotated[str | None, Option(help="Dask scheduler, such as tcp://host:8786.")] = None,
    device: Device = "auto",
    dry_run: Annotated[bool, Option("--dry-run", help="Say what it will cost, and stop.")] = False,
    data_dir: DataDir = None,
    as_json: Json = False,
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
    plan = replication.plan(read, folder, data_dir=data_dir, dry_run=dry_run)
    for line in replication.cost(plan, device=chosen, workers=workers, measured_here=scheduler is None):
        _note(line)
    if not dry_run:
        with _progress() as progress:
            replication.execute(plan, workers=workers, scheduler=scheduler, device=chosen, report=progress)
    runs, scores = replication.frames(plan)
    written = [] if dry_run else replication.write(plan, (runs, scores))

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
    elif len(runs):
        typer.echo("test AUC of the run with the lowest validation loss, mean over folds")
        wide = replication.select(runs).pivot_table(index="source", columns="target", values="auc")
        typer.echo(wide.round(3).to_string())
        for path in written:
            typer.echo(f"written: {path}")


@app.command()
def fetch(
    names: Annotated[
        list[str],
        Argument(help="MedMNIST flags, cifar10_32, runs (the authors' fine-tunings), or source models."),
    ],
    to: Annotated[Path | None, Option(help="Data directory to fetch into.")] = None,
    size: Annotated[int, Option(help="Image side in pixels: 28, 64, 128 or 224.")] = 28,
    trust: Trust = False,
) -> None:
    """Download data and weights ahead of time, for a place without internet."""
    from companion import published, store
    from companion.datasets import NATURAL, cached_file, load_dataset, medmnist_flags

    here = {name: cached_file(name, size) for name in names if name in medmnist_flags()}
    with store.data_directory(to):
        for name in names:
            if name in (*medmnist_flags(), NATURAL):
                known = here.get(name)
                if to and known and not (to / known.name).exists():
                    with store.atomic_path(to / known.name) as copied:  # loading checks it
                        shutil.copyfile(known, copied)
                typer.echo(repr(load_dataset(name, size=size, progress=_note)))
            elif name == "runs":
                typer.echo(f"{len(published.runs())} fine-tuning runs of the authors, in {store.data_dir()}")
            else:
                from companion.sources import load_source

                if to is not None and name.partition(":")[0] in ("imagenet", "torchvision", "timm"):
                    raise InputError(
                        f"{name}: torch keeps these weights in a cache of its own, which --to does not move; "
                        "leave --to out and copy that cache (TORCH_HOME, or ~/.cache/torch)"
                    )
                typer.echo(repr(load_source(name.removeprefix("weights:"), trust=trust)))


def _version(wanted: bool) -> None:
    if wanted:
        typer.echo(__version__)
        raise typer.Exit


@app.callback()
def _options(
    version: Annotated[
        bool, Option("--version", callback=_version, is_eager=True, help="Print the version.")
    ] = False,
    debug: Annotated[bool, Option("--debug", help="Show a traceback for errors of the input too.")] = False,
) -> None:
    if debug:
        os.environ["COMPANION_DEBUG"] = "1"


def main(arguments: list[str] | None = None) -> Any:
    """Run the command line; mistakes of the user's become one line and an exit code."""
    try:
        # Outside its standalone mode typer returns the exit code and lets exceptions through.
        code = app(args=arguments, standalone_mode=False) or 0
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
        from companion.store import NOT_WRITABLE

        if error.errno not in (*NOT_WRITABLE, errno.ENAMETOOLONG):
            raise
        _stop(f"{error.filename or 'the disk'}: {error.strerror}", 3)
    except Exception as error:
        # torch's, which is not imported here.
        if type(error).__name__ == "OutOfMemoryError" and not os.environ.get("COMPANION_DEBUG"):
            _stop("the memory of the GPU is full: give smaller images, a smaller batch, or --device cpu", 3)
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
