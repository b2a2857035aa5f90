"""What the agent needs from the outside."""
