"""Cedar policies about actions that no tool has: said and not refused, since a tool server may be away."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from typing import Final

from mcp_authz.config_policy import BUILTIN, form_of
from mcp_authz.policy.cedar_source import policies_in

_OURS: Final = frozenset({"delegate"})  # the actions that are not of tools


def unknown_actions(texts: Mapping[str, str], actions: Collection[str]) -> Iterator[str]:
    """Yield a sentence for each policy of the operator's own files whose head names an action that is not there.

    Args:
        texts: the policy's files that were loaded, entry to text.
        actions: the actions of the tools that are known now.
    """
    own = {name: text for name, text in texts.items() if not name.startswith(BUILTIN) and form_of(name) == "cedar"}
    for policy in policies_in(own):
        unknown = sorted((policy.actions or frozenset()) - _OURS - set(actions))
        if unknown:
            named = ", ".join(f"`{action}`" for action in unknown)
            yield f"{policy.place}: policy `{policy.id}` is about {named}, the action of no tool that is known now"
