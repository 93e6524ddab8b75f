"""Score sources for one target, combine, and say what the order is worth.

The combined score is relative to its candidate set. Sources of one architecture and different pre-training form one
set; different architectures with one pre-training form another, in which the paper inverts both terms. The two are
never merged; too few of either kind are compared by the scores of their features alone.
"""

from companion.ranking.candidates import default_sources
from companion.ranking.evidence import elsewhere
from companion.ranking.ranking import Ranking, rank
from companion.ranking.report import duration
from companion.ranking.scoring import DEFAULT_SCORES, Scored, score
from companion.ranking.sets import MIN_CANDIDATES, CandidateSet, agreement, order
from companion.ranking.stability import MIN_REPEATS, Stability, stability
from companion.ranking.verification import Verification, check_verifiable, verify

# fmt: off
__all__ = [
    "DEFAULT_SCORES", "MIN_CANDIDATES", "MIN_REPEATS", "CandidateSet", "Ranking", "Scored", "Stability",
    "Verification", "agreement", "check_verifiable", "default_sources", "duration", "elsewhere", "order", "rank",
    "score", "stability", "verify",
]
# fmt: on
