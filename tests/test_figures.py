"""Figures draw what they are given: positions, labels, colours and line ends are read back and held against the table.

Nothing is shown or kept by pyplot.
"""

import itertools
from types import SimpleNamespace

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
import torch
from matplotlib.collections import LineCollection, PathCollection
from matplotlib.colors import to_hex
from scipy.stats import weightedtau

import note_figures
from companion import figures
from companion.evaluation import nemenyi
from companion.ranking.sets import CandidateSet
from notebook_functions import functions

# --- what is drawn, read back from the artists and held against the table -------------------------------------

RNG = np.random.default_rng(5)
BLUE, ORANGE, GREEN, PURPLE, GREY = "#0072b2", "#e69f00", "#009e73", "#cc79a7", "#7f7f7f"
PROPOSED = "#b84a00"
SCORES = ["nca", "leep", "mine"]
TARGETS = ["breastmnist", "octmnist", "retinamnist"]
SOURCES = ["zebra", "breastmnist", "imagenet", "retinamnist"]


def dots(axis) -> list[tuple[float, float, str]]:
    """Every dot of an axis that can be seen: x, y, colour."""
    found = []
    for marks in axis.collections:
        if isinstance(marks, PathCollection):
            points = np.ma.filled(marks.get_offsets(), np.nan).tolist()
            colours = np.resize([to_hex(c) for c in marks.get_facecolors()], len(points))
            found += [(*at, c) for at, c in zip(points, colours, strict=True) if np.isfinite(at).all()]
    return found


def spans(axis) -> list[tuple[float, float, float]]:
    """Every horizontal line drawn by `hlines`: y, and both ends in x."""
    lines = [marks for marks in axis.collections if isinstance(marks, LineCollection)]
    return [(path[0, 1], path[0, 0], path[-1, 0]) for marks in lines for path in marks.get_segments()]


def ticks(axis, which: str = "y") -> dict[float, str]:
    """Place of every tick -> its label."""
    side = getattr(axis, f"{which}axis")
    labels = [text.get_text() for text in side.get_ticklabels()]
    return dict(zip(side.get_ticklocs().tolist(), labels, strict=True))


def bars(axis) -> dict[tuple[float, str], float]:
    """Middle and colour of every upright bar -> its height."""
    return {
        (round(bar.get_x() + bar.get_width() / 2, 6), to_hex(bar.get_facecolor())): bar.get_height()
        for bar in axis.patches
    }


def pairs() -> pd.DataFrame:
    """Three targets with rows in another order each; a source on itself, one without AUC, one without a score."""
    rows = [{"source": s, "target": t} for t in TARGETS for s in SOURCES]
    table = pd.DataFrame(rows).assign(auc=RNG.random(12), auc_low=RNG.random(12) / 5, auc_high=RNG.random(12))
    table[SCORES] = RNG.random((12, 3))
    table.loc[table["source"] == "zebra", "auc"] = [0.9, np.nan, 0.1]
    table.loc[2, "leep"] = np.nan
    return table.sample(frac=1, random_state=3)


def test_transfer_puts_every_auc_into_its_source_s_row():
    table = pairs()
    sizes = {"zebra": 0, "imagenet": 9, "retinamnist": 1, "breastmnist": 2}
    figure = figures.transfer(table, sizes, "x")
    assert list(ticks(figure.axes[0]).values()) == ["zebra", "retina", "breast", "imagenet"]
    place = {source: number for number, source in enumerate(sorted(sizes, key=sizes.__getitem__))}
    assert [axis.get_title() for axis in figure.axes if axis.get_visible()] == ["breast", "oct", "retina"]
    for axis, target in zip(figure.axes, TARGETS, strict=False):
        kept = table[(table["target"] == target) & (table["source"] != target)].dropna(subset="auc")
        best = kept["auc"].max()
        assert list(axis.lines[0].get_xdata()) == [best, best]
        rows = [(row, place[row.source]) for row in kept.itertuples()]
        expected = [(row.auc, y, ORANGE if row.auc == best else BLUE) for row, y in rows]
        assert sorted(dots(axis)) == sorted(expected)
        ends = [(y, row.auc_low, row.auc_high) for row, y in rows]
        assert sorted(spans(axis)) == pytest.approx(np.array(sorted(ends)))


