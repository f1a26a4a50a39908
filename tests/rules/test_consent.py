"""What a person is asked: never more than was asked for or than there is, in words that are not the client's."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from mcp_authz.model import Classification, Hazard, Tool, ToolName
from mcp_authz.rules.consent import everything, offer, to_ask, useful, widest
from mcp_authz.rules.scope import Scope, ScopeTemplate, covered, parse_scopes

READ, WRITE, DESTROY = Hazard.READ, Hazard.WRITE, Hazard.DESTRUCTIVE


def tool(name: str, hazard: Hazard, *scopes: str, server: str = "files") -> Tool:
    classified = Classification(
        action=name, hazard=hazard, scopes=tuple(ScopeTemplate.parse(scope) for scope in scopes)
    )
    return Tool(
        name=ToolName(f"{server}__{name}"),
        server=server,
        tool=name,
        environment="local",
        definition={"name": name, "inputSchema": {}},
        digest=b"",
        classification=classified,
    )


TOOLS = (
    tool("read", READ, "files:read"),
    tool("list", READ, "files:read"),
    tool("write", WRITE, "files:write"),
    tool("delete", DESTROY, "files:write", "files:delete"),
    tool("open_pull", WRITE, "pr:write:{owner}:{repo}", server="acme"),
)


def offered(*scopes: str, asked: bool = True, **words: str) -> list[tuple[str, str, bool]]:
    """Scope, words and whether it is chosen, in the order in which a person reads them."""
    said = {name.replace("_", ":"): text for name, text in words.items()}
    found = offer(
        parse_scopes(scopes), TOOLS, words=said, is_held=lambda t: t.classification.hazard is DESTROY, asked=asked
    )
    return [(one.scope, one.words, one.chosen) for one in found]


def test_everything_covers_each_call_of_each_tool_and_names_arguments_by_a_star() -> None:
    assert everything(TOOLS) == parse_scopes("files:read files:write files:delete pr:write:*:*")
    assert widest(ScopeTemplate.parse("pr:{owner}:x")) == "pr:*:x"


def test_a_scope_that_another_covers_can_be_agreed_to_alone() -> None:
    assert everything([tool("a", READ, "deploy:read"), tool("b", DESTROY, "deploy:{environment}")]) == parse_scopes(
        "deploy:read deploy:*"
    )


def test_a_scope_that_opens_only_what_no_server_has_is_of_no_use() -> None:
    scopes = parse_scopes("files:read files:write files:delete pr:write:*:* mail")
    left = useful(scopes, TOOLS, has=lambda tool: tool.server == "files" and tool.tool != "delete")
    assert left == parse_scopes("files:read files:write mail")  # `mail` may be of a server to come


def test_very_many_scopes_are_put_together_by_server() -> None:
    many = [tool(f"t{number}", WRITE, f"mail:t{number}", server="mail") for number in range(100)]
    assert everything([*many, *TOOLS]) == parse_scopes("mail files pr")


def test_a_client_that_names_nothing_is_offered_all_and_what_only_reads_is_chosen() -> None:
    assert to_ask(None, everything(TOOLS)) == everything(TOOLS)
    assert offered(*everything(TOOLS), asked=False) == [
        ("files:read", "Read, list, with files", True),
        ("pr:write:*:*", "Open pull, with acme", False),
        ("files:delete", "Delete, with files", False),
        ("files:write", "Write, delete, with files", False),
    ]


def test_a_client_that_names_scopes_is_offered_those_and_they_are_chosen() -> None:
    asked = to_ask(parse_scopes("files:read pr:write:acme:api other:thing"), everything(TOOLS))
    assert asked == parse_scopes("files:read pr:write:acme:api")
    assert offered(*asked) == [
        ("files:read", "Read, list, with files", True),
        ("pr:write:acme:api", "Open pull, with acme (owner acme, repo api)", True),
    ]


def test_a_scope_that_is_wider_than_what_there_is_is_taken_apart() -> None:
    assert to_ask(parse_scopes("files"), everything(TOOLS)) == parse_scopes("files:read files:write files:delete")
    assert to_ask(parse_scopes("pr:*:acme:*"), parse_scopes("pr:write:*:*")) == frozenset()


def test_the_operators_words_are_used_the_closest_first() -> None:
    words = {"files": "Use files", "files_write": "Write files"}
    assert offered("files:write", "files:read", **words) == [
        ("files:read", "Use files", True),
        ("files:write", "Write files", True),
    ]


def test_a_scope_of_many_tools_says_what_the_worst_of_them_does() -> None:
    many = [
        tool(name, hazard, "mail", server="mail")
        for name, hazard in zip("abcd", (READ, READ, WRITE, READ), strict=True)
    ]
    (one,) = offer([Scope("mail")], many, words={}, is_held=lambda _: False, asked=True)
    assert one.words == "Change things with mail"


def test_names_of_tools_are_read_as_words() -> None:
    (one,) = offer([Scope("x")], [tool("getUserName_v2", READ, "x")], words={}, is_held=lambda _: False, asked=True)
    assert one.words == "Get user name v2, with files"


def test_what_a_scope_opens_is_named_with_its_hazard_and_whether_each_call_is_held() -> None:
    (write,) = offer([Scope("files:write")], TOOLS, words={}, is_held=lambda t: t.tool == "delete", asked=True)
    assert [(one.name, one.hazard, one.held) for one in write.tools] == [
        ("write", WRITE, False),
        ("delete", DESTROY, True),
    ]
    assert write.hazard is DESTROY


def test_a_scope_that_opens_nothing_is_taken_for_the_worst_and_not_chosen() -> None:
    (one,) = offer([Scope("mail")], TOOLS, words={}, is_held=lambda _: False, asked=False)
    assert (one.words, one.hazard, one.chosen) == ("mail", DESTROY, False)


SEGMENTS = st.sampled_from(["a", "b", "c", "*"])
SCOPES = st.lists(SEGMENTS, min_size=1, max_size=4).map(lambda parts: Scope(":".join(parts)))


@given(asked=st.frozensets(SCOPES, max_size=4), ceiling=st.frozensets(SCOPES, max_size=4))
def test_nothing_is_asked_that_the_ceiling_does_not_cover_and_that_nobody_asked_for(
    asked: frozenset[Scope], ceiling: frozenset[Scope]
) -> None:
    found = to_ask(asked, ceiling)
    assert all(covered(scope, ceiling) and covered(scope, asked) for scope in found)
    assert all(scope in found for scope in asked if covered(scope, ceiling))
