"""An asynchronous Python client for an Ogent controller."""
