"""What the agent does, in terms of ports."""
