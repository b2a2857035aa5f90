"""One thing that the agent does per module."""
