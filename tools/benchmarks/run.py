"""``make bench``: measure every claim of speed, print a table, write build/bench.json.

Every figure is the median of the ratios of interleaved repeats in one process; `low` and `high` are their quartiles.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import torch

HERE = Path(__file__).parent
OUT = HERE.parents[1] / "build" / "bench.json"

# Each group in a process of its own, with the threads it is defined for: libraries read them once, when loaded.
GROUPS = {
    "single_pass": (
        "1",
        "import single_pass; result = {'single_pass': single_pass.bench(64), "
        "'single_pass_28': single_pass.bench(28)}",
    ),
    "ranking": ("1", "import ranking; result = ranking.bench_rank()"),
    "training": (
        "1",
        "import training; result = {'training_efficiency': training.bench_efficiency(28), "
        "'training_efficiency_64': training.bench_efficiency(64, epochs=4), 'plain_loop': training.bench_plain(28)}",
    ),
    "scores": (
        "1",
        "import scores; result = {'score_suite': scores.bench_score_suite(), 'nca': scores.bench_nca()}",
    ),
}


# Where there is a GPU, the same ratios on it, and several fine-tunings that share it.
ON_GPU = {
    "training on the GPU": (
        "2",
        "import training; result = {'training_efficiency_gpu': training.bench_efficiency(28, device='cuda'), "
        "'training_efficiency_64_gpu': training.bench_efficiency(64, device='cuda'), "
        "'plain_loop_gpu': training.bench_plain(28, device='cuda'), 'together_gpu': training.bench_together(28)}",
    ),
}


def measure(threads: str, code: str) -> dict[str, dict]:
    program = f"import json; {code}; print('RESULT ' + json.dumps(result))"
    environment = os.environ | {
        "OMP_NUM_THREADS": threads,
        "OPENBLAS_NUM_THREADS": threads,
        "MKL_NUM_THREADS": threads,
    }
    outcome = subprocess.run(
        [sys.executable, "-c", program],
        cwd=HERE,
        env=environment,
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    )
    line = next(line for line in outcome.stdout.splitlines() if line.startswith("RESULT "))
    return json.loads(line.removeprefix("RESULT "))


def main() -> None:
    found: dict[str, dict] = {}
    groups = GROUPS | (ON_GPU if torch.cuda.is_available() else {})
    for name, (threads, code) in groups.items():
        print(f"{name}: measuring", file=sys.stderr)
        found |= measure(threads, code)
    OUT.parent.mkdir(exist_ok=True)
    OUT.write_text(json.dumps(found, indent=1))
    for name, row in found.items():
        print(f"{name:22s} {row['ratio']:6.2f}x  [{row['low']:.2f}, {row['high']:.2f}]  {row['what']}")


if __name__ == "__main__":
    main()
