"""What each score is called, needs and means, so that tables, notebooks and pages list themselves."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

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
from companion.scores.ncti import ncti_terms
from companion.scores.nleep import nleep
from companion.scores.parc import parc
from companion.scores.sfda import sfda
from companion.scores.transrate import transrate

BOTH = ("published", "corrected")
INPUTS = ("features", "logits", "images", "labels")


@dataclass(frozen=True)
class ScoreInfo:
    """One score.

    Attributes
    ----------
    name : str
        Key in `REGISTRY`, and column name in tables.
    function : callable
        The score; takes the inputs in the order of `inputs` (images after a model) and keyword options.
    inputs : tuple of str
        Among "features", "logits", "images", "labels".
    higher_is_better : bool
        Direction, before any inversion that a setting asks for.
    title : str
        Name for people.
    reference : str
        Short citation.
    doi_or_arxiv : str
        Where to find the paper.
    variants : tuple of str
        Values that `variant` takes; empty where published and corrected are the same.
    proposed_term : bool
        Whether it is a term of the score that the paper proposes.
    pooled : bool
        Whether the score exists only over a pool of sources; `function` then returns its terms for one
        source.
    """

    name: str
    function: Callable[..., Any]
    inputs: tuple[str, ...]
    higher_is_better: bool
    title: str
    reference: str
    doi_or_arxiv: str
    variants: tuple[str, ...] = ()
    proposed_term: bool = False
    pooled: bool = False


_FEATURES = ("features", "labels")
_LOGITS = ("logits", "labels")
_PAPER = "Juodelyte et al. 2024"

_ALL = (
    ScoreInfo("nca", nca, _FEATURES, True, "NCA", _PAPER, "arXiv:2412.20172", BOTH, proposed_term=True),
    ScoreInfo(
        "gradient_ratio",
        gradient_ratio,
        ("images", "labels"),
        True,
        "Gradient ratio",
        _PAPER,
        "arXiv:2412.20172",
        BOTH,
        proposed_term=True,
    ),
    ScoreInfo(
        "gradient_ratio_scale_invariant",
        functools.partial(gradient_ratio, variant="scale_invariant"),
        ("images", "labels"),
        True,
        "Gradient ratio, scale-invariant",
        "this package",
        "arXiv:2412.20172",
    ),
    ScoreInfo("lda", lda, _FEATURES, True, "LDA", _PAPER, "arXiv:2412.20172", BOTH),
    ScoreInfo("logme", logme, _FEATURES, True, "LogME", "You et al. 2021", "arXiv:2102.11005", BOTH),
    ScoreInfo("leep", leep, _LOGITS, True, "LEEP", "Nguyen et al. 2020", "arXiv:2002.12462"),
    ScoreInfo("nleep", nleep, _FEATURES, True, "NLEEP", "Li et al. 2021", "arXiv:2011.11200", BOTH),
    ScoreInfo("sfda", sfda, _FEATURES, True, "SFDA", "Shao et al. 2022", "arXiv:2207.03036", BOTH),
    ScoreInfo("parc", parc, _FEATURES, True, "PARC", "Bolya et al. 2021", "arXiv:2111.06977", BOTH),
    ScoreInfo(
        "ncti",
        ncti_terms,
        _FEATURES,
        True,
        "NCTI",
        "Wang et al. 2023",
        "https://openaccess.thecvf.com/ICCV2023",
        BOTH,
        pooled=True,
    ),
    ScoreInfo(
        "hscore", hscore, _FEATURES, True, "H-score (regularised)", "Ibrahim et al. 2022", "arXiv:2110.06893"
    ),
    ScoreInfo("nce", nce, _LOGITS, True, "NCE", "Tran et al. 2019", "arXiv:1908.08142"),
    ScoreInfo("transrate", transrate, _FEATURES, True, "TransRate", "Huang et al. 2022", "arXiv:2106.09362"),
    ScoreInfo("gbc", gbc, _FEATURES, True, "GBC", "Pándy et al. 2022", "arXiv:2111.12780"),
    ScoreInfo(
        "knn", knn, _FEATURES, True, "k-NN accuracy", "Cover and Hart 1967", "doi:10.1109/TIT.1967.1053964"
    ),
    ScoreInfo(
        "linear_probe",
        linear_probe,
        _FEATURES,
        True,
        "Linear probe accuracy",
        "Alain and Bengio 2017",
        "arXiv:1610.01644",
    ),
)

REGISTRY: dict[str, ScoreInfo] = {info.name: info for info in _ALL}


def available(inputs: Iterable[str] | None = None) -> list[str]:
    """Names of the scores that can be computed from the given inputs, in the registry's order.

    Parameters
    ----------
    inputs : iterable of str, optional
        What there is, among "features", "logits", "images" and "labels". Labels are always needed and may be
        left out here. All scores are listed where nothing is given.

    Returns
    -------
    list of str
        Names, to be looked up in `REGISTRY`.
    """
    if inputs is None:
        return list(REGISTRY)
    given = {inputs} if isinstance(inputs, str) else set(inputs)
    unknown = sorted(given - set(INPUTS))
    if unknown:
        raise ValueError(f"inputs: among {', '.join(map(repr, INPUTS))} are needed, found {unknown[0]!r}")
    return [name for name, info in REGISTRY.items() if set(info.inputs) <= given | {"labels"}]
