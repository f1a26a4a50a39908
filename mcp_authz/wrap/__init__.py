"""Wrapping: the tool servers that an LLM client starts today move behind the gateway, and back."""
