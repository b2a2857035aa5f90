"""MessagePack of orders, and the form of times.

`dict[str, Any]` is allowed here: this is where unknown bytes become known models.
"""

from datetime import UTC, datetime
from typing import Annotated, Any

import msgpack
from pydantic import BeforeValidator, PlainSerializer

from ogent.protocol.limits import FRAME_MAX_BYTES


class MalformedFrame(ValueError):
    """Bytes that are not the MessagePack map that was expected."""


def pack(value: dict[str, Any]) -> bytes:
    """`value` as MessagePack; the same value gives the same bytes, in the order of its keys."""
    packed: bytes = msgpack.packb(value, use_bin_type=True)
    return packed


def unpack(data: bytes) -> dict[str, Any]:
    """The MessagePack map in `data`; raises MalformedFrame for anything else or over the bound."""
    if len(data) > FRAME_MAX_BYTES:
        raise MalformedFrame(f"{len(data)} bytes are more than {FRAME_MAX_BYTES}")
    try:
        value = msgpack.unpackb(data, raw=False, strict_map_key=True)
    except (ValueError, msgpack.UnpackException) as exc:
        raise MalformedFrame(str(exc)) from exc
    if not isinstance(value, dict):
        raise MalformedFrame("not a map")
    return value


def format_time(at: datetime) -> str:
    """RFC 3339 in UTC with `Z` and microseconds; `at` must be aware."""
    return at.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")


def _aware(value: Any) -> Any:
    if isinstance(value, str):
        value = datetime.fromisoformat(value)
    if isinstance(value, datetime):
        if value.tzinfo is None:
            raise ValueError("a time needs its zone")
        try:
            value.astimezone(UTC)
        except OverflowError as exc:
            raise ValueError("a time has to lie within the years 1 to 9999 in UTC") from exc
    return value


#: An aware time that is written as `format_time` writes it.
Timestamp = Annotated[
    datetime, BeforeValidator(_aware), PlainSerializer(format_time, return_type=str)
]
