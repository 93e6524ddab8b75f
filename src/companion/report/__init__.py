"""A first look at a target as people and programs read it."""

from companion.report.look import LOOK_FILES, look_as_text, write_look

__all__ = ["LOOK_FILES", "look_as_text", "write_look"]
