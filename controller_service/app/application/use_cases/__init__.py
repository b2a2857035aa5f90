"""One use case per file, each a verb phrase."""
