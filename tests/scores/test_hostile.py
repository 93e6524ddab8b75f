"""Hostile arrays, in one table: a right finite number or a ValueError that names argument and reason."""

import warnings

import numpy as np
import pytest
import synthetic
from synthetic import SCALE_FREE, make

from companion import scores

FROM_FEATURES = tuple(name for name, score in scores.REGISTRY.items() if score.inputs[0] == "features")
FROM_LOGITS = tuple(name for name, score in scores.REGISTRY.items() if score.inputs[0] == "logits")
ALL = FROM_FEATURES + FROM_LOGITS
LEAVE_OUT = ("nca", "lda", "knn", "linear_probe")
UNIT = {"nca", "lda", "nleep", "sfda", "knn", "linear_probe"}


def _with(x=None, y=None, z=None, **options):
    """Plain features, labels and logits, some replaced by a function of the plain ones."""
    arrays = make(**({"n": 60, "d": 12, "classes": 3} | options))
    return tuple(
        array if change is None else change(array.copy())
        for array, change in zip(arrays, (x, y, z), strict=True)
    )


def _put(array, where, value):
    array[where] = value
    return array


# Arrays of which every score gives a finite number.
FINE = {
    "plain": _with(),
    "constant column": _with(lambda x: _put(x, (slice(None), 3), 2.5)),
    "duplicate columns": _with(lambda x: np.hstack([x, x, x[:, :1]])),
    "a zero row": _with(lambda x: _put(x, 5, 0.0)),
    "duplicate rows": _with(lambda x: np.tile(x[:30], (2, 1)), lambda y: np.tile(y[:30], 2)),
    "huge logits": _with(z=lambda z: z * 1e6),
    "one source class": _with(z=lambda z: z[:, :1]),
    "a missing class index": _with(y=lambda y: y * 3 - 4),
    "(n, 1) labels": _with(y=lambda y: y[:, None]),
    "string labels": _with(y=lambda y: np.array(["b", "a", "c"])[y]),
    "object string labels": _with(y=lambda y: np.array(["b", "a", "c"], dtype=object)[y]),
    "whole-number float labels": _with(y=lambda y: y.astype(float)),
    "boolean labels": _with(y=lambda y: y > 0),
    "unsigned labels": _with(y=lambda y: y.astype(np.uint8)),
    "labels as a list": _with(y=lambda y: y.tolist()),
    "d = 2": _with(d=2),
    "d < 32": _with(d=20),
    "d < 50": _with(d=40),
    "n < 64": _with(n=50, d=80),
    "features x 1e6": _with(lambda x: x * 1e6),
    "features x 1e-6": _with(lambda x: x * 1e-6),
    "wide features x 1e6": _with(lambda x: x * 1e6, d=200),
    "wide features x 1e-6": _with(lambda x: x * 1e-6, d=200),
    "far from the origin": _with(lambda x: x.astype(float) + 1e6),
    "separated without overlap": _with(separation=50.0),
    "integer features": _with(lambda x: (10 * x).astype(np.int32)),
    "half-precision features": _with(lambda x: x.astype(np.float16)),
    "big-endian features": _with(lambda x: x.astype(">f4")),
    "Fortran order": _with(np.asfortranarray),
    "every other column": _with(lambda x: np.repeat(x, 2, axis=1)[:, ::2]),
    "lists": _with(*3 * (np.ndarray.tolist,)),
}
NEED_PAIRS = ("nca", "lda", "nleep", "sfda", "parc", "ncti", "knn", "linear_probe")
# Case: (arrays, scores that must refuse, what the message must match). All other scores return a finite number.
REFUSED = {
    "all-zero features": (_with(lambda x: x * 0), FROM_FEATURES, "^features: .*all-zero"),
    "one row repeated": (
        _with(lambda x: np.tile(x[:1], (len(x), 1))), FROM_FEATURES, "^features: every point is identical"),
    "NaN in features": (
        _with(lambda x: _put(x, (7, 2), np.nan)), FROM_FEATURES, "^features: .*nan at row 7, column 2"),
    "infinity in features": (
        _with(lambda x: _put(x, (7, 2), -np.inf)), FROM_FEATURES, "^features: .*-inf at row 7, column 2"),
    "NaN in logits": (_with(z=lambda z: _put(z, (1, 0), np.nan)), FROM_LOGITS, "^logits: .*nan at row 1"),
    "infinity in logits": (_with(z=lambda z: _put(z, (1, 0), np.inf)), FROM_LOGITS, "^logits: .*inf at row 1"),
    "huge features": (_with(lambda x: x.astype(float) * 1e80), FROM_FEATURES, "^features: magnitudes"),
    "no source classes": (_with(z=lambda z: z[:, :0]), FROM_LOGITS, "^logits: .*no classes.*not applicable"),
    "1-d features": (_with(lambda x: x[:, 0]), FROM_FEATURES, r"^features: .*shape \(60,\)"),
    "1-d logits": (_with(z=lambda z: z[:, 0]), FROM_LOGITS, r"^logits: .*shape \(60,\)"),
    "3-d features": (_with(lambda x: x[:, :, None]), FROM_FEATURES, r"^features: .*shape \(60, 12, 1\)"),
    "text features": (_with(lambda x: x.astype(str)), FROM_FEATURES, "^features: numbers are needed"),
    "no columns": (_with(lambda x: x[:, :0]), FROM_FEATURES, "^features: at least"),
    "one label short": (_with(y=lambda y: y[:-1]), ALL, "^labels: 60 labels are needed.*found 59"),
    "one-hot labels": (_with(y=lambda y: np.eye(3)[y]), ALL, r"^labels: .*shape \(60, 3\)"),
    "a single class": (_with(y=lambda y: y * 0), ALL, "^labels: at least 2 classes"),
    "fractional labels": (_with(y=lambda y: y + 0.5), ALL, "^labels: integers or strings"),
    "NaN in labels": (_with(y=lambda y: _put(y.astype(float), 0, np.nan)), ALL, "^labels: .*nan"),
    "mixed labels": (_with(y=lambda y: _put(y.astype(object), 0, "a")), ALL, "^labels: .*int, str"),
    "a class with one sample": (_with(y=lambda y: _put(y, 0, 7)), LEAVE_OUT, "^labels: .*class 7"),
    "n = 4": (_with(n=4, classes=2), ("nleep",), "^features: .*5 x 2 classes = 10.*found 4 points"),
    "n = 4, d = 100": (_with(n=4, d=100, classes=2), ("nleep",), "^features: .*found 4 points"),
    "as many classes as points": (
        _with(y=lambda y: np.arange(4), n=4, classes=2), NEED_PAIRS, "^(features|labels): "),
    "d = 1": (_with(d=1), ("parc",), "^features: point .* constant over its 1 "),
    "no spread within classes": (
        (np.eye(12, dtype=np.float32)[_with()[1]], *_with()[1:]),
        ("lda", "sfda", "ncti"),
        "^features: the points of every class coincide",
    ),
}  # fmt: skip
TABLE = {case: (arrays, (), "") for case, arrays in FINE.items()} | REFUSED


