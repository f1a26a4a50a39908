"""What `mcp-authz doctor` looks at: each part of an installation, what is found, and what to do about it."""
