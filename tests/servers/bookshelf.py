"""A tool server with resources, templates, prompts and completion, and one tool; over stdio."""

from __future__ import annotations

from mcp.server.mcpserver import MCPServer
from mcp_types import Completion, CompletionArgument, CompletionContext, PromptReference, ResourceTemplateReference

server = MCPServer("bookshelf")


@server.resource("book://one")
def one() -> str:
    """The first book."""
    return "Call me Ishmael."


@server.resource("book://shelf/{title}")
def shelf(title: str) -> str:
    """Any book of the shelf."""
    return f"The text of {title}"


@server.prompt()
def review(title: str) -> str:
    """Ask for a review."""
    return f"Review {title}"


@server.tool()
def lend(title: str) -> str:
    """Lend a book."""
    return f"lent {title}"


@server.completion()
async def complete(
    ref: PromptReference | ResourceTemplateReference, argument: CompletionArgument, context: CompletionContext | None
) -> Completion:
    """Titles that begin with what was typed."""
    return Completion(values=[t for t in ("moby", "middlemarch") if t.startswith(argument.value)])


def main() -> None:
    server.run("stdio")


if __name__ == "__main__":
    main()
