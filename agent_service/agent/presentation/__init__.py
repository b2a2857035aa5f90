"""What the controller may ask of the agent."""
