"""The agent's side of the gateway: it signs in with the agent's key and passes messages on; it decides nothing."""
