"""The options of `mcp-authz delegate`: who gives whom what, for how long, and where chain and keys are found."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path
from typing import Annotated

import typer

from mcp_authz import limits
from mcp_authz.cli.options import duration

To = Annotated[str | None, typer.Option(metavar="AGENT", help="Who gets it.")]
Tools = Annotated[
    list[str] | None,
    typer.Option(metavar="TOOL", help="Only this tool, such as files__read_file. Repeatable. Else all you have."),
]
Scope = Annotated[
    str | None, typer.Option(metavar="SCOPES", help="Only these scopes, separated by spaces. Else all you have.")
]
Where = Annotated[
    list[str] | None,
    typer.Option(
        metavar="CONDITION",
        help="What an argument has to be: repo=api, repo='api|web', branch!=main, path=under:/srv/app, "
        "amount=1..100. For one tool: TOOL.repo=api. Repeatable. Other arguments stay free.",
    ),
]
Exactly = Annotated[
    bool, typer.Option("--exactly", help="Permit no other arguments than those that a condition names.")
]
Lifetime = Annotated[
    timedelta,
    typer.Option(
        "--for",
        parser=duration(at_most=limits.SESSION_LIFETIME),
        metavar="DURATION",
        help="How long, as long as your own link at most.",
    ),
]
MaxCalls = Annotated[int | None, typer.Option(metavar="N", min=1, help="How many calls. Else as many as you have.")]
Depth = Annotated[int, typer.Option(metavar="N", min=0, help="How many steps it may delegate further.")]
Reason = Annotated[str, typer.Option(metavar="TEXT", help="Why; everybody further down can read it.")]
Delegator = Annotated[str | None, typer.Option("--as", metavar="AGENT", help="Who delegates.")]
Key = Annotated[
    Path | None,
    typer.Option(
        metavar="FILE", readable=False, help="The delegator's key. Else agents/AGENT.pem in the data directory."
    ),
]
Chain = Annotated[
    str | None,
    typer.Option(metavar="FILE", help="The delegator's own chain; `-` is stdin. Else its gateway is asked for it."),
]
Url = Annotated[str | None, typer.Option(metavar="URL", help="The gateway to ask. Else the local one.")]
Session = Annotated[str | None, typer.Option(metavar="ID", help="From which session, when the gateway is asked.")]
SaveChain = Annotated[
    Path | None, typer.Option(metavar="FILE", help="Keep the chain that the gateway gave, to delegate offline.")
]
Child = Annotated[
    str, typer.Option(metavar="NAME", help="Give it to a child of the delegator; its key comes with --to-key.")
]
ToKey = Annotated[
    str | None,
    typer.Option(metavar="FILE|JWK|URL", help="The delegate's public key. Else the gateway says it."),
]
Schema = Annotated[
    Path | None,
    typer.Option(
        metavar="FILE",
        readable=False,
        help="What the gateway answers to tools/list, where this machine does not know the tools.",
    ),
]
Out = Annotated[Path | None, typer.Option("--out", "-o", metavar="FILE", help="Where the chain goes. Else to stdout.")]
