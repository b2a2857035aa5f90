"""The way to the controller."""
