"""Notebooks: parameters in one place, misspelt ones refused, executed copies equal to their sources."""

from __future__ import annotations

import ast
import json
from pathlib import Path

import click
import jupytext
import nbformat
import pytest

from companion import models, store
from companion.errors import InputError
from companion.notebooks import NOTEBOOKS, check, foot, parse, resolve
from companion.notebooks.execution import (
    NotebookError,
    execute,
    locate,
    read,
    repository,
    source_cells,
    source_hash,
)
from companion.notebooks.inside import _plain
from companion.notebooks.parameters import procedural

ROOT = Path(__file__).parents[1]
names = pytest.mark.parametrize("name", list(NOTEBOOKS))


def source(name: str):
    return jupytext.read(ROOT / "notebooks" / f"{name}.py")


def executed(name: str):
    return nbformat.read(ROOT / "notebooks" / f"{name}.ipynb", as_version=4)


def test_every_notebook_is_declared():
    assert sorted(path.stem for path in (ROOT / "notebooks").glob("*.py")) == sorted(NOTEBOOKS)


@names
def test_parameters_cell_is_what_the_model_declares(name):
    (cell,) = [c for c in source(name).cells if "parameters" in c.metadata.get("tags", [])]
    tree = ast.parse(cell.source)
    found = {
        node.target.id: ast.literal_eval(node.value) for node in tree.body if isinstance(node, ast.AnnAssign)
    }
    assert len(found) == len(tree.body), "one typed name a line"
    assert found == NOTEBOOKS[name]().model_dump()


@names
def test_every_figure_has_alt_text(name):
    for cell in executed(name).cells:
        if any("image/png" in output.get("data", {}) for output in cell.get("outputs", [])):
            assert len(cell.metadata.get("mystnb", {}).get("image", {}).get("alt", "")) > 20, cell.source


@names
def test_executed_notebook_is_its_source(name):
    assert [c.source for c in source_cells(executed(name))] == [c.source for c in source(name).cells]
    assert source_hash(ROOT / "notebooks" / f"{name}.ipynb") == source_hash(ROOT / "notebooks" / f"{name}.py")


@names
def test_executed_notebook_is_current_clean_and_small(name):
    notebook = executed(name)
    stamp = notebook.metadata["companion"]
    assert stamp["source_hash"] == source_hash(ROOT / "notebooks" / f"{name}.py")
    assert stamp["results_version"] == store.RESULTS_VERSION
    assert stamp["parameters"] == NOTEBOOKS[name]().model_dump() and not stamp["synthetic"]
    outputs = [output for cell in notebook.cells for output in cell.get("outputs", [])]
    assert not [o for o in outputs if o.output_type == "error" or o.get("name") == "stderr"]
    assert (ROOT / "notebooks" / f"{name}.ipynb").stat().st_size < 1_000_000


@names
def test_runs_on_synthetic_images(name, tmp_path):
    given = procedural(name)
    if "per_class" in NOTEBOOKS[name].model_fields:
        given["per_class"] = 20
    if "repeats" in NOTEBOOKS[name].model_fields:
        given |= {"repeats": 5, "verify": 2, "out": str(tmp_path / "report"), "images": False}
    if name == "06_cross_domain":
        given["architectures"] = ["resnet18", "shufflenet_v2_x0_5"]
    stamp = execute(name, given, tmp_path / "out.ipynb", source=ROOT / "notebooks" / f"{name}.py")
    assert stamp["synthetic"] and all(made.startswith("procedural:") for made in stamp["synthetic"])
    notebook = nbformat.read(tmp_path / "out.ipynb", as_version=4)
    outputs = [output for cell in notebook.cells for output in cell.get("outputs", [])]
    assert not [o.get("text") for o in outputs if o.get("name") == "stderr"]
    assert any("image/png" in o.get("data", {}) for o in outputs)
    if "out" in given:
        page = (tmp_path / "report" / "ranking.html").read_text(encoding="utf-8")
        assert "Some of the images" not in page and len(list((tmp_path / "report").iterdir())) == 4


