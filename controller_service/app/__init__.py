"""The Ogent controller."""
