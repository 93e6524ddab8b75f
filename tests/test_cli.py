"""The command line as a person meets it; what people do wrong has a table of its own in test_wrong_inputs."""

import os
import re
import subprocess
import sys

import pytest

from checkpoints import checkpoints, named
from companion import notebook
from image_files import picture


def test_a_report_is_written_whole_and_escaped_and_an_earlier_one_kept(command, tmp_path):
    target, evil = tmp_path / "<script>", "<img src=x onerror=alert(1)>"
    for label in ("<script>", evil, "$x_{$"):  # the last would be broken mathematics in a figure
        for index in range(24):
            picture(target / label / f"{evil}{label[:4]}{index}.png")
    (target / "<script>" / f"{evil}.txt").write_text("left out")
    out = tmp_path / "report"
    options = ("--size", "28", "--per-class", "10", "--out", str(out))
    arguments = ["rank", str(target), *named(checkpoints(tmp_path, 4)), *options]
    code, _, err = command(*arguments)
    assert code == 0, err
    assert {path.suffix for path in out.glob("ranking.*")} == {".csv", ".json", ".png", ".html"}
    page = (out / "ranking.html").read_text(encoding="utf-8")
    assert "http://" not in page and "https://" not in page and "not for clinical use" in page
    assert "&lt;script&gt;" in page and "<script" not in page and "<img src=x" not in page
    code, _, err = command(*arguments)
    assert code == 2 and "--force" in err
    assert command(*arguments, "--force")[0] == 0


@pytest.mark.parametrize("name", ["inspect", "rank", "tune", "notebook", "replicate", "fetch"])
def test_every_option_of_a_command_is_explained(command, name):
    _, out, err = command(name, "--help")
    assert err == "" and "Usage:" in out
    options = out.partition("Options:")[2].splitlines()
    # An option and what it is for: in its line, or where the option is long in the next one.
    for line, following in zip(options, [*options[1:], ""], strict=True):
        if line.strip().startswith("-"):
            assert len(re.split(r"\s{2,}", line.strip())) > 1 or following.startswith(" " * 20), line


def test_what_is_available_is_copied_and_checked_instead_of_downloaded(command, data, tmp_path, monkeypatch):
    monkeypatch.setattr("companion.store._download", lambda *_, **__: pytest.fail("downloaded"))
    (data / "medmnist").mkdir(parents=True)
    (data / "medmnist" / "breastmnist.npz").write_bytes(b"not the published file")
    stick = tmp_path / "stick"
    code, _, err = command("fetch", "breastmnist", "--to", str(stick))
    assert code == 2 and "stick/breastmnist.npz has md5" in err  # carried over, and found to be another file
    assert (stick / "breastmnist.npz").read_bytes() == b"not the published file"


def test_notebooks_are_listed_with_their_parameters(command):
    code, out, _ = command("notebook", "--list")
    assert code == 0 and all(f"{name}\n  " in out for name in notebook.paths())
    for arguments in (("04", "--help"), ("04", "--list")):
        code, out, _ = command("notebook", *arguments)
        assert code == 0 and out.startswith("04_gradient_ratio\n") and "07_new_target" not in out
        assert "  per_class = 100  # " in out


def test_a_notebook_is_run_with_parameters_as_papermill_takes_them(command, tmp_path, monkeypatch):
    seen = []
    monkeypatch.setattr(notebook, "execute", lambda *given: seen.append(given))
    monkeypatch.chdir(tmp_path)
    arguments = "04 -p target procedural:lesions --parameter per_class 20 -p seed 0".split()
    code, out, err = command("notebook", *arguments)
    assert (code, out, err) == (0, "04_gradient_ratio.ipynb\n", "")
    ((path, values, target),) = seen
    assert path == notebook.find("04") and target.name == path.name
    assert values == {"target": "procedural:lesions", "per_class": 20, "seed": 0}


def test_ctrl_c_gets_one_line_and_leaves_nothing(tmp_path):
    # The signal comes in the middle of training, whenever that is: at its first step.
    # A shell that starts these tests in the background has its children ignore it; a person's does not.
    program = (
        "import os, signal; signal.signal(signal.SIGINT, signal.default_int_handler)\n"
        "from companion import cli; from companion.training import loop\n"
        "loop.step = lambda *_: os.kill(os.getpid(), signal.SIGINT); cli.main()"
    )
    arguments = [sys.executable, "-c", program, "rank", "procedural:lesions"]
    arguments += ["-s", "scratch", "-s", "train:procedural:cells", "--out", str(tmp_path / "out")]
    environment = os.environ | {"COMPANION_CACHE": str(tmp_path / "cache")}
    done = subprocess.run(arguments, capture_output=True, text=True, env=environment)
    assert (done.returncode, done.stdout) == (130, "")
    assert done.stderr.splitlines()[-1] == "companion: interrupted; nothing half-written was kept"
    assert not (tmp_path / "out").exists() and not list(tmp_path.rglob("*.part"))
