"""The `Range` header of RFC 9110, section 14, as far as one range of bytes."""

import re
from dataclasses import dataclass
from typing import Final

from app.domain.errors import RangeNotSatisfiable

_ONE_RANGE: Final = re.compile(r"bytes=(\d{0,19})-(\d{0,19})")


@dataclass(frozen=True, slots=True)
class ByteRange:
    """From `start` to before `end`."""

    start: int
    end: int


def requested_range(header: str | None, length: int) -> ByteRange | None:
    """What `header` asks of `length` bytes; None for all of them.

    A header in another form, or with several ranges, counts as none, as RFC 9110 allows. Raises
    RangeNotSatisfiable for a range that starts behind the end.
    """
    match = _ONE_RANGE.fullmatch(header.strip()) if header else None
    if match is None or match.groups() == ("", ""):
        return None
    first, last = match.groups()
    if not first:
        start, end = max(length - int(last), 0), length
    else:
        start, end = int(first), min(int(last) + 1, length) if last else length
        if last and int(last) < int(first):
            return None
    if start >= length:
        raise RangeNotSatisfiable(f"the stream has {length} bytes so far", length=length)
    return ByteRange(start, end)
