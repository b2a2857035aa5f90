"""Passwords, tokens and seals."""
