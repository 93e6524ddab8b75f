"""Results as people and programs read them: text, JSON, CSV, pages."""

from companion.report.files import RANKING_FILES, check_folder
from companion.report.look import LOOK_FILES, look_as_text, write_look
from companion.report.ranking import (
    NOT_CLINICAL,
    Extras,
    as_document,
    as_page,
    as_text,
    context,
    contexts,
    duration,
    trivial,
    verdict,
    write,
)

__all__ = [
    "LOOK_FILES",
    "NOT_CLINICAL",
    "RANKING_FILES",
    "Extras",
    "as_document",
    "as_page",
    "as_text",
    "check_folder",
    "context",
    "contexts",
    "duration",
    "look_as_text",
    "trivial",
    "verdict",
    "write",
    "write_look",
]