def papermill(tmp_path, name, *options):
    """Run the first cells of a notebook, up to the check and with a line after it, as `papermill` does."""
    from click.testing import CliRunner
    from papermill.cli import papermill as command

    notebook = read(ROOT / "notebooks" / f"{name}.py")
    last = next(number for number, cell in enumerate(notebook.cells) if "import check" in cell.source)
    notebook.cells = [*notebook.cells[: last + 1], nbformat.v4.new_code_cell("run.parameters.model_dump()")]
    nbformat.write(notebook, tmp_path / "in.ipynb")
    (tmp_path / "parameters.yaml").write_text("size: large\nseed: 3\n")
    paths = str(tmp_path / "in.ipynb"), str(tmp_path / "out.ipynb")
    return CliRunner().invoke(command, [*paths, "-k", "python3", "--no-progress-bar", *options])


@pytest.mark.parametrize(
    ("options", "says"),
    [
        (
            ("-p", "tarrget", "x"),
            "unknown parameter 'tarrget' (there are target, size, seed, sources, per_class). Did you mean 'target'?",
        ),
        (("-p", "size", "large"), "'size' is 'large'"),
        (("-p", "seed", "1.5"), "'seed' is 1.5"),
        (("-r", "sources", "scratch"), "'sources'"),
        (("-y", "{sizes: 64}"), "Did you mean 'size'?"),
        (("-y", "{sources: [scratch, 3]}"), "'sources'"),
        (("-y", "{target: [a, b]}"), "'target' is ['a', 'b']"),
        (("-f", "parameters.yaml"), "'size' is 'large'"),
        (("-p", "target", "brestmnist"), "Did you mean 'breastmnist'?"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, tuple) else "",
)
def test_what_plain_papermill_refuses(tmp_path, monkeypatch, options, says):
    monkeypatch.chdir(tmp_path)
    outcome = papermill(tmp_path, "05_ranking_sources", *options)
    assert outcome.exit_code != 0
    last = click.unstyle(str(outcome.exception)).strip().splitlines()[-1]
    assert "InputError: 05_ranking_sources: " in last or "InputError: no dataset" in last
    assert says in last


@pytest.mark.parametrize(
    "options",
    [
        ("-p", "size", "64", "-p", "seed", "3", "-p", "target", "procedural:lesions"),
        ("-p", "size", "64", "-p", "seed", "3", "-p", "sources", "scratch, imagenet"),
        ("-r", "size", "64", "-r", "seed", "3"),
        ("-y", "{size: 64, seed: 3, sources: [scratch, imagenet]}"),
        ("-f", "parameters.yaml", "-p", "size", "64"),
        ("-p", "seed", "3", "-p", "size", "6.4e1"),
    ],
    ids=" ".join,
)
def test_what_plain_papermill_takes_arrives_as_what_it_should_be(tmp_path, monkeypatch, options):
    monkeypatch.chdir(tmp_path)
    outcome = papermill(tmp_path, "05_ranking_sources", *options)
    assert outcome.exit_code == 0, outcome.exception
    (output,) = nbformat.read(tmp_path / "out.ipynb", as_version=4).cells[-1].outputs
    found = ast.literal_eval(output.data["text/plain"])
    assert (found["size"], found["seed"]) == (64, 3) and type(found["size"]) is int
    if "imagenet" in " ".join(options):
        assert found["sources"] == ["scratch", "imagenet"]


def test_only_this_project_s_notebooks_are_taken_from_around_the_working_directory(tmp_path, monkeypatch):
    (tmp_path / "notebooks").mkdir()
    (tmp_path / "_toc.yml").write_text("")
    (tmp_path / "notebooks" / "07_new_target.ipynb").write_text("{}")
    monkeypatch.chdir(tmp_path / "notebooks")
    for project in (None, "not TOML [", '[project]\nname = "another"', "project = 3"):
        if project is not None:
            (tmp_path / "pyproject.toml").write_text(project)
        assert repository() is None and locate("07_new_target").parent != tmp_path / "notebooks"
    (tmp_path / "pyproject.toml").write_text('[project]\nname = "transferability-companion"')
    assert repository() == tmp_path and locate("07_new_target").parent == tmp_path / "notebooks"


def test_names_of_folders_stay_text_at_the_foot_of_a_page():
    from markdown_it import MarkdownIt

    name = "<img src=x onerror=alert(1)> | `x` [a](b) $y$ *z*"
    table = f"| a | b |\n|---|---|\n| c | {_plain(name)} |"
    page = MarkdownIt("gfm-like", {"linkify": False}).render(table)
    assert "<img" not in page and "<a " not in page and "<em>" not in page and page.count("<td>") == 2


@pytest.mark.parametrize(
    ("ran", "says"), [({"cuda:1"}, "| cuda:1, 24 |"), (set(), "| no network was run, 24 |")]
)
def test_the_foot_of_a_page_names_the_device_that_ran(monkeypatch, ran, says):
    shown = {}
    monkeypatch.setattr(
        "IPython.display.display", lambda page, metadata: shown.update(metadata, page=page.data)
    )
    monkeypatch.setattr(models, "devices_used", ran)
    foot(check("05_ranking_sources", NOTEBOOKS["05_ranking_sources"]().model_dump()))
    assert says in shown["page"] and shown["companion"]["device"] == (*ran, None)[0]


def test_a_failing_cell_is_named_and_nothing_is_written(tmp_path):
    broken = source("05_ranking_sources")
    broken.cells.insert(5, nbformat.v4.new_code_cell("raise RuntimeError('planted')"))
    path = tmp_path / "05_ranking_sources.ipynb"
    nbformat.write(broken, path)
    with pytest.raises(
        NotebookError, match=r"notebook 05_ranking_sources, cell \d+: RuntimeError: planted"
    ) as error:
        execute("05_ranking_sources", {}, tmp_path / "out.ipynb", source=path)
    assert error.value.exit_code == 1 and not (tmp_path / "out.ipynb").exists()


@pytest.mark.parametrize(
    ("given", "says"),
    [
        ({"sizes": 28}, "Did you mean 'size'"),
        ({"size": "big"}, "'size' is 'big'"),
        ({"size": True}, "'size' is True"),
        ({"size": 28.5}, "'size' is 28.5"),
        ({"seed": -1}, "'seed' is -1"),
        ({"target": ""}, "'target'"),
        ({"target": 3}, "'target' is 3"),
        ({"sources": "scratch"}, "'sources'"),
        ({"sources": ["a", 1]}, "'sources'"),
    ],
)
def test_wrong_parameters_are_named(given, says):
    with pytest.raises(InputError, match=r"05_ranking_sources: ") as error:
        parse("05_ranking_sources", given)
    assert says in str(error.value) and "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("name", "given", "says"),
    [
        ("07", {"repeats": 3}, "0 for none, or at least 5"),
        ("07", {"verify": 1}, "0 for none, or at least 2"),
        ("03", {"folds": 6}, "'folds' is 6"),
        ("06", {"weights": "locally"}, "'weights' is 'locally'"),
        ("06", {"architectures": ["resnet18"]}, "'architectures'"),
    ],
)
def test_parameters_of_single_notebooks_are_checked(name, given, says):
    with pytest.raises(InputError) as error:
        parse(name, given)
    assert says in str(error.value)


