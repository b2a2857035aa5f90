"""The small process that owns the commands and outlives the agent, and the way to it."""
