"""Transferability scores: how well a source model's features, outputs or gradients suit a target task.

Every score is a pure function of arrays, ``score(features, labels, *, ...) -> float``, except `leep` and
`nce`, which take the source model's logits in place of features, `ncti_terms`, which returns three floats,
and `gradient_ratio`, which takes a model and images (and alone needs torch). `suite` computes many at once,
sharing what they share; `REGISTRY` tells what each needs and which way it points.

"Shuffled labels" figures in the docstrings are means over five seeds on this project's synthetic,
non-negative features (`benchmarks/scores.py --shuffled` prints them again).

What all scores promise of their arrays:

- features and logits in float32 or float64 (or integers); labels any integers or strings, as (n,) or (n, 1),
  with gaps; nothing is modified; no global random state is read or moved.
- a ``ValueError`` of one line, naming the argument and the reason, for NaN or infinity, a wrong shape or
  number, a single class, features that are the same in every row (all-zero among them), and whatever a score
  cannot do: too few points (`nleep` needs 5 a class), or a class of one point where a read-out leaves the
  point out (`nca`, `lda`, `knn`, `linear_probe`).
- a finite number for all else, among it constant and duplicate columns, n = 4, fewer columns or points than a
  score's components (32, 50, 64), a missing class index, features x 1e6 and x 1e-6.
- where a number would exist and mislead, NaN and a `ScoreWarning` with the reason (`sfda` saturated).

``variant="published"`` reproduces the released numbers, quirks included; ``"corrected"`` (the default) mends
them.
"""

from companion.scores._arrays import ScoreWarning, stratified_subsample
from companion.scores._suite import SuiteResult, suite
from companion.scores.combination import COMBINED, INVERTED_ACROSS_DOMAINS, TERMS, combine, min_max
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
from companion.scores.registry import REGISTRY, ScoreInfo, available
from companion.scores.sfda import sfda
from companion.scores.transrate import transrate

__all__ = [
    "COMBINED",
    "REGISTRY",
    "INVERTED_ACROSS_DOMAINS",
    "TERMS",
    "NCTITerms",
    "ScoreInfo",
    "ScoreWarning",
    "SuiteResult",
    "available",
    "combine",
    "gbc",
    "gradient_ratio",
    "hscore",
    "knn",
    "lda",
    "leep",
    "linear_probe",
    "logme",
    "min_max",
    "nca",
    "nce",
    "ncti_terms",
    "nleep",
    "parc",
    "sfda",
    "stratified_subsample",
    "suite",
    "transrate",
]
