"""The notebooks: parameters checked, also under plain papermill; provenance; executed copies equal to their sources."""

import ast
from pathlib import Path

import click
import nbformat
import pytest
from click.testing import CliRunner
from markdown_it import MarkdownIt
from papermill.cli import papermill

import brief
import build
from companion import models, notebook, store
from companion.errors import InputError

ROOT = Path(__file__).parents[1]
NAMES = [path.stem for path in build.SOURCES]
names = pytest.mark.parametrize("name", NAMES)


def source(name: str):
    return build.read(ROOT / "notebooks" / f"{name}.py")


def executed(name: str):
    return nbformat.read(ROOT / "notebooks" / f"{name}.ipynb", as_version=4)


def defaults(name: str) -> dict:
    """What the parameters cell of the source declares."""
    (cell,) = [c for c in source(name).cells if "parameters" in c.metadata.get("tags", [])]
    tree = ast.parse(cell.source)
    assert all(isinstance(node, ast.AnnAssign) for node in tree.body), "one typed name a line"
    return {node.target.id: ast.literal_eval(node.value) for node in tree.body}


# --- sources and executed copies ----------------------------------------------------------------------------
@names
def test_papermill_reads_every_parameter_with_its_explanation(name, tmp_path):
    nbformat.write(source(name), tmp_path / "x.ipynb")
    found = notebook.declared(tmp_path / "x.ipynb")
    assert {key: ast.literal_eval(each["default"]) for key, each in found.items()} == defaults(name)
    assert all(len(each["help"]) > 10 for each in found.values())


@names
def test_executed_notebook_is_its_source(name):
    ran = executed(name)
    assert [cell.source for cell in ran.cells] == [cell.source for cell in source(name).cells]
    record = ran.metadata["companion"]
    assert record["source_hash"] == build.source_hash(source(name).cells)
    assert record["results_version"] == store.RESULTS_VERSION
    assert record["parameters"] == defaults(name) and not record["synthetic"]


@names
def test_executed_notebook_is_clean_and_small(name):
    outputs = [(cell, output) for cell in executed(name).cells for output in cell.get("outputs", [])]
    assert not [o for _, o in outputs if o.output_type == "error" or o.get("name") == "stderr"]
    assert (ROOT / "notebooks" / f"{name}.ipynb").stat().st_size < 1_000_000
    for cell, output in outputs:
        if "image/svg+xml" in output.get("data", {}):
            about = cell.metadata["mystnb"]
            assert len(about["image"]["alt"]) > 20, cell.source
            assert len(about["figure"]["caption"]) > 40 and about["figure"]["name"], cell.source


@names
def test_runs_on_synthetic_images(name, tmp_path, monkeypatch):
    startup = tmp_path / "ipython" / "profile_default" / "startup"
    startup.mkdir(parents=True)
    (startup / "brief.py").write_text(Path(brief.__file__).read_text() + "small()\n")
    monkeypatch.setenv("IPYTHONDIR", str(tmp_path / "ipython"))
    declared, given = defaults(name), {}
    if "per_class" in declared:
        given["per_class"] = 20
    if "repeats" in declared:
        given |= {"repeats": 5, "verify": 2, "out": str(tmp_path / "report"), "images": False}
        given["architecture"] = "shufflenet_v2_x0_5"
    if name == "06_cross_domain":
        given["architectures"] = ["mobilenet_v3_small", "shufflenet_v2_x0_5"]
    if "folds" in declared:
        given["folds"] = 1
    build.execute(ROOT / "notebooks" / f"{name}.py", tmp_path / "out.ipynb", given, procedural=True)
    ran = nbformat.read(tmp_path / "out.ipynb", as_version=4)
    record = ran.metadata["companion"]
    shows_images = name != "05_ranking_sources"  # which is about tables
    assert bool(record["synthetic"]) is shows_images
    assert all(made.startswith("procedural:") for made in record["synthetic"])
    assert record["source_hash"] == build.source_hash(source(name).cells)
    assert ("Synthetic images" in ran.cells[1].source) is shows_images
    outputs = [output for cell in ran.cells for output in cell.get("outputs", [])]
    assert not [o.get("text") for o in outputs if o.get("name") == "stderr"]
    assert any("image/svg+xml" in o.get("data", {}) for o in outputs)
    if "out" in given:
        page = (tmp_path / "report" / "ranking.html").read_text(encoding="utf-8")
        assert "Some of the images" not in page and len(list((tmp_path / "report").iterdir())) == 4