def evaluate(name, arrays, **options):
    """One score of hostile arrays, as a tuple of floats."""
    value = synthetic.evaluate(name, *arrays, **options)
    return tuple(value) if name == "ncti" else (value,)


@pytest.mark.parametrize("name", ALL)
@pytest.mark.parametrize("case", TABLE)
def test_hostile_arrays_give_a_number_or_a_named_reason(case, name):
    arrays, refused, pattern = TABLE[case]
    if name in refused:
        with pytest.raises(ValueError, match=pattern) as caught:
            evaluate(name, arrays)
        assert "\n" not in str(caught.value)
        return
    with warnings.catch_warnings():
        warnings.simplefilter("error", RuntimeWarning)
        values = evaluate(name, arrays)
    assert all(isinstance(value, float) for value in values)
    if name == "sfda" and np.isnan(values[0]):
        with pytest.warns(scores.ScoreWarning, match="^sfda: saturated"):
            scores.sfda(*arrays[:2])
        return
    assert np.isfinite(values).all()
    if name in UNIT:
        assert 0.0 <= values[0] <= 1.0


@pytest.mark.parametrize("name", [name for name in ALL if scores.REGISTRY[name].variants])
@pytest.mark.parametrize("case", TABLE)
def test_published_variants_also_give_a_number_or_a_named_reason(case, name):
    with warnings.catch_warnings():
        warnings.simplefilter("error", RuntimeWarning)
        try:
            values = evaluate(name, TABLE[case][0], variant="published")
        except ValueError as error:
            assert str(error).startswith(("features: ", "labels: "))
            assert "\n" not in str(error)
        else:
            assert np.isfinite(values).all()


SAME = dict.fromkeys(("features x 1e6", "features x 1e-6"), SCALE_FREE)
# float32 features of order one, moved by 1e6 in float64, keep ten digits
SAME["far from the origin"] = ("sfda", "hscore", "transrate", "gbc", "knn")
FORMS = "a missing class index; (n, 1) labels; whole-number float labels; unsigned labels; labels as a list"
SAME |= dict.fromkeys(
    f"{FORMS}; Fortran order; every other column; lists; big-endian features".split("; "), ALL
)


@pytest.mark.parametrize("case", SAME)
def test_the_form_of_the_arrays_does_not_matter_nor_scale_and_shift_where_they_should_not(case):
    for name in SAME[case]:
        found, expected = (evaluate(name, TABLE[which][0]) for which in (case, "plain"))
        np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-6, err_msg=name)


def test_saturated_sfda_is_nan_with_a_reason_and_published_is_one():
    features, labels, _ = make(60, 200, 2)
    with pytest.warns(scores.ScoreWarning, match="^sfda: saturated, every p"):
        assert np.isnan(scores.sfda(features, labels))
    assert scores.sfda(features, labels, variant="published") == pytest.approx(1.0, abs=1e-9)


@pytest.mark.parametrize("name", [name for name in ALL if scores.REGISTRY[name].variants])
@pytest.mark.parametrize("variant", ["Published", "", None, 1])
def test_unknown_variants_are_refused_with_the_allowed_ones(name, variant):
    with pytest.raises(ValueError, match="^variant: one of 'published', 'corrected' is needed, found"):
        evaluate(name, TABLE["plain"][0], variant=variant)


def test_published_parc_and_ncti_say_what_they_need():
    features, labels, _ = make(60, 20, 3)
    with pytest.raises(ValueError, match=r"^features: published PARC needs .*\(60, 20\).*corrected"):
        scores.parc(features, labels, variant="published")
    with pytest.raises(ValueError, match=r"^features: published NCTI needs .*\(60, 20\).*corrected"):
        scores.ncti_terms(features, labels, variant="published")
