"""Figures of the book's pages as SVG: words stay words, and colours follow a light or a dark page."""

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


def svg(figure: Figure) -> str:
    """Return a figure as SVG whose words stay words, and which follows a light or a dark page."""
    buffer = io.StringIO()
    with mpl.rc_context({"svg.fonttype": "none", "svg.hashsalt": "companion", "font.family": "sans-serif"}):
        figure.savefig(buffer, format="svg", metadata={"Date": None})
    rules = "".join(
        f'[style*="{kind}: {light}"]{{{kind}:{dark}!important}}'
        for light, dark in DARK.items()
        for kind in ("fill", "stroke")
    )
    # Matplotlib does not write the fill of black text.
    rules += f"text:not([style*='fill:']){{fill:{DARK['#000000']}}}"
    style = f"<style>@media (prefers-color-scheme: dark){{{rules}}}</style>"
    return re.sub(r"(<svg [^>]*>)", lambda found: found[1] + style, buffer.getvalue(), count=1)


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
