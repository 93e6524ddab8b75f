"""Score sources for one target, combine, and say what the order is worth.

The combined score is relative to its pool. Sources of one architecture and different pre-training form one
pool; different architectures with one pre-training form another, in which the paper turns both terms round.
The two are never merged.
"""

from companion.ranking.at_hand import Candidate, candidates, default_sources
from companion.ranking.cost import fine_tuning_seconds
from companion.ranking.methods import agreement
from companion.ranking.pooling import SMALLEST_POOL, Pool, pools, rank_pool
from companion.ranking.scoring import DEFAULT_SCORES, score
from companion.ranking.stability import MIN_REPEATS, stability, stability_cost
from companion.ranking.table import rank
from companion.ranking.verification import first_sources, images_to_verify, verify

__all__ = [
    "MIN_REPEATS",
    "DEFAULT_SCORES",
    "SMALLEST_POOL",
    "Candidate",
    "Pool",
    "agreement",
    "candidates",
    "default_sources",
    "fine_tuning_seconds",
    "first_sources",
    "images_to_verify",
    "pools",
    "rank",
    "rank_pool",
    "stability",
    "stability_cost",
    "score",
    "verify",
]
