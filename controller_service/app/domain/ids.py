"""Identifiers, each of its own type, and how new ones are made."""

import os
import threading
import time
from typing import Final, NewType

AgentId = NewType("AgentId", str)
CommandId = NewType("CommandId", str)
ControlId = NewType("ControlId", str)
SessionId = NewType("SessionId", str)
TokenId = NewType("TokenId", str)
UserName = NewType("UserName", str)

_ALPHABET: Final = "0123456789abcdefghjkmnpqrstvwxyz"
_RANDOM_BITS: Final = 80


class IdSource:
    """Makes ids that are URL-safe, unique and sorted by the time they were made.

    26 characters: 48 bits of milliseconds, then 80 random bits, as a ULID has them. Where the
    clock has not gone on since the last one (the same millisecond, or it was set back), an id lies
    up to 2**64 beyond it, so that ids sort in the order in which they were made and none can be
    guessed. `after` is an id that every new one comes after, such as the largest that an earlier
    process stored. Safe to call from several threads.
    """

    def __init__(self, after: str | None = None) -> None:
        self._last = 0 if after is None else _number(after)
        self._lock = threading.Lock()

    def __call__(self) -> str:
        """A new id."""
        fresh = time.time_ns() // 1_000_000 << _RANDOM_BITS | int.from_bytes(os.urandom(10))
        with self._lock:
            if fresh >> _RANDOM_BITS <= self._last >> _RANDOM_BITS:
                fresh = self._last + 1 + int.from_bytes(os.urandom(8))
            self._last = fresh
        return "".join(_ALPHABET[fresh >> shift & 31] for shift in range(125, -1, -5))


def _number(made: str) -> int:
    """What an IdSource wrote as `made`."""
    number = 0
    for character in made:
        number = number << 5 | _ALPHABET.index(character)
    return number
