"""What the agent keeps."""