def test_text_from_a_command_line_becomes_what_it_should_be():
    found = parse("05", {"size": "64", "sources": "scratch, imagenet", "seed": "3"})
    assert (found.size, found.sources, found.seed) == (64, ["scratch", "imagenet"], 3)
    assert resolve("gradient_ratio") == resolve("04") == resolve("notebooks/04_gradient_ratio.ipynb")


def test_check_reads_only_parameter_cells():
    namespace = NOTEBOOKS["04_gradient_ratio"]().model_dump() | {"unrelated": 1}
    namespace["In"] = ["", "# Parameters\nsize = 28", "unrelated = 1"]
    assert check("04_gradient_ratio", namespace).parameters.size == 28
    namespace["In"].append("# Parameters\nsizee = 28")
    namespace["sizee"] = 28
    with pytest.raises(InputError, match="unknown parameter 'sizee'"):
        check("04_gradient_ratio", namespace)
    del namespace["sizee"], namespace["size"]
    namespace["In"].pop()
    with pytest.raises(InputError, match="'size' is missing"):
        check("04_gradient_ratio", namespace)


@names
def test_colab_opens_a_file_that_is_there(name):
    toc = (ROOT / "_toc.yml").read_text()
    assert (
        f"notebooks/{name}" in toc and json.loads((ROOT / "notebooks" / f"{name}.ipynb").read_text())["cells"]
    )
