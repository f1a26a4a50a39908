"""mcp-authz: an authorization gateway for MCP tool servers."""
