"""Adapters: the ports of the application, each over one technology."""
