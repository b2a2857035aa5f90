"""The Ogent agent."""
