"""Adapters: what the ports are made of."""
