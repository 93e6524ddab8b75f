"""What each score is called, needs and means, so that tables, notebooks and pages list themselves."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

from companion.scores.gbc import gbc
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


def gradient_ratio(
    model: Any,
    images: Any,
    labels: Any,
    *,
    variant: str = "corrected",
    loss: str = "triplet",
    batch_size: int | None = None,
    device: Any = None,
    random_state: int = 0,
) -> float:
    r"""Ratio of the gradient norms of the second and the first convolution under a triplet-margin loss.

    .. math:: \frac{\tfrac1B\sum_b \lVert\partial L_b/\partial W_2\rVert_2}
                   {\tfrac1B\sum_b \lVert\partial L_b/\partial W_1\rVert_2}

    Parameters
    ----------
    model : SourceModel or torch.nn.Module
        The source model, or a plain network whose last linear layer is taken off.
    images : ndarray of shape (n, h, w) or (n, h, w, 3)
        uint8, in random order.
    labels : array-like of shape (n,)
        Target labels.
    variant : {"corrected", "published"}, default "corrected"
        "published": every batch counts. "corrected": a batch without a valid triplet does not.
    loss : {"triplet", "cross_entropy"}, default "triplet"
        The score's loss, or cross-entropy with a random linear head for comparison.
    batch_size : int, optional
        Images a batch; n // 6 by default.
    device : str or torch.device, optional
        Where to run; the fastest there is by default.
    random_state : int, default 0
        Seed of the random head.

    Returns
    -------
    float
        Above 0, without an upper bound; higher is better among sources of one architecture.

    Raises
    ------
    ValueError
        No batch holds a valid triplet, or the network has no two convolutions.

    Notes
    -----
    The only score that needs torch, which is imported when this is called. Cost: one forward and one backward
    pass through the network. Weaknesses: depends on the order of the images, on the batch size and so on n,
    and on the scale of the first two layers' weights.

    References
    ----------
    Juodelyte et al. (2024). On dataset transferability in medical image classification. arXiv:2412.20172.
    """
    from companion.scores._gradient import gradient_ratio as function

    return function(
        model,
        images,
        labels,
        variant=variant,
        loss=loss,
        batch_size=batch_size,
        device=device,
        random_state=random_state,
    )


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
