"""Pages as HTML; the only door to jinja2: everything is escaped, and a name that is not there is an error."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any, Final

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup, escape
from starlette.responses import HTMLResponse

from mcp_authz import limits
from mcp_authz.rules.display import visible

_TEMPLATES: Final = Environment(
    loader=PackageLoader("mcp_authz.web"),
    autoescape=True,
    undefined=StrictUndefined,
    trim_blocks=True,
    lstrip_blocks=True,
    auto_reload=False,
)
_TEMPLATES.globals["limits"] = limits
_TEMPLATES.filters["visible"] = visible
_TEMPLATES.filters["breakable"] = lambda name: escape(name).replace("_", Markup("_<wbr>"))
_TEMPLATES.filters["iso"] = lambda at: at.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
_TEMPLATES.filters["utc"] = lambda at: at.astimezone(UTC).strftime("%Y-%m-%d %H:%M UTC")


def page(template: str, status: int = 200, /, *, now: datetime, person: str | None, **facts: Any) -> HTMLResponse:
    """The page that a template makes of the facts; `person` is who is signed in."""
    text = _TEMPLATES.get_template(f"{template}.html").render(now=now, person=person, **facts)
    return HTMLResponse(text, status)
