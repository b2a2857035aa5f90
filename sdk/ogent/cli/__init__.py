"""The `ogent` command line."""
