"""The agent's side of the agents' door."""
