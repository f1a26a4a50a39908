"""The MCP edge: reads requests, finds out who sends them, and writes what the road answers; decides nothing itself."""
