"""What the SQL repositories need of a database."""

from collections.abc import Callable
from typing import Protocol, TypeVar

from sqlalchemy import Connection

T = TypeVar("T")


class Database(Protocol):
    """Runs functions over a SQLAlchemy Connection, in transactions."""

    async def write(self, work: Callable[[Connection], T]) -> T:
        """Run `work` in a transaction of its own; durable when this returns."""
        ...

    async def give_back(self) -> bool:
        """Return a bounded part of the room that is free to the file system; True for more."""
        ...

    async def read(self, work: Callable[[Connection], T]) -> T:
        """Run `work` over a snapshot."""
        ...
