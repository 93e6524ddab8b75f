"""The notebooks: their parameters, the check cell, the foot of the page, execution, and the book.

A notebook imports `check` and `foot`; the command line uses the rest.
"""

from companion.notebooks.inside import Run, check, foot
from companion.notebooks.parameters import NOTEBOOKS, NotebookParameters, parse, resolve

__all__ = ["NOTEBOOKS", "NotebookParameters", "Run", "check", "foot", "parse", "resolve"]
