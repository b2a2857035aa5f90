"""What an execution is, without any library."""