# --- under plain papermill ----------------------------------------------------------------------------------
@pytest.fixture
def plain_papermill(tmp_path, monkeypatch):
    """Run the first cells of a notebook, up to the check and with a line after it, as the program `papermill` does."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "parameters.yaml").write_text("size: large\nseed: 3\n")
    start = source("04_gradient_ratio")
    (last,) = [number for number, cell in enumerate(start.cells) if "notebook.start(" in cell.source]
    start.cells = [*start.cells[: last + 1], nbformat.v4.new_code_cell("run.parameters")]
    nbformat.write(start, "in.ipynb")
    return lambda *options: CliRunner().invoke(
        papermill, ["in.ipynb", "out.ipynb", "-k", "python3", "--no-progress-bar", *options]
    )


@pytest.mark.parametrize(
    ("options", "says"),
    [
        (("-p", "tarrget", "x"), "04_gradient_ratio: unknown parameter 'tarrget'"),
        (("-y", "{sizes: null}"), "Did you mean 'size'?"),
        (("-f", "parameters.yaml"), "'size' is 'large': input should be 0, 28, 64, 128 or 224"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, tuple) else "",
)
def test_what_plain_papermill_refuses(plain_papermill, options, says):
    outcome = plain_papermill(*options)
    assert outcome.exit_code != 0
    last = click.unstyle(str(outcome.exception)).strip().splitlines()[-1]
    assert last.startswith("InputError: ") and says in last


def test_what_plain_papermill_takes(plain_papermill):
    given = ("-f", "parameters.yaml", "-p", "size", "64", "-y", "{sources: [scratch, imagenet]}")
    outcome = plain_papermill(*given)
    assert outcome.exit_code == 0, outcome.exception
    (output,) = nbformat.read("out.ipynb", as_version=4).cells[-1].outputs
    found = ast.literal_eval(output.data["text/plain"])
    assert (found["size"], found["seed"], found["sources"]) == (64, 3, ["scratch", "imagenet"])


def test_a_failing_cell_is_named_and_nothing_is_written(tmp_path):
    ours = "from companion.errors import InputError; raise InputError('planted')"
    for code, error, says in (
        (ours, InputError, "cell 0: planted"),
        ("raise RuntimeError('planted')", Exception, "RuntimeError: planted"),
    ):
        bare = source("04_gradient_ratio")
        bare.cells = [nbformat.v4.new_code_cell(code)]
        nbformat.write(bare, tmp_path / "x.ipynb")
        with pytest.raises(error, match=says):
            notebook.execute(tmp_path / "x.ipynb", {}, tmp_path / "out.ipynb")
        assert not (tmp_path / "out.ipynb").exists()


# --- single functions ---------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("key", "value", "says"),
    [
        ("size", True, "input should be 0, 28, 64"),
        ("seed", 2**32, "less than"),
        ("seed", "3", "a valid integer"),
        ("target", "", "at least 1 character"),
        ("sources", ["scratch"], "at least 2"),
        ("sources", ["a", 1], "a valid string"),
        ("sources", ["scratch", "imagnet"], "Did you mean 'imagenet'"),
        ("source", "train:", "a dataset without a name"),
        ("repeats", 3, "input should be 0 or input should be greater than or equal to 5"),
        ("verify", 1, "greater than or equal to 2"),
        ("folds", 6, "less than or equal to 5"),
        ("per_class", 2, "greater than or equal to 3"),
        ("weights", "locally", "'local' or 'pretrained'"),
        ("architectures", ["resnet18", "resnet81"], "Did you mean 'resnet18'"),
        ("images", "yes", "a valid boolean"),
    ],
)
def test_a_value_that_cannot_be_is_refused_in_one_line(key, value, says):
    with pytest.raises(InputError) as error:
        notebook.start("x", **{key: value})
    assert says in str(error.value) and "\n" not in str(error.value)


def test_text_from_a_command_line_becomes_what_is_declared(tmp_path):
    nbformat.write(source("07_new_target"), path := tmp_path / "07_new_target.ipynb")
    given = {"size": "64", "sources": "scratch, imagenet", "images": "False", "out": "3"}
    expected = {"size": 64, "sources": ["scratch", "imagenet"], "images": False, "out": "3"}
    assert notebook.read_values(path, given) == expected


def test_a_notebook_is_found_by_name_number_or_file(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in ("4", "04", "gradient_ratio", "notebooks/04_gradient_ratio.ipynb", "04_gradient_ratio.py"):
        assert notebook.find(name) == ROOT / "notebooks" / "04_gradient_ratio.ipynb"
    assert list(notebook.paths()) == NAMES


def test_names_of_folders_stay_text_in_the_provenance_table():
    name = "<img src=x onerror=alert(1)> | `x` [a](b) $y$ *z*"
    shown = notebook.Run("x", {"seed": 1, "target": name}, 0.0).provenance()
    page = MarkdownIt("gfm-like", {"linkify": False}).render(shown.data)
    row = next(line for line in page.splitlines() if "onerror" in line)
    assert row.startswith("<td>") and not any(tag in page for tag in ("<img", "<a ", "<em>"))
    assert shown.metadata["companion"]["parameters"]["target"] == name


@pytest.mark.parametrize(
    ("ran", "says"), [({"cuda:1"}, "| cuda:1, 24 |"), (set(), "| no network was run, 24 |")]
)
def test_the_provenance_names_the_device_that_ran(monkeypatch, ran, says):
    monkeypatch.setattr(models, "devices_used", ran)
    shown = notebook.start("x", seed=24).provenance()
    assert says in shown.data and shown.metadata["companion"]["device"] == (*ran, None)[0]
