"""Orders, executions and their output."""