@pytest.mark.parametrize("targets", [TARGETS[::-1], TARGETS[1:2]])
def test_scores_against_auc_draws_every_pair_that_has_both(targets):
    table = pairs()
    taus = pd.DataFrame(RNG.uniform(-1, 1, (3, 3)).round(2), TARGETS, SCORES)
    taus.loc["octmnist", "leep"] = np.nan
    axes = np.array(figures.scores_against_auc(table, SCORES, targets, taus).axes).reshape(len(targets), 3)
    for row, target in zip(axes, targets, strict=True):
        assert row[0].get_ylabel() == target.removesuffix("mnist")
        for axis, score in zip(row, SCORES, strict=True):
            known = table.loc[table["target"] == target, ["auc", score]].dropna().to_numpy()
            assert {(x, y) for x, y, _ in dots(axis)} == {tuple(pair) for pair in known}
            large = table.query("target == @target and source == 'imagenet'")[["auc", score]].dropna()
            marked = [(x, y) for x, y, colour in dots(axis) if colour == ORANGE]
            assert marked == list(large.itertuples(index=False, name=None))
            tau = taus.loc[target, score]
            shade = np.subtract(*np.array(axis.get_facecolor())[[0, 2]])  # orange above 0, purple below
            assert np.isnan(tau) or abs(tau) < 0.05 or np.sign(shade) == np.sign(tau)
            assert axis.get_title() == ("τ undefined" if np.isnan(tau) else f"τ = {tau:.2f}")
            slope, intercept = np.polyfit(*known.T, 1)
            line = axis.lines[0].get_xydata()[[0, -1]]
            assert line[:, 0] == pytest.approx([known[:, 0].min(), known[:, 0].max()])
            assert line[:, 1] == pytest.approx(intercept + slope * line[:, 0])
    assert [axis.texts[0].get_text() for axis in axes[0]] == ["NCA alone", "LEEP", "mine"]


def test_tau_table_writes_every_value_into_its_cell():
    taus = pd.DataFrame(RNG.uniform(-1, 1, (3, 2)), TARGETS[::-1], ["leep", "proposed"])
    taus.iloc[1, 0] = np.nan
    axis = figures.tau_table(taus, "x").axes[0]
    rows, columns = ticks(axis), ticks(axis, "x")
    placed = [(*text.get_position(), text.get_text()) for text in axis.texts]
    written = {(rows[y], columns[x]): text for x, y, text in placed}
    whole = pd.concat([taus, taus.mean().to_frame("mean").T])
    assert written == {
        (target.removesuffix("mnist"), name): f"{whole.loc[target, column]:.2f}".replace("nan", "–")
        for target in whole.index
        for column, name in (("leep", "LEEP"), ("proposed", "proposed"))
    }


def test_ablation_leaves_an_undefined_tau_out_of_the_mean():
    names = ["gradient_ratio", "proposed", "nca"]
    taus = pd.DataFrame([[0.1, 0.5, np.nan], [0.3, -0.5, 0.2]], columns=names)
    axes = functions("04").draw_ablation({"one": taus, "two": -taus}).axes
    for sign, axis in zip((1, -1), axes, strict=True):
        expected = {(0, PROPOSED): 0.0, (1, GREEN): sign * 0.2, (2, ORANGE): sign * 0.2}
        assert bars(axis) == pytest.approx(expected)
        points = sorted((round(x), y, colour) for x, y, colour in dots(axis))
        values = {0: ("proposed", PROPOSED), 1: ("nca", GREEN), 2: ("gradient_ratio", ORANGE)}
        assert points == sorted(
            (place, sign * y, colour) for place, (name, colour) in values.items() for y in taus[name].dropna()
        )
        assert [t.get_text() for t in axis.texts] == [f"mean {v:.3f}" for v in expected.values()]
        assert list(ticks(axis, "x").values()) == ["NCA × gradients", "NCA alone", "gradients alone"]


