"""What the use cases need from outside: roles, not technologies."""
