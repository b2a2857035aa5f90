"""The SQL database: its tables, its migrations and the threads that use it."""