def test_critical_difference_puts_every_score_at_its_mean_rank_and_joins_what_nemenyi_does():
    ranks = pd.DataFrame([[1, 2, 3.0]] * 40, columns=["b", "leep", "nca"])
    ranks.iloc[::2, :2] = [2, 1]
    assert nemenyi(ranks).loc["b", "leep"] > 0.05 > nemenyi(ranks).loc["b", "nca"]
    (axis,) = figures.critical_difference(ranks).axes
    assert [list(line.get_xdata()) for line in axis.lines][0] == [1.5, 1.5]
    colours = {text.get_text(): to_hex(text.get_color()) for text in axis.texts}
    drawn = {colour: x for x, _, colour in dots(axis)}
    titles = {"b": "b (1.5)", "leep": "LEEP (1.5)", "nca": "(3) NCA alone"}
    assert {name: drawn[colours[titles[name]]] for name in titles} == ranks.mean().to_dict()


@pytest.mark.parametrize("rivals", ["published", "computed here"])
def test_benchmark_draws_every_row_of_the_summary(rivals):
    kinds = ["given", rivals, "term", rivals, "baseline", "baseline", "reliability", "ceiling"]
    shown = {"mine": "mine", "leep": "LEEP", "nca": "NCA alone", "proposed": "proposed"}
    names = [*shown, "always_imagenet", "training_set_size", "halves", "attainable"]
    values = RNG.random(8)
    table = pd.DataFrame({"kind": kinds, "mean": values, "low": values - 0.1, "high": values + 0.2}, names)
    table.loc["always_imagenet", "mean"] = np.nan
    (axis,) = figures.benchmark(table.sample(frac=1, random_state=1)).axes
    colours = {"given": ORANGE, rivals: BLUE, "term": GREEN}
    rows = {title: place for place, title in ticks(axis).items()}
    lines = [line for line in axis.lines if len(line.get_ydata())]
    drawn = {(line.get_ydata()[0], tuple(line.get_xdata()), to_hex(line.get_color())) for line in lines}
    for name, title in shown.items():
        row = table.loc[name]
        for ends in ((row["low"], row["high"]), (row["mean"],)):
            colour = PROPOSED if name == "proposed" else colours[row["kind"]]
            assert (rows[title], ends, colour) in drawn
    assert len(rows) == 4 and (0, (values[5], values[5]), PURPLE) in drawn


def test_noise_ceiling_draws_both_bands_and_the_scores_of_every_target():
    columns = [f"{what}, {way}" for what in ("reliability", "attainable") for way in ("halves", "resamples")]
    ceiling = pd.DataFrame(RNG.random((3, 4)), TARGETS, columns)
    taus = pd.DataFrame(RNG.random((3, 2)), TARGETS[::-1], ["mine", "leep"]).drop(index="octmnist")
    (axis,) = functions("05").draw_noise_ceiling(ceiling, taus, ["leep", "mine"]).axes
    rows = {f"{label}mnist": place for place, label in ticks(axis).items()}
    middles = [(bar, bar.get_y() + bar.get_height() / 2) for bar in axis.patches]
    drawn = {(middle, bar.get_x(), bar.get_x() + bar.get_width()) for bar, middle in middles}
    expected = [
        (rows[target], min(values), max(values))
        for half in (ceiling.iloc[:, :2], ceiling.iloc[:, 2:])
        for target, values in half.iterrows()
    ]
    assert sorted(drawn) == pytest.approx(np.array(sorted(expected)))
    expected = {(row.leep, rows[row.Index], BLUE) for row in taus.itertuples()}
    assert set(dots(axis)) == expected | {(row.mine, rows[row.Index], ORANGE) for row in taus.itertuples()}


def test_partial_grids_draw_the_spread_and_the_value_of_every_score():
    means = pd.DataFrame({"leep": RNG.normal(0.5, 0.1, 99), "mine": RNG.normal(0.2, 0.1, 99)})
    means.iloc[3, 0] = np.nan
    (axis,) = functions("05").draw_partial_grids(means, pd.Series({"mine": 0.3, "leep": 0.4})).axes
    assert ticks(axis) == {1: "mine", 2: "LEEP"}
    assert sorted(dots(axis)) == [(0.3, 1, ORANGE), (0.4, 2, ORANGE)]
    medians = [line for line in axis.lines if to_hex(line.get_color()) == BLUE]
    middles = {round(np.mean(line.get_ydata())): line.get_xdata()[0] for line in medians}
    assert middles == pytest.approx({1: means["mine"].median(), 2: means["leep"].median()})


