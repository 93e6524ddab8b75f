"""Reports as pages: one HTML file each that opens without a connection; every name in it is escaped."""

import json
from pathlib import Path
from typing import Any

NOT_CLINICAL = "Research software, not for clinical use."


def render(template: str, **values: Any) -> str:
    """Fill ``ranking.html`` or ``tuning.html``, which lie here and share ``base.html``."""
    import jinja2

    environment = jinja2.Environment(loader=jinja2.FileSystemLoader(Path(__file__).parent), autoescape=True)
    return environment.get_template(template).render(not_clinical=NOT_CLINICAL, **values)


def json_able(document: dict[str, Any]) -> dict[str, Any]:
    """Turn a result's values into what JSON has: tables into a list of rows, what is not a number into null."""

    def plain(value: Any) -> Any:
        if hasattr(value, "to_dict"):  # a table
            return value.astype(object).where(value.notna(), None).to_dict("records")
        return value.item() if hasattr(value, "item") else str(value)

    return json.loads(json.dumps(document, default=plain), parse_constant=lambda _: None)
