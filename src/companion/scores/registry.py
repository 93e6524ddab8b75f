"""What each score is called, needs and means, so that tables, notebooks and pages list themselves."""

import functools
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

from companion.errors import InputError, did_you_mean
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

TWO = ("published", "corrected")


@dataclass(frozen=True)
class ScoreInfo:
    """One score.

    Attributes
    ----------
    name, title, reference, doi_or_arxiv : str
        Key and column name, name for people, short citation, and where to find the paper.
    function : callable
        The score; takes the inputs in the order of `inputs` (images after a model) and keyword options.
    inputs : tuple of str
        Among "features", "logits", "images", "labels".
    variants : tuple of str
        Values that `variant` takes; empty where published and corrected are the same.
    pooled : bool
        Whether the score exists only over a candidate set; `function` then returns its terms for one source.
    """

    name: str
    function: Callable[..., Any]
    inputs: tuple[str, ...]
    title: str
    reference: str
    doi_or_arxiv: str
    variants: tuple[str, ...] = ()
    pooled: bool = False


_X, _Z, _I = ("features", "labels"), ("logits", "labels"), ("images", "labels")
_INVARIANT = functools.partial(gradient_ratio, variant="scale_invariant")
_PAPER = ("Juodelyte et al. 2024", "arXiv:2412.20172")
_NCTI = ("Wang et al. 2023", "https://openaccess.thecvf.com/ICCV2023")
_SCALED = ("Gradient ratio, scale-invariant", "this package, after Juodelyte et al. 2024", _PAPER[1])
_PROBE = ("Linear probe accuracy", "Alain and Bengio 2017", "arXiv:1610.01644")
_KNN = ("Cover and Hart 1967", "doi:10.1109/TIT.1967.1053964")
_ALL = (
    ScoreInfo("nca", nca, _X, "NCA", *_PAPER, TWO),
    ScoreInfo("gradient_ratio", gradient_ratio, _I, "Gradient ratio", *_PAPER, TWO),
    ScoreInfo("gradient_ratio_scale_invariant", _INVARIANT, _I, *_SCALED),
    ScoreInfo("lda", lda, _X, "LDA", *_PAPER, TWO),
    ScoreInfo("logme", logme, _X, "LogME", "You et al. 2021", "arXiv:2102.11005", TWO),
    ScoreInfo("leep", leep, _Z, "LEEP", "Nguyen et al. 2020", "arXiv:2002.12462"),
    ScoreInfo("nleep", nleep, _X, "NLEEP", "Li et al. 2021", "arXiv:2011.11200", TWO),
    ScoreInfo("sfda", sfda, _X, "SFDA", "Shao et al. 2022", "arXiv:2207.03036", TWO),
    ScoreInfo("parc", parc, _X, "PARC", "Bolya et al. 2021", "arXiv:2111.06977", TWO),
    ScoreInfo("ncti", ncti_terms, _X, "NCTI", *_NCTI, TWO, pooled=True),
    ScoreInfo("hscore", hscore, _X, "H-score (regularised)", "Ibrahim et al. 2022", "arXiv:2110.06893"),
    ScoreInfo("nce", nce, _Z, "NCE", "Tran et al. 2019", "arXiv:1908.08142"),
    ScoreInfo("transrate", transrate, _X, "TransRate", "Huang et al. 2022", "arXiv:2106.09362"),
    ScoreInfo("gbc", gbc, _X, "GBC", "Pándy et al. 2022", "arXiv:2111.12780"),
    ScoreInfo("knn", knn, _X, "k-NN accuracy", *_KNN),
    ScoreInfo("linear_probe", linear_probe, _X, *_PROBE),
)

REGISTRY: dict[str, ScoreInfo] = {info.name: info for info in _ALL}


def check_scores(names: Iterable[str]) -> None:
    """Raise an `InputError` that names the first unknown score."""
    for name in names:
        if name not in REGISTRY:
            near = did_you_mean(name, REGISTRY)
            raise InputError(f"no score {name!r}.{near or ' There are ' + ', '.join(REGISTRY)}")