def test_runs_are_all_drawn_with_the_one_of_lowest_loss_and_the_median():
    runs = pd.DataFrame(RNG.random((60, 2)), columns=["val_loss", "test_auc"])
    runs["source"] = np.repeat(["zebra", "imagenet"], 30)
    (axis,) = functions("05").draw_runs(runs).axes
    row = {source: place for place, source in ticks(axis).items()}
    lines = [marks for marks in axis.collections if isinstance(marks, LineCollection)]
    medians = {round(p[:, 1].mean()): p[0, 0] for marks in lines for p in marks.get_segments()}
    for source, block in runs.groupby("source"):
        own = [(x, colour) for x, y, colour in dots(axis) if round(y) == row[source]]
        assert sorted(x for x, colour in own if colour == GREY) == sorted(block["test_auc"])
        chosen = block.loc[block["val_loss"].idxmin(), "test_auc"]
        assert [x for x, colour in own if colour == ORANGE] == [chosen]
        assert medians[row[source]] == pytest.approx(block["test_auc"].median())


def test_what_pairs_add_to_tau_sums_to_it_and_stands_in_the_cells():
    score, auc = RNG.random(6), np.sort(RNG.random(6))[::-1]
    score[2] = score[4]
    notebook = functions("05")
    added = notebook.pair_weights(score, auc)
    assert added.sum() == pytest.approx(weightedtau(score, auc).statistic)
    axis = notebook.draw_pairs(added, list("abcdef")).axes[0]
    placed = [(*text.get_position(), text.get_text()) for text in axis.texts if text.get_text()]
    cells = {(ticks(axis)[y], ticks(axis, "x")[x]): text for x, y, text in placed}
    assert len(cells) == 15 and cells["e", "c"].strip("-") == "0.0"
    assert cells["b", "a"] == f"{200 * added[1, 0]:.1f}"
    assert axis.get_title(loc="left") == f"sum {100 * added.sum():.1f} hundredths"


def test_sizes_stand_below_the_auc_of_their_source():
    table = pairs().dropna(subset="auc").assign(training_set_size=RNG.integers(10, 10**6, 11))
    taus = dict.fromkeys(TARGETS, 0.25)
    figure = functions("02").draw_sizes(table, ["imagenet"], taus)
    for axis, target in zip(figure.axes, TARGETS, strict=False):
        rows = table[table["target"] == target]
        assert axis.get_title(loc="left") == f"{target.removesuffix('mnist')}, τ = 0.25"
        assert sorted(dots(axis)) == sorted(
            (row.training_set_size, row.auc, ORANGE if row.source == "imagenet" else BLUE)
            for row in rows.itertuples()
        )
        assert axis.get_xscale() == "log"


def test_a_triplet_s_bars_are_its_distances_and_its_loss_their_difference():
    notebook = functions("04")
    features = torch.tensor([[1.0, 0.0], [0.6, 0.8], [0.8, 0.6], [0.0, 1.0]])
    labels = torch.tensor([0, 0, 1, 1])
    (anchor, positive, negative), distance = notebook.largest_triplet(features, labels)
    losses = {
        (a, p, n): float(distance[a, p] - distance[a, n])
        for a, p, n in itertools.product(range(4), repeat=3)
        if a != p and labels[a] == labels[p] != labels[n]
    }
    assert losses[anchor, positive, negative] == max(losses.values())
    pictures = list(RNG.integers(0, 255, (3, 4, 4)))
    axes = notebook.draw_triplet(pictures, ["ill", "ill", "well"], 0.5, 0.25).axes
    for axis, picture in zip(axes, pictures, strict=False):
        np.testing.assert_array_equal(axis.images[0].get_array(), picture)
    assert [axis.get_title() for axis in axes[:3]] == ["anchor\nill", "same class\nill", "other class\nwell"]
    lengths = [(bar.get_x(), bar.get_width()) for bar in axes[3].patches]
    assert np.array(lengths) == pytest.approx(np.array([(0, 0.5), (0, 0.25), (0.5, 0.05)]))
    assert axes[3].get_title() == "loss 0.300"


