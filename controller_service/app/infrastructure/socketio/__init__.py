"""The Socket.IO way to agents."""
