"""Many scores of one source on one target, with the work they share done once."""

from __future__ import annotations

import inspect
import warnings
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike

from companion.scores import _arrays as arrays
from companion.scores._prepared import Prepared
from companion.scores.ncti import NCTITerms
from companion.scores.registry import REGISTRY, check_scores

if TYPE_CHECKING:
    from companion.scores.forward_pass import ForwardPass


@dataclass(frozen=True, eq=False)
class Scores(Mapping[str, float]):
    """Scores of one source for one target by name, read-only, in the order asked for.

    Attributes
    ----------
    reasons : dict of str to str
        Why a score is NaN or absent, by name.
    ncti_terms : NCTITerms or None
        The three terms of NCTI, which become a score only within a candidate set.
    features, labels : array-like of shape (n, d) and (n,)
        What the scores were computed from.
    seconds : float
        Time in the network; NaN where arrays were given.
    provenance : dict
        Versions, seed, device, data hash and what the source is, from `companion.score`.
    """

    by_name: dict[str, float]
    reasons: dict[str, str]
    ncti_terms: NCTITerms | None
    features: Any = field(repr=False)
    labels: Any = field(repr=False)
    seconds: float = float("nan")
    provenance: dict[str, Any] = field(default_factory=dict, repr=False)

    def __getitem__(self, name: str) -> float:
        return self.by_name[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self.by_name)

    def __len__(self) -> int:
        return len(self.by_name)


def suite(
    features: ArrayLike,
    labels: ArrayLike,
    logits: ArrayLike | None = None,
    *,
    names: Iterable[str] | None = None,
    variant: str = "corrected",
    random_state: int | None = 0,
    max_points: int | None = None,
    passed: ForwardPass | None = None,
) -> Scores:
    """Compute many scores of one source on one target; each equals what its own function returns.

    Parameters
    ----------
    features, labels : array-like of shape (n, d) and (n,)
    logits : array-like of shape (n, source classes), optional
        Without them, or without source classes, `leep` and `nce` are NaN.
    names : iterable of str, optional
        Scores wanted, as in `REGISTRY`; all that need no images by default.
    variant : {"corrected", "published"}, default "corrected"
        For the scores that have variants.
    random_state : int or None, default 0
        Seed for the scores in which chance enters, and for `max_points`.
    max_points : int, optional
        Score a `stratified_subsample` of this many points where there are more.
    passed : ForwardPass, optional
        The pass that gave the arrays; without it scores of images are NaN.

    Returns
    -------
    Scores
        Mapping of names to floats. A score that is undefined for these (good) arrays is NaN, and ``.reasons`` says why.
        `ncti` is no float: its terms are in ``.ncti_terms``.

    Raises
    ------
    ValueError
        Bad features, labels or logits, an unknown name or variant.
    """
    if names is None:
        names = [name for name, info in REGISTRY.items() if "images" not in info.inputs]
    wanted = [names] if isinstance(names, str) else list(dict.fromkeys(names))
    check_scores(wanted)
    arrays.check_variant(variant)
    if max_points is not None:
        arrays.check_labels(labels, len(np.asarray(features)))
        rows = arrays.stratified_subsample(labels, max_points, random_state=random_state)
        features, labels = np.asarray(features)[rows], np.asarray(labels)[rows]
        logits = None if logits is None else np.asarray(logits)[rows]
    prepared = Prepared(features, labels)
    if logits is not None and np.shape(logits)[1:] != (0,):
        arrays.check_labels(labels, len(arrays.check_logits(logits)), of="logits")
    found: dict[str, Any] = {}
    reasons: dict[str, str] = {}
    for name in wanted:
        info = REGISTRY[name]
        options: dict[str, Any] = {"variant": variant} if info.variants else {}
        if "random_state" in inspect.signature(info.function).parameters:
            options["random_state"] = random_state
        try:
            if "images" in info.inputs:
                if passed is None:
                    raise ValueError(f"not applicable, it needs a model and {', '.join(info.inputs)}")
                found[name] = passed.ratio("scale_invariant" if name.endswith("scale_invariant") else variant)
                continue
            if "logits" in info.inputs and logits is None:
                raise ValueError("not applicable, the source gives no logits")
            with warnings.catch_warnings():
                warnings.simplefilter("error", arrays.ScoreWarning)
                first = logits if "logits" in info.inputs else prepared
                found[name] = info.function(first, labels, **options)
        except (ValueError, arrays.ScoreWarning) as error:
            found[name] = None if info.pooled else float("nan")
            reasons[name] = f"{name}: {str(error).removeprefix(f'{name}: ')}"
    terms = found.pop("ncti", None)
    return Scores(found, reasons, terms, features, labels, passed.seconds if passed else float("nan"))