def test_terms_stand_at_their_values_with_curves_of_equal_product():
    rows = pd.DataFrame(RNG.random((4, 3)), columns=["nca", "gradient_ratio", "auc"]).assign(source=SOURCES)
    axis = functions("04").draw_terms({"breastmnist": rows}).axes[0]
    assert [(x, y) for x, y, _ in dots(axis)] == list(zip(rows["nca"], rows["gradient_ratio"], strict=True))
    sizes = axis.collections[0].get_sizes()
    assert (np.argsort(sizes) == np.argsort(rows["auc"])).all()
    edges = [to_hex(colour) for colour in axis.collections[0].get_edgecolors()]
    assert [edge == PROPOSED for edge in edges] == [source == "imagenet" for source in SOURCES]
    for line, product in zip(axis.lines, (0.1, 0.3, 0.5, 0.7, 0.9), strict=True):
        assert np.prod(line.get_xydata(), axis=1) == pytest.approx(product)


def test_grouped_bars_stand_over_their_target():
    names = [f"way {number}" for number in range(6)]
    table = pd.DataFrame(RNG.random((3, 6)), TARGETS[::-1], names)
    (axis,) = functions("05").draw_regrets(table, {name: name.upper() for name in names[::-1]}).axes
    assert list(ticks(axis, "x").values()) == ["retina", "oct", "breast"]
    for container, name in zip(axis.containers, names[::-1], strict=True):
        assert container.get_label() == f"{name.upper()}: mean {table[name].mean():.4f}"
        for place, bar in enumerate(container):
            assert bar.get_height() == table[name].iloc[place]
            assert abs(bar.get_x() + bar.get_width() / 2 - place) < 0.4
    assert len({to_hex(container[0].get_facecolor()) for container in axis.containers}) == 6


def test_bars_of_two_settings_stand_over_their_row():
    table = pd.DataFrame({"two_sets": [0.1, 0.2, np.nan], "one": [0.3, 0.4, 0.5]}, index=TARGETS)
    (axis,) = note_figures.saturation(table).axes
    assert [axis.containers[number].get_label() for number in (0, 1)] == ["two sets", "one"]
    for container, name in zip(axis.containers[:2], table, strict=True):
        assert [bar.get_height() for bar in container] == pytest.approx(list(table[name]), nan_ok=True)
        assert [round(bar.get_x() + bar.get_width() / 2) for bar in container] == [0, 1, 2]


def test_a_ranking_has_the_best_on_top_and_a_missing_term_has_no_bar():
    columns = ["source", "rank", "combined", "feature_rank", "nca", "gradient_ratio_scale_invariant"]
    rows = [("x", 1, 1.0, 1.5, 0.9, 3.0), ("y", 2, 0.5, 1.0, np.nan, 2.0), ("w", 3, 0.0, 3.0, 0.7, 1.0)]
    few = [("v", pd.NA, np.nan, 1.0, 0.3, 0.5), ("u", pd.NA, np.nan, 2.0, 0.2, 0.9)]
    given = (("source_datasets", "b", rows), ("mixed", "a", few))
    sets = [CandidateSet(kind, title, pd.DataFrame(of, columns=columns)) for kind, title, of in given]
    figure = figures.ranking(SimpleNamespace(sets=sets, synthetic=""))
    axes = np.array(figure.axes).reshape(2, 3)
    for panels, one, by in zip(axes, sets, ("combined", "feature_rank"), strict=True):
        assert panels[0].get_title(loc="left") == one.title
        drawn_columns = (by, "nca", "gradient_ratio_scale_invariant")
        for axis, column, colour in zip(panels, drawn_columns, (PROPOSED, GREEN, ORANGE), strict=True):
            names = ticks(axis)
            assert [names[place] for place in sorted(names)] == list(one.table["source"])[::-1]
            widths = {names[round(b.get_y() + b.get_height() / 2)]: b.get_width() for b in axis.patches}
            assert widths == pytest.approx(
                one.table.set_index("source")[column].dropna().astype(float).to_dict()
            )
            assert {to_hex(bar.get_facecolor()) for bar in axis.patches} == {colour}
    assert [text.get_text() for text in axes[0, 1].texts] == ["missing"]


