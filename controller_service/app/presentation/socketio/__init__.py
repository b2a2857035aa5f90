"""The two Socket.IO doors."""
