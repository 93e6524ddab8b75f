"""Reports as pages: one HTML file each that opens without a connection; every name in it is escaped."""

from pathlib import Path
from typing import Any

NOT_CLINICAL = "Research software, not for clinical use."


def render(template: str, **values: Any) -> str:
    """Fill ``ranking.html`` or ``tuning.html``, which lie here and share ``base.html``."""
    import jinja2

    environment = jinja2.Environment(loader=jinja2.FileSystemLoader(Path(__file__).parent), autoescape=True)
    return environment.get_template(template).render(not_clinical=NOT_CLINICAL, **values)
