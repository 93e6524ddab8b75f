"""Speed of the scores against slow transcriptions that follow the shape of the released code.

``python tools/benchmarks/scores.py`` prints a table; ``bench_score_suite`` and ``bench_nca`` return the two figures
that ``make bench`` keeps. Both sides run interleaved in one process, so that a slower spell of the machine
hits both; set the linear-algebra library to one thread first (the script does).

``--size`` prints the cost and the subsampling error against the number of points, ``--shuffled`` what every
score gives under shuffled labels: the figures that the page of all scores quotes.
"""

from __future__ import annotations

import os

if __name__ == "__main__":  # before numpy loads its linear-algebra library
    for _name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
        os.environ[_name] = "1"

import argparse
import importlib.util
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np

from companion import scores

HELPERS = Path(__file__).resolve().parents[2] / "tests" / "scores"
SIZES = ((200, 512, 2), (1100, 512, 11), (1100, 2048, 11))
TARGET = (1100, 512, 11)
SIX = ("logme", "leep", "nleep", "sfda", "parc", "ncti")
FROM_ARRAYS = tuple(name for name, info in scores.REGISTRY.items() if "images" not in info.inputs)


def _helper(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(f"_bench_{name}", HELPERS / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


slow = _helper("transcriptions")
make = _helper("synthetic").make


def _seconds(function: Callable[[], Any]) -> float:
    start = time.perf_counter()
    function()
    return time.perf_counter() - start


def compare(fast: Callable[[], Any], reference: Callable[[], Any], repeats: int, what: str) -> dict[str, Any]:
    """Interleaved repeats: quartiles of the paired ratios, and the median seconds of both sides."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        fast(), reference()
        pairs = []
        for turn in range(repeats):
            order = (fast, reference) if turn % 2 == 0 else (reference, fast)
            timed = {function: _seconds(function) for function in order}
            pairs.append((timed[fast], timed[reference]))
    ours, theirs = np.array(pairs).T
    low, ratio, high = np.percentile(theirs / ours, [25, 50, 75])
    return {
        "ratio": float(ratio),
        "low": float(low),
        "high": float(high),
        "what": what,
        "seconds": float(np.median(ours)),
        "reference_seconds": float(np.median(theirs)),
    }


def _size(n: int, d: int, classes: int) -> str:
    return f"n = {n}, d = {d}, C = {classes}, 1 thread"


def _references(x: np.ndarray, y: np.ndarray, z: np.ndarray) -> dict[str, Callable[[], Any]]:
    return {
        "logme": lambda: slow.logme(x, y),
        "leep": lambda: slow.leep(z, y),
        "nleep": lambda: slow.nleep(x, y),
        "sfda": lambda: slow.sfda(x, y),
        "parc": lambda: slow.parc(x, y),
        "ncti": lambda: slow.ncti_terms(x, y),
    }


def bench_score_suite(
    repeats: int = 5, size: tuple[int, int, int] = TARGET, variant: str = "corrected"
) -> dict[str, Any]:
    """LogME, LEEP, NLEEP, SFDA, PARC and NCTI by `suite` against six transcriptions in turn."""
    x, y, z = make(*size)
    references = _references(x, y, z)
    return compare(
        lambda: scores.suite(x, y, z, names=SIX, variant=variant),
        lambda: [references[name]() for name in SIX],
        repeats,
        f"six scores by one suite ({variant}) against six transcriptions one after the other, {_size(*size)}",
    )


def bench_nca(repeats: int = 5, size: tuple[int, int, int] = TARGET) -> dict[str, Any]:
    """NCA and its nearest neighbours against scikit-learn's estimator and neighbours at equal iterations.

    Both start at the principal components and stop after the same number of iterations, or by the same
    tolerance.
    """
    x, y, _ = make(*size)
    return compare(
        lambda: scores.nca(x, y, variant="published"),
        lambda: slow.nca(x, y),
        repeats,
        f"NCA with its 5 nearest neighbours against scikit-learn's at equal iterations, {_size(*size)}",
    )


def bench_corrected_parc(repeats: int = 5, size: tuple[int, int, int] = TARGET) -> dict[str, Any]:
    """Corrected PARC, with its exact components, against the transcription with the released randomised ones."""
    x, y, _ = make(*size)
    return compare(
        lambda: scores.parc(x, y),
        lambda: slow.parc(x, y),
        repeats,
        f"PARC (corrected) against the transcription of the released one, {_size(*size)}",
    )


def bench_each(
    repeats: int = 5, size: tuple[int, int, int] = TARGET, variant: str = "published"
) -> dict[str, dict[str, Any]]:
    """Each of the seven scores alone against its transcription."""
    x, y, z = make(*size)
    rows = {}
    for name, reference in _references(x, y, z).items():
        if name == "sfda" and size[1] > 1000:  # the transcription's eigenproblem takes many seconds
            repeats_here = 1
        else:
            repeats_here = repeats
        info = scores.REGISTRY[name]
        options = {"variant": variant} if info.variants else {}
        first = z if "logits" in info.inputs else x
        rows[name] = compare(
            lambda f=info.function, a=first, o=options: f(a, y, **o),
            reference,
            repeats_here,
            f"{info.title} ({variant}) alone against its transcription, {_size(*size)}",
        )
    rows["nca"] = bench_nca(max(1, repeats // 2 + 1), size)
    return rows


def cost_against_points(
    sizes: tuple[int, ...] = (200, 500, 1000, 2000, 5000), d: int = 512, names: tuple[str, ...] = FROM_ARRAYS
) -> list[dict[str, Any]]:
    """Seconds of each score alone, and of the suite of all, against the number of points; five classes."""
    x, y, z = make(120, d, 5)
    scores.suite(x, y, z, names=names)  # imports
    rows = []
    for n in sizes:
        x, y, z = make(n, d, 5)
        row: dict[str, Any] = {"n": n}
        for name in names:
            row[name] = _seconds(lambda name=name, x=x, y=y, z=z: scores.suite(x, y, z, names=[name]))
        row["suite"] = _seconds(lambda x=x, y=y, z=z: scores.suite(x, y, z, names=names))
        rows.append(row)
    return rows


def subsampling_error(
    n: int = 5000,
    d: int = 128,
    keep: tuple[int, ...] = (500, 1000, 2000),
    draws: int = 3,
    names: tuple[str, ...] = tuple(name for name in FROM_ARRAYS if name != "ncti"),
) -> list[dict[str, Any]]:
    """How subsampled scores of five synthetic sources differ from those of all points.

    A shift that all sources share leaves their order alone, scatter around it does not. Both are in units of the
    standard deviation of the whole scores over the sources. Minutes: NCA of 5000 points takes most of them.
    """
    sources = [
        make(n, d, 5, separation=0.08 + 0.03 * place, seed=place, source_classes=10) for place in range(5)
    ]
    whole = np.array([list(scores.suite(*arrays, names=names).values()) for arrays in sources])
    rows = []
    for size in keep:
        drawn = np.array(
            [
                [
                    list(scores.suite(*arrays, names=names, max_points=size, random_state=seed).values())
                    for arrays in sources
                ]
                for seed in range(draws)
            ]
        )
        error = (drawn - whole) / whole.std(axis=0)
        shift = error.mean(axis=(0, 1))
        scatter = (error - error.mean(axis=1, keepdims=True)).std(axis=(0, 1))
        rows.append(
            {"kept": size, "of": n}
            | {name: (float(shift[i]), float(scatter[i])) for i, name in enumerate(names)}
        )
    return rows


def shuffled_labels(seeds: int = 5) -> dict[tuple[int, int, int], dict[tuple[str, str], float]]:
    """Mean over seeds of every score under shuffled labels, for several sizes and both variants."""
    table = {}
    for size in ((900, 64, 2), (900, 128, 2), (900, 512, 2), (1100, 64, 11), (1100, 512, 11), (200, 512, 2)):
        found: dict[tuple[str, str], list[float]] = {}
        for seed in range(seeds):
            x, y, z = make(*size, seed=seed)
            shuffled = np.random.default_rng(100 + seed).permutation(y)
            for variant in ("published", "corrected"):
                card = scores.suite(x, shuffled, z, variant=variant)
                values = dict(card) | dict(zip(("ncti 1", "ncti 2", "ncti 3"), card.ncti_terms, strict=True))
                for name, value in values.items():
                    found.setdefault((name, variant), []).append(value)
        table[size] = {key: float(np.mean(values)) for key, values in found.items()}
    return table


def _print_speed(repeats: int) -> None:
    print(f"{'score':28}{'seconds':>10}{'reference':>11}{'ratio':>8}{'quartiles':>15}")

    def line(label: str, row: dict[str, Any]) -> None:
        spread = f"{row['low']:.2f} to {row['high']:.2f}"
        print(
            f"{label:28}{row['seconds']:10.4f}{row['reference_seconds']:11.4f}{row['ratio']:8.2f}{spread:>15}"
        )

    for size in SIZES:
        print(_size(*size))
        for variant in ("published", "corrected"):
            if size[1] <= 1000:
                line(f"  suite of six, {variant}", bench_score_suite(repeats, size, variant))
        for name, row in bench_each(repeats, size).items():
            line(f"  {name}", row)
        line("  parc, corrected by released", bench_corrected_parc(repeats, size))


def main() -> None:
    """Print the tables asked for."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--size", action="store_true", help="cost and subsampling error against n")
    parser.add_argument("--shuffled", action="store_true", help="every score under shuffled labels")
    arguments = parser.parse_args()
    warnings.simplefilter("ignore", scores.ScoreWarning)
    if arguments.size:
        for row in cost_against_points():
            print(
                "  ".join(
                    f"{key} {value:.3f}" if key != "n" else f"n {value:5d}" for key, value in row.items()
                )
            )
        for row in subsampling_error():
            cells = (f"{k} {v[0]:+.2f}±{v[1]:.2f}" for k, v in row.items() if k not in ("kept", "of"))
            print(f"{row['kept']} of {row['of']}: " + "  ".join(cells))
    elif arguments.shuffled:
        for size, values in shuffled_labels().items():
            print(_size(*size))
            for (name, variant), value in sorted(values.items()):
                print(f"  {name:14}{variant:12}{value:10.4f}")
    else:
        _print_speed(arguments.repeats)


if __name__ == "__main__":
    main()
