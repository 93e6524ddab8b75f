"""Score sources for one target, combine, and say what the order is worth.

The combined score is relative to its candidate set. Sources of one architecture and different pre-training form one
set; different architectures with one pre-training form another, in which the paper inverts both terms. The two are
never merged.
"""

from companion.ranking.candidates import Candidate, candidates, default_sources
from companion.ranking.ranking import Ranking, check_sources, rank
from companion.ranking.report import duration
from companion.ranking.scoring import DEFAULT_SCORES, score
from companion.ranking.sets import MIN_CANDIDATES, CandidateSet, agreement, candidate_sets, order
from companion.ranking.stability import MIN_REPEATS, Stability, stability, stability_cost
from companion.ranking.verification import Verification, check_verifiable, verify

__all__ = [
    "DEFAULT_SCORES",
    "MIN_CANDIDATES",
    "MIN_REPEATS",
    "Candidate",
    "CandidateSet",
    "Ranking",
    "Stability",
    "Verification",
    "agreement",
    "candidate_sets",
    "candidates",
    "check_sources",
    "check_verifiable",
    "default_sources",
    "duration",
    "order",
    "rank",
    "score",
    "stability",
    "stability_cost",
    "verify",
]
