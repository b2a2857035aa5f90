"""Aggregates and values of dispatch."""