def test_gradient_norms_leave_a_batch_without_triplets_out():
    passes = {}
    for name, ratio in (("train:octmnist", 1.234), ("b", 0.5)):
        norms, triplets = RNG.random((3, 2)), np.array([4, 0, 9])
        passes[name] = SimpleNamespace(norms=norms, triplets=triplets, ratio=lambda ratio=ratio: ratio)
    (axis,) = functions("04").draw_gradient_norms(passes).axes
    assert [m.get_label() for m in axis.collections] == ["oct: 1.23", "b: 0.50"]
    assert dots(axis) == [
        (*one.norms[k], colour)
        for one, colour in zip(passes.values(), (BLUE, ORANGE), strict=True)
        for k in (0, 2)
    ]


def test_examples_are_images_of_the_class_they_stand_beside():
    images = np.arange(7, dtype=np.uint8)[:, None, None] * np.ones((1, 2, 2), np.uint8)
    labels = np.array([1, 0, 1, 1, 0, 1, 1])
    dataset = SimpleNamespace(
        n_classes=2, classes=("a", "b$"), synthetic="", images={"train": images}, labels={"train": labels}
    )
    findings = np.eye(2, dtype=int)[labels]
    for of_train in (labels, np.vstack([findings, [0, 0]])):  # the last image of the second has no finding
        dataset.labels["train"] = of_train
        axes = np.array(figures.examples(dataset, per_class=3).axes).reshape(2, 3)
        for label, row in enumerate(axes):
            shown = [int(axis.images[0].get_array()[0, 0]) for axis in row if axis.images]
            assert len(set(shown)) == len(shown) == (2, 3)[label] and set(labels[shown]) == {label}
            assert row[0].get_ylabel() == ("a", r"b\$")[label]
    dataset.n_classes, dataset.classes = 20, tuple(map(str, range(20)))
    dataset.labels["train"] = np.arange(7)
    assert len(figures.examples(dataset, per_class=1).axes) == 12


def test_augmentations_stand_under_the_image_they_were_made_from():
    images = RNG.integers(0, 256, (3, 2, 2), dtype=np.uint8)
    rows = {"grey": RNG.random((3, 1, 2, 2)), "colour": RNG.random((3, 3, 2, 2))}
    axes = np.array(functions("01").draw_augmentations(images, rows).axes).reshape(3, 3)
    assert [row[0].get_ylabel() for row in axes] == ["as they are", "grey", "colour"]
    for place in range(3):
        expected = (images[place] / 255, rows["grey"][place, 0], np.moveaxis(rows["colour"][place], 0, -1))
        for axis, image in zip(axes[:, place], expected, strict=True):
            assert np.array_equal(axis.images[0].get_array(), image)


def test_a_model_keeps_its_colour_in_a_panel_that_lacks_another():
    panels = {"loss": {"a": [3.0, 2.0], "b": [2.0, 1.0, 0.5]}, "AUC": {"b": [0.1, 0.2, 0.3], "c": [0.7]}}
    axes = figures.curves(panels, {"b": 3}).axes
    drawn = {}
    for axis, (what, lines) in zip(axes, panels.items(), strict=True):
        assert axis.get_ylabel() == what
        whole = [line for line in axis.lines if line.get_marker() == "None"]
        for line, (name, values) in zip(whole, lines.items(), strict=True):
            assert line.get_xydata().tolist() == [[n, value] for n, value in enumerate(values, start=1)]
            drawn.setdefault(name, set()).add((line.get_color(), line.get_linestyle()))
        marked = [line.get_xydata()[0].tolist() for line in axis.lines if line.get_marker() == "o"]
        assert marked == [[3, lines["b"][2]]]
    legend = axes[-1].get_legend()
    looks = [{(line.get_color(), line.get_linestyle())} for line in legend.get_lines()]
    named = dict(zip([text.get_text() for text in legend.texts], looks, strict=True))
    assert named == drawn and len(set(map(str, drawn.values()))) == 3


def test_projections_draw_every_class_in_its_own_colour_and_shape():
    labels = RNG.permutation(np.arange(33) % 11)
    points = RNG.random((33, 2))
    names = [f"class {k}" for k in range(11)]
    (axis,) = functions("03").draw_projections({"(a)": points}, labels, names).axes
    looks = set()
    for marks in axis.collections:
        label = int(marks.get_label().split()[1])
        assert np.array_equal(marks.get_offsets(), points[labels == label])
        looks.add((to_hex(marks.get_facecolor()[0]), str(marks.get_paths()[0].vertices.round(3).tolist())))
    assert len(axis.collections) == len(looks) == 11


