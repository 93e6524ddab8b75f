"""Transferability scores: how well a source model's features, outputs or gradients suit a target task.

Every score is a pure function of arrays, ``score(features, labels, *, ...) -> float``, except `leep` and `nce`, which
take the source model's logits in place of features, `ncti_terms`, which returns three floats, and `gradient_ratio`,
which takes a model and images (and alone needs torch). `suite` computes many at once, sharing what they share;
`REGISTRY` tells what each needs and means.

The arrays: n points of the target in d columns, the penultimate features of the source model; its logits (n, source
classes), the outputs of its own head before softmax; labels in C classes. Features and logits are float32, float64 or
integers; labels are any integers or strings, as (n,) or (n, 1), with gaps. Nothing is modified; no global random state
is read or moved.

Bad arrays (NaN or infinity, a wrong shape or number, a single class, features that are the same in every row) are a
``ValueError`` of one line naming the argument and the reason; so is what a score cannot do, listed under its "Raises".
All else gives a finite number, or, where a number would mislead, NaN and a `ScoreWarning` with the reason.

``variant="published"`` reproduces the released numbers, quirks included; ``"corrected"`` (the default) mends them.
``random_state`` (int, RandomState or None) seeds chance; None draws afresh. Measured costs, and what each score gives
under shuffled labels, stand on the page of all scores.
"""

from companion.scores._arrays import ScoreWarning, stratified_subsample
from companion.scores._suite import Scores, suite
from companion.scores.combination import (
    INVERTED_ACROSS_DOMAINS,
    PAPER_SCORE,
    TERMS,
    combine,
    combine_ncti,
    min_max,
    with_combined,
)
from companion.scores.gbc import gbc
from companion.scores.gradient_ratio import gradient_ratio
from companion.scores.hscore import hscore
from companion.scores.knn import knn
from companion.scores.lda import lda
from companion.scores.leep import leep
from companion.scores.linear_probe import linear_probe
from companion.scores.logme import logme
from companion.scores.nca import nca
from companion.scores.nce import nce
from companion.scores.ncti import NCTITerms, ncti_terms
from companion.scores.nleep import nleep
from companion.scores.parc import parc
from companion.scores.registry import REGISTRY, ScoreInfo
from companion.scores.sfda import sfda
from companion.scores.transrate import transrate

# fmt: off
__all__ = [
    "PAPER_SCORE", "INVERTED_ACROSS_DOMAINS", "NCTITerms", "REGISTRY", "ScoreInfo", "ScoreWarning", "Scores",
    "TERMS", "combine", "combine_ncti", "gbc", "gradient_ratio", "hscore", "knn", "lda", "leep",
    "linear_probe", "logme", "min_max", "nca", "nce", "ncti_terms", "nleep", "parc", "sfda",
    "stratified_subsample", "suite", "transrate", "with_combined",
]
# fmt: on
