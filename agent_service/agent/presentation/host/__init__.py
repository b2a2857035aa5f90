"""The door for people on the agent's own host."""
