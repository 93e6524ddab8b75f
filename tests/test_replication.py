"""Replication: protocols, plans, resuming, where it runs, damage, and the tables that come out."""

import json
import os
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
import yaml

import replicating
from companion import datasets, models, replication, store
from companion.errors import EnvironmentFailure, InputError
from companion.replication import execution, protocol, tables


@pytest.fixture(scope="module", autouse=True)
def _one_thread():
    """What a training gives is the same to the last digit only with the same number of threads."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def finished(tmp_path_factory, _session_directories):
    """A replication that ran through, in this process."""
    folder = tmp_path_factory.mktemp("finished")
    read = replication.read(replicating.write(folder / "tiny.yaml", folds="[1, 2]"))
    reported = []
    plan = replication.plan(read, folder / "out")
    return replication.execute(plan, report=lambda *said: reported.append(said)), reported


def again(plan, folder=None) -> replication.Plan:
    return replication.plan(plan.protocol, folder or plan.rows.folder)


def lacking(plan, folder: Path, count: int) -> replication.Plan:
    """The same in another folder, without its first fine-tunings."""
    shutil.copytree(plan.rows.folder / "rows", folder / "rows")
    for run in plan.runs[:count]:
        store.RowStore(folder).path(run.key).unlink()
    return again(plan, folder)


def rows(plan) -> list[dict]:
    return replicating.timeless(replication.frames(plan)[0])


# --- protocols -----------------------------------------------------------------------------------------------
def test_the_second_replication_is_the_planned_one():
    read = replication.read("medical")
    pairs = list(read.pairs())
    assert len(pairs) == 13 * 7 - 3  # three targets are sources too, and a pool never holds the target
    pooled = {
        target: (read.spec("leave-target-out", target), read.spec("leave-target-out-matched", target))
        for target in read.targets
    }
    assert all(target not in whole for target, (whole, _) in pooled.items())
    assert all(part == f"{whole}@4708" for whole, part in pooled.values())
    assert {protocol.label(source) for source, _ in pairs} >= {"imagenet_mobilenet_v2", "pneumoniamnist"}
    hashes = dict.fromkeys((*read.targets, *read.pool, "tiny_imagenet"), "x")
    runs = protocol.expand(read, hashes)
    assert len(runs) == 528 and [run.fold for run in runs] == sorted(run.fold for run in runs)
    scored = protocol.expand(read, hashes, itself=True)
    assert len(scored) == len(runs) + 3 * 6 and {run.key for run in runs} < {run.key for run in scored}
    of_file = read.sources[1]
    other = protocol.expand(read, hashes | {of_file: "another file"})
    changed = {a.source for a, b in zip(runs, other, strict=True) if a.key != b.key}
    assert changed == {protocol.label(of_file)}


def test_the_packaged_runs_have_the_keys_of_the_plan():
    for name, found in (("medical", replication.runs()), ("medical_seeds", replication.seed_runs())):
        planned = protocol.expand(replication.read(name), found.attrs["provenance"]["data"])
        assert len(found) and set(found["key"]) <= {run.key for run in planned}
    assert replication.read("medical") == replication.stored_protocol()


def test_the_packaged_protocols_are_whole_and_the_paper_s_is_its_grid_without_a_connection(tmp_path):
    for name in ("standard", "quick", "medical_seeds"):
        assert replication.read(name).name == name and list(replication.read(name).pairs())
    read = replication.read("paper")
    assert (len(read.sources), len(read.targets), read.size) == (15, 11, 224)
    assert len(list(read.pairs())) == 15 * 11 - 11  # a target is not its own source
    plan = replication.plan(read, tmp_path / "out", data_dir=tmp_path / "empty", dry_run=True)
    assert len(plan.runs) == (15 * 11 - 11) * 120 and not plan.stored
    assert plan.sizes["breastmnist"] == (546, 78, 156, 2) and not list(tmp_path.iterdir())
    with store.data_directory(tmp_path):
        assert datasets.absent("cifar10_32", 28) == (3000, 300, 600, 10)
        assert datasets.absent("procedural:cells", 28) is None


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"sorces": ["scratch"]}, "unknown key 'sorces'. Did you mean 'sources'"),
        ({"size": 32}, "size is 32"),
        ({"sources": None}, "sources is None"),
        ({"targets": []}, r"targets is \[\]"),
        ({"name": "../../elsewhere"}, "name is '../../elsewhere'"),
        ({"name": "/elsewhere"}, "name is '/elsewhere'"),
        ({"source_training": {"name": "../x", "epochs": 1}}, "source_training.name is '../x'"),
        ({"fine_tuning": {"name": ".x"}}, "name is '.x'"),
        ({"fine_tuning": "quik"}, "fine_tuning is 'quik': .* Did you mean 'quick'"),
        ({"fine_tuning": {"name": "x", "lr": 0.1}}, "'fine_tuning.epochs' is missing"),
        ({"pool": ["procedural:cells"]}, "leave-target-out needs a pool of two or more"),
        ({"targets": ["procedural:cells", "procedural:cells"]}, "procedural:cells is named twice"),
    ],
)
def test_wrong_protocol_files_are_refused_in_one_line(tmp_path, change, says):
    path = replicating.write(tmp_path / "mine.yaml")
    path.write_text(yaml.safe_dump(yaml.safe_load(path.read_text()) | change))
    with pytest.raises(InputError, match=says) as error:
        replication.read(path)
    assert "\n" not in str(error.value) and str(path) in str(error.value)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("a: [", r"is not YAML \(line \d\)"),
        ("- 1", "wanted are keys"),
        ("[" * 2000, "is not YAML"),
        ("#" * 200_000, "wanted are keys"),
        ("\udcff", "is not YAML"),
    ],
)
def test_files_that_are_no_protocols(tmp_path, text, says):
    path = tmp_path / "mine.yaml"
    path.write_bytes(os.fsencode(text))
    with pytest.raises(InputError, match=says):
        replication.read(path)


def test_a_bomb_of_aliases_and_a_misspelt_name_get_one_short_line(tmp_path):
    path = replicating.write(tmp_path / "mine.yaml")
    nested = ["x0: &x0 [a, a, a, a, a, a, a, a]"]
    nested += [f"x{n}: &x{n} [{', '.join([f'*x{n - 1}'] * 8)}]" for n in range(1, 7)]
    path.write_text(path.read_text() + "\n".join(nested) + "\nsize: *x6\n")
    with pytest.raises(InputError) as error:
        replication.read(path)
    assert len(str(error.value)) < 3000 and "\n" not in str(error.value)
    with pytest.raises(InputError, match="no protocol 'standrd': .* Did you mean 'standard'"):
        replication.read("standrd")
    read = replace(replication.read("quick"), targets=("mednist_64",))
    with pytest.raises(InputError, match="no dataset 'mednist_64'"):
        replication.plan(read, tmp_path)


# --- running -------------------------------------------------------------------------------------------------
def test_every_run_has_one_row_and_the_pairs_their_scores(finished):
    plan, reported = finished
    runs, scores = replication.frames(plan)
    assert len(runs) == len(plan.runs) == 3 * 2 and runs["key"].is_unique and not plan.missing
    assert set(runs["status"]) == {"finished"} and runs["test_auc"].between(0, 1).all()
    assert len(scores) == 3 * 2 * 2  # folds and variants
    assert scores.query("source != 'scratch'")["leep"].notna().all() and scores["nca"].notna().all()
    images = {"scratch": 0, "procedural:textures": 600, "leave-target-out": 1200}
    assert dict(zip(scores["source"], scores["training_images"], strict=True)) == images
    fractions = [fraction for fraction, text in reported if text.startswith("fine-tuning")]
    assert fractions == sorted(fractions) and fractions[-1] == 1
    about = runs.attrs["provenance"]
    assert about["protocol"]["name"] == "tiny" and about["runs"] == {"stored": 6, "planned": 6}


def test_only_what_is_missing_is_done_and_damage_is_set_aside(finished, tmp_path, monkeypatch):
    plan, _ = finished
    copied = lacking(plan, tmp_path / "out", 1).rows
    cut, changed = (copied.path(run.key) for run in plan.runs[1:3])
    cut.write_text(cut.read_text()[:-40])
    changed.write_text(changed.read_text().replace('"test_auc": 0.', '"test_auc": 0.1'))
    resumed = again(plan, copied.folder)
    assert [path.name for path in resumed.set_aside] == [cut.name, changed.name]
    assert all(str(path) in "\n".join(replication.cost(resumed, device="cpu")) for path in resumed.set_aside)
    done = []
    real = execution.fine_tune_run
    monkeypatch.setattr(
        execution, "fine_tune_run", lambda run, **where: done.append(run.key) or real(run, **where)
    )
    replication.execute(resumed)
    assert done == [run.key for run in plan.runs[:3]]
    monkeypatch.setattr(execution, "score_run", lambda run, **_: pytest.fail("scored again"))
    repeated = replication.execute(again(resumed))  # a second start finds everything done
    assert len(done) == 3 and rows(repeated) == rows(resumed) == rows(plan)
    assert len(replication.cost(repeated, device="cpu")) == 1


def test_another_protocol_or_other_data_is_never_mixed_in(finished):
    plan, _ = finished
    by_key = {run.key: run.source for run in plan.runs}

    def shared(other, **hashes) -> list[str]:
        """Sources of the rows that both have."""
        runs = protocol.expand(other, plan.hashes | hashes)
        return [by_key[run.key] for run in runs if run.key in by_key]

    mine = plan.protocol
    for change in ({"epochs": 2}, {"augmentation": "none"}, {"train_per_class": 21}):
        assert not shared(replace(mine, fine_tuning=replace(mine.fine_tuning, **change)))
    for change in ({"architecture": "resnet18"}, {"size": 64}):
        assert not shared(replace(mine, **change))
    more = replace(mine, fine_tuning=replace(mine.fine_tuning, folds=(1, 2, 3), name="more"))
    assert shared(more) == list(by_key.values())
    trained = replace(mine, source_training=replace(mine.source_training, epochs=2))
    assert set(shared(trained)) == {"scratch"}  # the only one that is not trained
    assert set(shared(mine, **{"procedural:cells": "other data"})) == {"scratch", "procedural:textures"}
    own = replace(mine, sources=("scratch", "train:procedural:lesions"))
    assert list(own.pairs()) == [("scratch", "procedural:lesions")]  # a target is not its own source


def test_two_processes_and_a_cluster_give_the_same_rows(finished, cluster, tmp_path):
    for name, where in (("here", {"workers": 2}), ("dask", {"scheduler": cluster.scheduler_address})):
        plan = lacking(finished[0], tmp_path / name, 2)
        assert rows(replication.execute(plan, **where)) == rows(finished[0])


def test_a_full_disk_ends_in_one_line_and_the_store_opens(finished, tmp_path, monkeypatch):
    plan, _ = finished
    real, written = os.replace, []

    def full(source, target):
        if str(target).endswith(".json"):
            if len(written) == 3:
                raise OSError(28, "No space left on device")
            written.append(target)
        real(source, target)

    monkeypatch.setattr(os, "replace", full)
    with pytest.raises(EnvironmentFailure, match=r"cannot write .*\.json: No space left"):
        replication.execute(again(plan, tmp_path / "out"), scores=False)
    monkeypatch.undo()
    resumed = again(plan, tmp_path / "out")
    assert len(resumed.stored) == 3 and not resumed.set_aside
    assert not [p for p in (tmp_path / "out" / "rows").iterdir() if p.suffix != ".json"]


def test_a_mistake_names_the_run_and_what_is_stored_stays(finished, tmp_path, monkeypatch):
    plan, _ = finished

    def fails(run, **_):
        raise EnvironmentFailure("a batch of 16 images does not fit")

    monkeypatch.setattr(execution, "fine_tune_run", fails)
    says = r"scratch on procedural:lesions: a batch .* run the same command again"
    with pytest.raises(EnvironmentFailure, match=says):
        replication.execute(again(plan, tmp_path / "out"), scores=False)


def _die(run, **_):
    os._exit(9)


def test_a_worker_that_dies_here_or_on_a_cluster_is_reported(finished, cluster, tmp_path, monkeypatch):
    monkeypatch.setattr(execution, "prepare", _die)
    for says, where in (
        ("a worker process died .* with fewer --workers", {"workers": 2}),
        ("Dask lost its workers at .* run the same command again", {"scheduler": cluster.scheduler_address}),
    ):
        with pytest.raises(EnvironmentFailure, match=says):
            replication.execute(again(finished[0], tmp_path / "out"), **where)


def test_packaged_rows_count_as_done(packaged, tmp_path, monkeypatch):
    import refresh_replication as refresh

    monkeypatch.setattr(refresh, "PACKAGED", tmp_path)
    refresh.export(packaged)
    resumed = again(packaged, tmp_path / "out")
    assert refresh.adopt(resumed) == len(packaged.runs) and not resumed.missing
    assert rows(again(packaged, tmp_path / "out")) == rows(packaged)
    other = replace(packaged.protocol, fine_tuning=replace(packaged.protocol.fine_tuning, epochs=2))
    assert refresh.adopt(replication.plan(other, tmp_path / "other")) == 0


# --- on a cluster --------------------------------------------------------------------------------------------
@pytest.fixture(scope="module")
def cluster(_session_directories):
    distributed, dask = pytest.importorskip("distributed"), pytest.importorskip("dask")
    options = {"n_workers": 2, "threads_per_worker": 1, "dashboard_address": ":0", "silence_logs": 50}
    with (
        dask.config.set({"distributed.scheduler.allowed-failures": 0}),  # the first death is reported
        distributed.LocalCluster(**options, processes=True) as found,
    ):
        yield found


def test_workers_that_cannot_do_it(finished, cluster, tmp_path, monkeypatch):
    distributed = pytest.importorskip("distributed")
    plan = again(finished[0], tmp_path / "out")

    def refused(cluster, says):
        with pytest.raises(EnvironmentFailure, match=says):
            replication.execute(plan, scheduler=cluster.scheduler_address)

    with pytest.raises(InputError, match="on this worker is not the procedural:lesions of the plan"):
        execution.target_of(replace(plan.runs[0], data_hash="0" * 64))

    with monkeypatch.context() as patch:
        patch.setattr(execution, "__version__", "99")
        refused(cluster, "has no transferability-companion 99: install it there")
    quiet = {"dashboard_address": ":0", "silence_logs": 50}
    with distributed.LocalCluster(n_workers=1, threads_per_worker=2, processes=False, **quiet) as crowded:
        refused(crowded, "runs several tasks at a time in one process: .* --nthreads 1")
    with distributed.LocalCluster(n_workers=0, **quiet) as empty:
        refused(empty, "has no workers")


# --- the command line ----------------------------------------------------------------------------------------
def test_the_command_says_the_cost_first_and_writes_tables_and_json(finished, tmp_path, command):
    path = replicating.write(tmp_path / "tiny.yaml")  # the first of the two folds
    code, out, err = command("replicate", path, "--out", tmp_path / "out", "--dry-run")
    assert code == 0 and not (tmp_path / "out").exists()
    assert "to do: 3" in err and "images/s measured on" in err and " MB" in err
    lacking(finished[0], tmp_path / "out", 1)
    code, out, err = command("replicate", path, "--out", tmp_path / "out", "--json", "--device", "cpu")
    assert code == 0 and "to do: 1," in err.splitlines()[1]  # the cost first
    document = json.loads(out)
    assert document["planned"] == document["stored"] == 3 and len(document["runs"]) == 3
    stored = pd.read_parquet(tmp_path / "out" / "runs.parquet")
    assert stored.attrs["provenance"]["results_version"] == store.RESULTS_VERSION and len(stored) == 3
    code, out, _ = command("replicate", path, "--out", tmp_path / "out", "--device", "cpu")
    assert code == 0 and "leave-target-out" in out and "written: " in out


@pytest.mark.parametrize(
    ("options", "code", "says"),
    [
        (("--device", "cuda:9"), 3, "device 'cuda:9' is not there"),
        (("--scheduler", "tcp://127.0.0.1:9"), 3, "no Dask scheduler answers at tcp://127.0.0.1:9"),
        (("--data-dir", __file__), 2, "is a file: name a folder"),
    ],
)
def test_what_the_command_refuses(tmp_path, command, monkeypatch, options, code, says):
    monkeypatch.setattr(execution, "PATIENCE", 1)
    path = replicating.write(tmp_path / "tiny.yaml")
    found, out, err = command("replicate", path, "--out", tmp_path / "out", *options)
    assert (found, out) == (code, "") and says in err.splitlines()[-1]


# --- tables --------------------------------------------------------------------------------------------------
@pytest.fixture
def packaged(finished, monkeypatch):
    """The finished replication in place of the one in the package."""
    plan, _ = finished
    kept = dict(zip(("medical_runs", "medical_scores"), replication.frames(plan), strict=True))
    monkeypatch.setattr(tables, "_read", kept.__getitem__)
    return plan


def test_selection_rules_by_hand():
    runs = pd.DataFrame({"key": list("abcd"), "status": ["finished"] * 3 + ["diverged"]})
    runs["val_loss"], runs["val_auc"] = [0.5, 0.3, 0.4, np.nan], [0.7, 0.6, 0.9, np.nan]
    runs = runs.assign(test_auc=[0.60, 0.70, 0.80, np.nan], source="s", target="t", fold=1)
    found = {rule: replication.select(runs, rule)["auc"].item() for rule in replication.RULES}
    assert found == {"lowest_val_loss": 0.70, "highest_val_auc": 0.80, "mean_of_best": pytest.approx(0.75)}
    assert replication.select(runs)["runs"].item() == 3
    with pytest.raises(InputError, match="no rule 'lowest'"):
        replication.select(runs, "lowest")


def test_the_table_of_pairs(packaged):
    table = replication.table()
    assert len(table) == 3 and set(table["folds"]) == {2}
    chosen = replication.select(replication.runs()).groupby("source")["auc"].mean()
    assert np.allclose(table.set_index("source")["auc"], chosen)
    assert table["proposed"].between(0, 1).all() and not [c for c in table if c.startswith("ncti_term")]
    assert not replication.table("published")["logme"].equals(table["logme"])


def test_released_sources_have_the_sizes_that_the_plan_lists():
    plan = (Path(__file__).parents[1] / "book" / "second_plan.md").read_text(encoding="utf-8")
    table = replication.table().groupby("source")["training_images"].max()
    for source, images in tables.RELEASED_IMAGES.items():
        (row,) = [line for line in plan.splitlines() if line.startswith(f"| `{source}`")]
        assert f" {images:,} " in row.replace("about ", "") and table[source] == images
    assert table.notna().all()


def test_only_whole_folds_are_judged(packaged, monkeypatch):
    runs = replication.runs()
    cut = runs.drop(runs.index[runs["fold"] == 2][:1])
    cut.attrs = runs.attrs
    monkeypatch.setattr(tables, "runs", lambda: cut)
    assert set(replication.ground_truth()["fold"]) == {1} and set(replication.table()["folds"]) == {1}
    monkeypatch.setattr(tables, "runs", lambda: cut[cut["fold"] == 2])
    with pytest.raises(EnvironmentFailure, match="no fold of the stored replication is complete"):
        replication.ground_truth()


def test_a_score_missing_on_one_fold_is_missing_for_the_pair(packaged, monkeypatch):
    found = replication.scores().astype({"sfda": float})
    found["sfda"] = np.where((found["source"] == "scratch") & (found["fold"] == 1), np.nan, 0.5)
    monkeypatch.setattr(tables, "scores", lambda variant: found)
    missing = replication.table().set_index("source")["sfda"].isna()
    assert list(missing.index[missing]) == ["scratch"]


def test_pairs_are_models_and_the_images_of_the_fold(packaged, monkeypatch):
    found = list(replication.pairs())
    assert [p.source for p in found] == ["scratch", "procedural:textures", "leave-target-out"]
    for pair in found:
        assert pair.target == "procedural:lesions" and isinstance(pair.model, models.SourceModel)
        assert len(pair.images) == len(pair.labels) == 40
    with pytest.raises(InputError, match="is no target of the replication"):
        next(replication.pairs(["breastmnist"]))
    hashes = tables._read("medical_runs").attrs["provenance"]["data"]
    monkeypatch.setitem(hashes, "procedural:cells", "0" * 64)
    with pytest.raises(EnvironmentFailure, match="procedural:cells in the data directory is not"):
        next(replication.pairs())


def test_a_package_without_tables_says_how_to_make_them(monkeypatch, tmp_path):
    tables._read.cache_clear()
    monkeypatch.setattr(tables.resources, "files", lambda package: tmp_path)
    with pytest.raises(EnvironmentFailure, match="run  make replication"):
        replication.runs()
    tables._read.cache_clear()
