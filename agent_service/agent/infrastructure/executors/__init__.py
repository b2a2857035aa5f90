"""Ways to run commands."""
