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

    26 characters: 48 bits of milliseconds, then 80 random bits, as a ULID has them. Ids made by
    one source within one millisecond count up from the first, so that they sort in the order in
    which they were made. Safe to call from several threads.
    """

    def __init__(self) -> None:
        self._last = 0
        self._lock = threading.Lock()

    def __call__(self) -> str:
        """A new id."""
        fresh = time.time_ns() // 1_000_000 << _RANDOM_BITS | int.from_bytes(os.urandom(10))
        with self._lock:
            if fresh >> _RANDOM_BITS <= self._last >> _RANDOM_BITS:
                fresh = self._last + 1  # also when the clock was set back
            self._last = fresh
        return "".join(_ALPHABET[fresh >> shift & 31] for shift in range(125, -1, -5))
