"""Many scores of one source on one target, with the work they share done once."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from companion.scores._arrays import (
    check_count,
    check_labels,
    check_logits,
    check_variant,
    stratified_subsample,
)
from companion.scores._shared import Prepared
from companion.scores.gbc import compute as _gbc
from companion.scores.hscore import compute as _hscore
from companion.scores.knn import compute as _knn
from companion.scores.lda import compute as _lda
from companion.scores.leep import leep
from companion.scores.linear_probe import compute as _linear_probe
from companion.scores.logme import compute as _logme
from companion.scores.nca import compute as _nca
from companion.scores.nce import nce
from companion.scores.ncti import NCTITerms
from companion.scores.ncti import compute as _ncti
from companion.scores.nleep import compute as _nleep
from companion.scores.parc import compute as _parc
from companion.scores.registry import REGISTRY
from companion.scores.sfda import compute as _sfda
from companion.scores.transrate import compute as _transrate

Seed = int | None

_FROM_FEATURES: dict[str, Callable[[Prepared, str, Seed], Any]] = {
    "nca": lambda prepared, variant, seed: _nca(prepared, variant=variant),
    "lda": lambda prepared, variant, seed: _lda(prepared, variant=variant),
    "logme": lambda prepared, variant, seed: _logme(prepared, variant=variant),
    "nleep": lambda prepared, variant, seed: _nleep(prepared, variant=variant, random_state=seed),
    "sfda": lambda prepared, variant, seed: _sfda(prepared, variant=variant),
    "parc": lambda prepared, variant, seed: _parc(prepared, variant=variant, random_state=seed),
    "ncti": lambda prepared, variant, seed: _ncti(prepared, variant=variant),
    "hscore": lambda prepared, variant, seed: _hscore(prepared),
    "transrate": lambda prepared, variant, seed: _transrate(prepared),
    "gbc": lambda prepared, variant, seed: _gbc(prepared),
    "knn": lambda prepared, variant, seed: _knn(prepared),
    "linear_probe": lambda prepared, variant, seed: _linear_probe(prepared, random_state=seed),
}
_FROM_LOGITS = {"leep": leep, "nce": nce}


class SuiteResult(Mapping[str, float]):
    """Scores by name, read-only, in the order asked for.

    Attributes
    ----------
    reasons : dict of str to str
        Why a score is NaN or absent, by name.
    terms : NCTITerms or None
        The three terms of NCTI, which become a score only over a pool of sources (`companion.ranking`).
    """

    def __init__(
        self, scores: Mapping[str, float], reasons: Mapping[str, str], terms: NCTITerms | None
    ) -> None:
        self._scores = dict(scores)
        self.reasons = dict(reasons)
        self.terms = terms

    def __getitem__(self, name: str) -> float:
        """Score of that name."""
        return self._scores[name]

    def __iter__(self) -> Iterator[str]:
        """Names, in the order asked for."""
        return iter(self._scores)

    def __len__(self) -> int:
        """How many scores there are."""
        return len(self._scores)

    def __repr__(self) -> str:
        """Scores, reasons and terms."""
        return f"SuiteResult({self._scores}, reasons={self.reasons}, terms={self.terms})"


def suite(
    features: ArrayLike,
    labels: ArrayLike,
    logits: ArrayLike | None = None,
    *,
    names: Iterable[str] | None = None,
    variant: str = "corrected",
    random_state: int | None = 0,
    max_points: int | None = None,
) -> SuiteResult:
    """Compute many scores of one source on one target at once.

    Every score equals what its own function returns; centring, class means, the eigendecomposition and the
    projections are computed once for all.

    Parameters
    ----------
    features : array-like of shape (n, d)
        Features of the target's points under the source model.
    labels : array-like of shape (n,) or (n, 1)
        Target labels.
    logits : array-like of shape (n, source classes), optional
        Outputs of the source model's head. Without them, or without source classes, `leep` and `nce` are NaN
        with that reason.
    names : iterable of str, optional
        Scores wanted, as in `REGISTRY`; all that need no images by default.
    variant : {"corrected", "published"}, default "corrected"
        For the scores that have variants.
    random_state : int or None, default 0
        Seed for the scores in which chance enters, and for `max_points`.
    max_points : int, optional
        Score a stratified random subsample of this many points where there are more. The docs give the error.

    Returns
    -------
    SuiteResult
        Mapping of names to floats. `ncti` is no float: its terms are in ``.terms``.

    Raises
    ------
    ValueError
        Bad features, labels or logits, an unknown name or variant. A score that is undefined for these (good)
        arrays is NaN, and ``.reasons`` says why.

    Examples
    --------
    >>> import numpy as np
    >>> from companion.scores import suite
    >>> features = np.random.default_rng(0).normal(size=(60, 8))
    >>> labels = np.arange(60) % 3
    >>> card = suite(features, labels, names=["knn", "leep"])
    >>> card.reasons["leep"]
    'leep: not applicable, the source gives no logits'
    """
    wanted = _check_names(names)
    check_variant(variant)
    if max_points is not None:
        size = check_count(max_points, "max_points")
        codes = check_labels(labels, len(np.asarray(features))).codes
        rows = stratified_subsample(codes, size, random_state=random_state)
        features, labels = np.asarray(features)[rows], np.asarray(labels)[rows]
        logits = None if logits is None else np.asarray(logits)[rows]
    prepared = Prepared(features, labels)
    if logits is not None and np.shape(logits)[1:] != (0,):
        check_logits(logits)
        check_labels(labels, len(np.asarray(logits)), of="logits")
    scores: dict[str, float] = {}
    reasons: dict[str, str] = {}
    terms = None
    for name in wanted:
        value, reason = _one(name, prepared, labels, logits, variant, random_state)
        if reason:
            reasons[name] = reason
        if name == "ncti":
            terms = value
        else:
            scores[name] = value
    return SuiteResult(scores, reasons, terms)


def _one(
    name: str, prepared: Prepared, labels: ArrayLike, logits: ArrayLike | None, variant: str, seed: Seed
) -> tuple[Any, str]:
    """One score and, where it is undefined, the reason."""
    undefined = None if name == "ncti" else float("nan")
    try:
        if name in _FROM_LOGITS:
            if logits is None:
                return undefined, f"{name}: not applicable, the source gives no logits"
            return _FROM_LOGITS[name](logits, labels), ""
        if name not in _FROM_FEATURES:
            return (
                undefined,
                f"{name}: not applicable, it needs a model and {', '.join(REGISTRY[name].inputs)}",
            )
        value = _FROM_FEATURES[name](prepared, variant, seed)
        return value if name == "sfda" else (value, "")
    except ValueError as error:
        return undefined, f"{name}: {error}"


def _check_names(names: Iterable[str] | None) -> list[str]:
    if names is None:
        return [name for name, info in REGISTRY.items() if "images" not in info.inputs]
    wanted = [names] if isinstance(names, str) else list(dict.fromkeys(names))
    for name in wanted:
        if name not in REGISTRY:
            close = difflib.get_close_matches(str(name), REGISTRY, n=1)
            hint = f"; did you mean {close[0]!r}?" if close else f"; there are {', '.join(REGISTRY)}"
            raise ValueError(f"names: no score is called {name!r}{hint}")
    return wanted
