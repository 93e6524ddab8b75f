"""Figures of the book as SVG: words stay words, and colours follow a light or a dark page."""

from __future__ import annotations

import base64
import functools
import io
import re
from collections.abc import Callable, Mapping
from html import escape

import matplotlib as mpl
from IPython.display import HTML, SVG
from matplotlib.figure import Figure

from companion.figures.style import BLUE, INK, PROPOSED

# Colours of a light page -> those of a dark one; what is in neither reads on both.
DARK = {
    "#ffffff": "#121212",
    "#000000": "#e6e6e6",
    "#b34700": "#ff9a57",
    INK.lower(): "#a8a8a8",
    BLUE.lower(): "#6cb6f0",
    PROPOSED.lower(): "#ff9a57",
}
# Lines behind what is drawn, which are to be seen less on either.
FAINT = {"#dddddd": "#333333", "#bbbbbb": "#555555"}


# With these matplotlib writes words as words, and the same file for the same figure.
WORDS = {"svg.fonttype": "none", "svg.hashsalt": "companion"}


def svg(figure: Figure) -> str:
    """Return a figure as SVG whose words stay words, and which follows a light or a dark page."""
    buffer = io.StringIO()
    with mpl.rc_context(WORDS | {"font.family": "sans-serif"}):
        figure.savefig(buffer, format="svg", metadata={"Date": None})
    return following(buffer.getvalue())


def following(drawing: str) -> str:
    """Return matplotlib's SVG with the colours of a dark page beside those of a light one, in fewer bytes.

    A hundredth of a point is as fine as anybody sees, and a notebook's file writes every line with its own indentation.
    """
    drawing = re.sub(r"(?s)<metadata>.*?</metadata>", "", drawing)
    drawing = re.sub(r"'DejaVu Sans', [^;\"]*sans-serif", "'DejaVu Sans', sans-serif", drawing)
    drawing = re.sub(r"\s*\n\s*", " ", re.sub(r"(\.\d\d)\d{3,}", r"\1", drawing))
    rules = "".join(
        f'{"path" if light == "#ffffff" else ""}[style*="{kind}: {light}"]{{{kind}:{dark}!important}}'
        for light, dark in (DARK | FAINT).items()  # white words stand on a colour of their own
        for kind in ("fill", "stroke")
    )
    # Matplotlib does not write the fill of black text.
    rules += f"text:not([style*='fill:']){{fill:{DARK['#000000']}}}"
    style = f"<style>@media (prefers-color-scheme: dark){{{rules}}}</style>"
    return re.sub(r"(<svg [^>]*>)", lambda found: found[1] + style, drawing, count=1)


def beside(panels: Mapping[str, Figure]) -> HTML:
    """Show figures beside each other where there is room, else below each other; keys are their alternative texts."""
    images = [
        f'<img class="dark-light" alt="{escape(alt)}" '
        f'src="data:image/svg+xml;base64,{base64.b64encode(svg(figure).encode()).decode()}">'
        for alt, figure in panels.items()
    ]
    return HTML(f'<div class="side-by-side">{"".join(images)}</div>')


def picture(function: Callable[[], Figure]) -> Callable[[], SVG]:
    """Make a function's figure one that a page can show."""
    return functools.wraps(function)(lambda: SVG(svg(function())))
