"""Files that must say the same thing say it; names promised to users are there."""

import re
import tomllib
from pathlib import Path

import yaml

import companion

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
URL = PROJECT["urls"]["Repository"]


def test_repository_address_is_chosen_in_one_place():
    for name in ("_config.yml", "CITATION.cff", "README.md"):
        named = re.findall(r"https://github\.com/[\w.-]+/[\w.-]*companion[\w.-]*", (ROOT / name).read_text())
        assert set(named) == {URL}, name


def test_versions_agree():
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    assert PROJECT["version"] == companion.__version__ == citation["version"]
    for path in (ROOT / "notebooks").glob("*.py"):
        assert f"transferability-companion=={companion.__version__}" in path.read_text(), path.name


def test_conda_environment_says_what_pyproject_says():
    entries = yaml.safe_load((ROOT / "environment.yml").read_text())["dependencies"]
    pip = next(entry["pip"] for entry in entries if isinstance(entry, dict))
    conda = [entry for entry in entries if not re.match(r"(python|pip)\b(?!orch)", str(entry))]
    conda = [re.sub(r"^pytorch\b", "torch", entry) for entry in conda if isinstance(entry, str)]
    named = {*conda, *pip} - {PROJECT["name"]}
    assert named == set(PROJECT["dependencies"])
    assert f"python{PROJECT['requires-python']}" in entries


def test_lock_pins_everything_and_names_no_place():
    lines = (ROOT / "requirements.lock").read_text().splitlines()
    assert all(re.fullmatch(r"[\w.-]+==[\w.!]+", line) for line in lines)
    locked = {line.partition("==")[0].lower().replace("_", "-") for line in lines}
    wanted = [*PROJECT["dependencies"], *PROJECT["optional-dependencies"]["dev"]]
    assert {re.match(r"[\w-]+", entry)[0].lower() for entry in wanted} <= locked


def test_the_readme_s_badges_open_every_notebook():
    readme = (ROOT / "README.md").read_text()
    root = URL.replace("https://github.com/", "https://colab.research.google.com/github/")
    opened = re.findall(rf"\({re.escape(root)}/blob/main/(notebooks/[\w.]+)\)", readme)
    assert opened == re.findall(r"\]\((notebooks/[\w.]+)\)", readme)
    assert opened == sorted(f"notebooks/{path.name}" for path in (ROOT / "notebooks").glob("*.ipynb"))
    for path in opened:
        title = re.search(r"^# # (.+)$", (ROOT / path).with_suffix(".py").read_text(), flags=re.M)
        assert title[1] in readme


def test_readme_commands_exist():
    readme, makefile = (ROOT / "README.md").read_text(), (ROOT / "Makefile").read_text()
    for target in re.findall(r"^make (\w+)", readme, flags=re.M):
        assert re.search(rf"^{target}:", makefile, flags=re.M)
    assert "pip install companion" not in readme.replace("transferability-companion", "")


def test_the_example_output_is_what_the_command_prints(command):
    block = next(part for part in (ROOT / "README.md").read_text().split("```") if "$ companion rank" in part)
    typed, *shown = [line for line in block.strip().splitlines() if line and line != "..."]
    _, out, _ = command(*typed.removeprefix("$ companion ").split())
    printed = [line for line in out.splitlines() if line]
    # Whether these lines are there depends on what a short training gives.
    sometimes = ("The paper's own form", "By features alone")
    shown, printed = ([line for line in each if not line.startswith(sometimes)] for each in (shown, printed))

    def form(lines: list[str]) -> list[list[str]]:
        """Lines without what another processor's last digits may change: numbers, places, the order of the rows."""
        lines = [re.sub("(too close to call|most of the evidence agrees)", "VERDICT", line) for line in lines]
        lines = [re.sub(r"-?\d+(\.\d+)?( (s|min|h)\b)?|–", "#", line) for line in lines]
        words = [re.sub(r"train:[\w:]+|scratch", "NAME", line).split() for line in lines]
        return sorted(row[1:2] + row[4:] if row[0] == "#" else row for row in words)

    first = printed[: len(shown) - 1] + printed[-1:]
    assert form(first) == form(shown)
