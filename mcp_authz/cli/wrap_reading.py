"""What a client's file asks to be started: read, filled in, shown to the letter, and agreed to."""

from __future__ import annotations

import os
import shlex
from collections.abc import Mapping
from dataclasses import dataclass

from mcp_authz.cli.asking import Stopped, agreed, ask, ask_hidden
from mcp_authz.cli.output import say
from mcp_authz.rules.display import visible
from mcp_authz.wrap import client_file
from mcp_authz.wrap.client_file import ClientFile, Where
from mcp_authz.wrap.entry import Entry, Left, read_entry
from mcp_authz.wrap.secret import secret_arguments
from mcp_authz.wrap.variables import Variables, inputs_in


@dataclass(frozen=True, slots=True, kw_only=True)
class Found:
    """What stands in a client's file: servers to move, by a key of their own, and servers that stay."""

    entries: Mapping[str, tuple[Where, Entry]]
    left: tuple[Left, ...]
    ours: bool  # whether an entry leads to the gateway already


def found_in(file: ClientFile, *, keep: frozenset[str], asks: bool) -> Found:
    """Return every server of the file, read; what its client would ask the user for is asked here if `asks`."""
    entries: dict[str, tuple[Where, Entry]] = {}
    left: list[Left] = []
    ours = False
    answers = _answers(file) if asks else _usual_answers(file)
    for place in file.places:
        variables = Variables(
            expands=file.client.expands, project=place.project, environment=os.environ, answers=answers
        )
        for name, value in place.servers.items():
            if client_file.is_ours(value):
                ours = True
                continue
            match read_entry(name, value, variables, keep=keep):
                case Entry() as entry:
                    entries[str(len(entries) + 1)] = (place.where, entry)
                case Left() as stays:
                    left.append(stays)
    return Found(entries=entries, left=tuple(left), ours=ours)


def introduce(file: ClientFile, found: Found, *, asks: bool) -> None:
    """What will be run was shown, and the person has agreed if they are asked at all.

    Raises:
        Stopped: they have not.
    """
    say(f"{file.client.title}: {file.path}")
    say("these servers are started once, to list their tools:")
    for where, entry in found.entries.values():
        of = f" (of {visible(where[1])})" if len(where) > 1 else ""
        say(f"  {visible(entry.name)}{of}: {visible(shown_command(entry, hide=not asks))}")
    if not asks:
        return
    foreign = any(place.project is not None for place in file.places)
    if foreign:
        say("the file belongs to a project: whoever wrote it chose these commands")
    if not agreed("start them?", usually=not foreign):
        raise Stopped("stopped; nothing was started and nothing was changed")


def shown_command(entry: Entry, *, hide: bool) -> str:
    """What is run, or the URL; `hide` what looks like a secret where nobody decides by what they see."""
    if entry.url is not None:
        return entry.url.partition("?")[0]
    secret = {at + 1 for at in secret_arguments(entry.command[1:])} if hide else set()
    return shlex.join("<hidden>" if at in secret else word for at, word in enumerate(entry.command))


def _usual_answers(file: ClientFile) -> dict[str, str]:
    return {key: item["default"] for key, item in file.inputs.items() if isinstance(item.get("default"), str)}


def _answers(file: ClientFile) -> dict[str, str]:
    answers = _usual_answers(file)
    used = {key for place in file.places for key in inputs_in(file.text[place.node.start : place.node.end])}
    for key in sorted(used & file.inputs.keys()):
        item = file.inputs[key]
        usual = answers.get(key, "")
        question = f"{visible(str(item.get('description') or key))}{f' [{visible(usual)}]' if usual else ''}:"
        answer = ask_hidden(question) if item.get("password") else ask(question)
        if answer or usual:
            answers[key] = answer or usual
    return answers
