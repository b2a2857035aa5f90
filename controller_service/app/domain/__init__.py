"""The rules of dispatch: who asked for what, where it stands, and what may follow."""
