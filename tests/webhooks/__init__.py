"""Webhooks: what is sent, to whom, and which answers count."""
