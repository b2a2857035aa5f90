"""Use cases of the controller, and the ports through which they reach the outside."""
