"""Programs say tools and values; the closed shape that machines need is made of that."""

from __future__ import annotations

from typing import Any

import pytest

from mcp_authz.client import AgentIdentity, ConstraintError
from mcp_authz.client.agent_identity import leaf
from mcp_authz.rules.constraint import ToolsMap, parse_tools, to_json
from tests.client_library.chains import root

DEPLOY = {"type": "object", "properties": {"repo": {"type": "string"}, "ref": {"type": "string"}}}
MERGE = {"type": "object", "properties": {"repo": {"type": "string"}, "number": {"type": "integer"}}}
FREE = {"constraint_type": "optional", "constraint": {"constraint_type": "wildcard"}}
API = {"constraint_type": "exact", "value": "api"}


def given(tools: Any = None, where: Any = (), had: ToolsMap | None = None) -> Any:
    """The tools map of a link that is given with these."""
    planner, coder = AgentIdentity.generate("planner"), AgentIdentity.generate("coder")
    found = leaf(planner.delegate(root(planner, tools=had), to=coder, tools=tools, where=where)).tools
    return None if found is None else to_json(found)


def test_nothing_said_gives_every_tool_that_the_scopes_permit() -> None:
    assert given() is None


def test_names_alone_leave_the_arguments_open() -> None:
    assert given(["acme__deploy"]) == {"acme__deploy": {}}


def test_a_value_is_exact_and_the_other_arguments_of_the_schema_stay_free() -> None:
    assert given({"acme__deploy": DEPLOY}, {"repo": "api"}) == {"acme__deploy": {"repo": API, "ref": FREE}}


def test_a_list_means_one_of_and_a_constraint_means_itself() -> None:
    inside = {"constraint_type": "under", "root": "/srv"}
    found = given({"acme__deploy": DEPLOY}, {"repo": ["api", "web"], "ref": inside})
    assert found == {"acme__deploy": {"repo": {"constraint_type": "one_of", "values": ["api", "web"]}, "ref": inside}}


def test_a_value_is_never_read_as_a_form_that_people_type() -> None:
    assert given({"acme__deploy": DEPLOY}, {"repo": "under:/srv"})["acme__deploy"]["repo"]["value"] == "under:/srv"


def test_what_people_type_is_understood_too() -> None:
    found = given({"acme__deploy": DEPLOY}, ["repo=api"])
    assert found == {"acme__deploy": {"repo": API, "ref": FREE}}


def test_a_condition_can_be_for_one_tool() -> None:
    found = given({"acme__deploy": DEPLOY, "acme__merge": MERGE}, {"repo": "api", "acme__merge.number": 7})
    assert found["acme__merge"] == {"repo": API, "number": {"constraint_type": "exact", "value": 7}}
    assert found["acme__deploy"] == {"repo": API, "ref": FREE}


def test_without_tools_those_of_the_last_link_are_narrowed_and_need_no_schema() -> None:
    had = parse_tools({"acme__deploy": {"repo": {"constraint_type": "one_of", "values": ["api", "web"]}, "ref": FREE}})
    assert given(None, {"repo": "api"}, had) == {"acme__deploy": {"repo": API, "ref": FREE}}


def test_a_condition_without_a_schema_says_how_to_give_it() -> None:
    with pytest.raises(ConstraintError, match="give its input schema: tools="):
        given(["acme__deploy"], {"repo": "api"})


def test_a_condition_without_tools_or_of_an_unknown_argument_is_refused() -> None:
    with pytest.raises(ConstraintError, match="name them in `tools`"):
        given(None, {"repo": "api"})
    with pytest.raises(ConstraintError, match="no argument `branch`"):
        given({"acme__deploy": DEPLOY}, {"branch": "main"})
