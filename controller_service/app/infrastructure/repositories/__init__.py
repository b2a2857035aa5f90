"""Repositories over SQL and in memory."""
