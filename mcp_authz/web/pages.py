"""Pages as HTML; the only door to jinja2: everything is escaped, and a name that is not there is an error."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any, Final

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup, escape
from starlette.responses import HTMLResponse

from mcp_authz import limits
from mcp_authz.administration import Actor
from mcp_authz.rules.administration import reaches_everything
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


def page(template: str, status: int = 200, /, *, now: datetime, who: Actor | None, **facts: Any) -> HTMLResponse:
    """The page that a template makes of the facts; `who` is signed in, and sees links to what is for them."""

    def reaches(command: str) -> bool:
        return who is not None and reaches_everything(command, who.roles)

    person = None if who is None else who.whose
    text = _TEMPLATES.get_template(f"{template}.html").render(now=now, person=person, reaches=reaches, **facts)
    return HTMLResponse(text, status)