def test_similarity_keeps_the_colours_where_a_representation_is_missing():
    rows = [{"source": s, "representation": r} for s in "ab" for r in ("lda", "after", "before")]
    table = pd.DataFrame(rows).assign(overlap=RNG.random(6))
    (axis,) = functions("03").draw_similarity(table, {"overlap": "x"}).axes
    means = table.groupby("representation")["overlap"].mean()
    assert list(ticks(axis, "x").values()) == ["before", "LDA"]
    assert bars(axis) == pytest.approx({(0, GREY): means["before"], (1, ORANGE): means["lda"]})
    looks = {"before": (0, GREY), "lda": (1, ORANGE)}
    rows = [
        (*looks[row.representation], row.overlap) for row in table.itertuples() if row.representation in looks
    ]
    assert sorted((round(x), colour, y) for x, y, colour in dots(axis)) == sorted(rows)


def test_inversion_joins_the_two_values_of_every_score():
    released = pd.Series({"leep": -0.3, "nca": 0.1, "mine": 0.2})
    (axis,) = figures.inversion(released, pd.Series({"nca": -0.1, "leep": 0.3})).axes
    assert ticks(axis) == {0: "NCA alone", 1: "LEEP"}
    assert spans(axis) == [(0, 0.1, -0.1), (1, -0.3, 0.3)]
    assert set(dots(axis)) == {(0.1, 0, ORANGE), (-0.3, 1, ORANGE), (-0.1, 0, BLUE), (0.3, 1, BLUE)}


def test_by_width_draws_each_variant_and_marks_the_points():
    values = {"released": {32: -1.0, 512: 4.0}, "right": {32: -1.0, 256: -1.1, 512: -1.2}}
    (axis,) = note_figures.by_width(values, 200).axes
    drawn = {line.get_label(): dict(line.get_xydata().tolist()) for line in axis.lines[:2]}
    assert drawn == values and list(axis.lines[2].get_xdata()) == [200, 200]
    found = axis.figure.findobj(match=lambda part: hasattr(part, "get_text"))
    assert "SYNTHETIC FEATURES" in " ".join(part.get_text() for part in found) and not plt.get_fignums()


def test_samples_are_images_of_the_classes_in_turn_with_their_shares():
    images, labels = RNG.integers(0, 255, (8, 4, 4)), np.array([0, 0, 0, 0, 0, 0, 1, 1])
    dataset = SimpleNamespace(images={"train": images}, labels={"train": labels}, n_classes=2)
    *pictures, bar = note_figures.samples({"one": dataset}, columns=4).axes
    for axis, place in zip(pictures, (0, 6, 1, 7), strict=True):
        np.testing.assert_array_equal(axis.images[0].get_array(), images[place])
    assert [(part.get_x(), part.get_width()) for part in bar.patches] == [(0, 0.75), (0.75, 0.25)]
    assert pictures[0].get_ylabel() == "one" and bar.get_title(loc="left") == "2 classes, 8 images"


def test_other_ground_truths_and_sizes_draw_what_the_table_says():
    means = pd.DataFrame(RNG.random((3, 2)), ["proposed", "leep", "mine"], ["mean of ten", "median"])
    figure = note_figures.other_ground_truths(means, ["proposed", "leep"])
    colours = {"proposed": PROPOSED, "leep": BLUE, "mine": GREY}
    assert set(dots(figure.axes[0])) == {
        (value, -place, colours[name]) for name, row in means.iterrows() for place, value in enumerate(row)
    }
    assert [text.get_text() for text in figure.legends[0].get_texts()] == ["proposed", "LEEP"]
    taus = pd.DataFrame({"all": [0.5, 0.1, 0.3], "small": [0.2, np.nan, -0.1]}, index=TARGETS)
    (axis,) = note_figures.size_and_auc(taus).axes
    rows = {f"{label}mnist": place for place, label in ticks(axis).items()}
    assert list(rows) == ["octmnist", "retinamnist", "breastmnist"]
    assert set(dots(axis)) == {
        (value, rows[target], {"all": BLUE, "small": GREEN}[column])
        for (target, column), value in taus.stack().dropna().items()
    }
    assert [line.get_xdata()[0] for line in axis.lines[:2]] == pytest.approx(list(taus.mean()))
