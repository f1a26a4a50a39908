"""Policies with obligations for the road's tests."""

from __future__ import annotations

from pathlib import Path


def permitting(directory: Path, *annotations: str, when: str = "context has session") -> str:
    """The file of a policy that permits everything of a session, with these annotations."""
    path = directory / "limited.cedar"
    rule = f'@id("limited") {" ".join(annotations)}\npermit (principal, action, resource) when {{ {when} }};\n'
    path.write_text(rule)
    return str(path)
