"""Other programs, run to their end."""

import subprocess
from pathlib import Path


def run(*command: str | Path, **options) -> str:
    """Output of a command that must succeed."""
    outcome = subprocess.run([*map(str, command)], capture_output=True, text=True, check=False, **options)
    assert outcome.returncode == 0, outcome.stdout[-3000:] + outcome.stderr[-3000:]
    return outcome.stdout
