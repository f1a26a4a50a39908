"""`mcp-authz policy`: the tools of those who write policies; each command is a module of its own."""

from __future__ import annotations

import typer

from mcp_authz.cli import policy_explain, policy_lint, policy_replay, policy_shadow, policy_suggest, policy_test

app = typer.Typer(rich_markup_mode=None, no_args_is_help=True, add_completion=False)


@app.callback()
def _group() -> None:
    """Policies: test them, look for mistakes in them, see why a call is decided as it is."""


app.command("test")(policy_test.test)
app.command("lint")(policy_lint.lint)
app.command("explain")(policy_explain.explain_)
app.command("shadow")(policy_shadow.shadow)
app.command("replay")(policy_replay.replay)
app.command("suggest")(policy_suggest.suggest)
