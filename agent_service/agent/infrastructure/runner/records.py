"""What lies in the spool of each command, and the form of each part: the runner writes it.

Part of the runner: nothing here but what Python itself starts with.

- `stdout-N`, `stderr-N`: the bytes of a stream, SEGMENT_BYTES to a file, N counting from 0.
- `index-N`: records of INDEX_RECORD, INDEX_RECORDS to a file, in the order in which output came.
- `facts`: framed: what is to be started, what was, how it ended.
- `progress`: framed, and the agent's: digests of what was sent, and gaps.

Each file's name begins with the command's and a dot. A folder for each command would be tidier, and
slower than all else that the runner does: ext4 takes ten times as long for removing a folder.
"""

from __future__ import annotations

import json
import struct
import zlib

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import Any, Final

SEGMENT_BYTES: Final = 1024 * 1024
INDEX_RECORDS: Final = 8192
STREAMS: Final = ("stdout", "stderr")
FACTS: Final = "facts"
#: The agent's own: what of the output it has hashed, and what cannot be read.
PROGRESS: Final = "progress"

#: Stream (its place in STREAMS), length, offset of the first byte in its stream, microseconds
#: since 1970 when it came, CRC-32 of the bytes, CRC-32 of the record before this field.
INDEX_RECORD: Final = struct.Struct("<B3xIQqII")
_INDEX_FACTS: Final = struct.Struct("<B3xIQqI")

#: Before every framed fact: what finds the next one after damage; its length; CRC-32 of both
#: the length and the bytes that follow.
FRAME_MARK: Final = b"\xf5OG\x01"
_FRAME_HEAD: Final = struct.Struct("<4sII")
#: No framed fact is longer: the largest is an order, whose text and input are bounded.
FRAME_MAX_BYTES: Final = 4 * 1024 * 1024


def segment_name(stream: int, number: int) -> str:
    """The file of one segment of a stream."""
    return f"{STREAMS[stream]}-{number:08d}"


def index_name(number: int) -> str:
    """The file of one part of the index."""
    return f"index-{number:08d}"


def pack_index(stream: int, length: int, offset: int, at_us: int, crc: int) -> bytes:
    """One record of the index."""
    facts = _INDEX_FACTS.pack(stream, length, offset, at_us, crc)
    return facts + zlib.crc32(facts).to_bytes(4, "little")


def unpack_index(record: bytes) -> tuple[int, int, int, int, int] | None:
    """Stream, length, offset, time and checksum of a record; None where it is damaged."""
    *facts, own = INDEX_RECORD.unpack(record)
    if zlib.crc32(record[:-4]) != own or facts[0] >= len(STREAMS):
        return None
    return facts[0], facts[1], facts[2], facts[3], facts[4]


def frame(payload: bytes) -> bytes:
    """`payload` with its mark, length and checksum."""
    length = struct.pack("<I", len(payload))
    return _FRAME_HEAD.pack(FRAME_MARK, len(payload), zlib.crc32(length + payload)) + payload


class Damage:
    """Bytes between two frames that are none; `is_tail`: a last one that was begun, not ended."""

    __slots__ = ("is_tail", "offset", "raw")

    def __init__(self, offset: int, raw: bytes, *, is_tail: bool) -> None:
        self.offset = offset
        self.raw = raw
        self.is_tail = is_tail


def frames_in(data: bytes) -> Iterator[bytes | Damage]:
    """Every frame's payload, in order; what lies between them as Damage.

    A damaged frame costs itself: reading goes on at the next place where a whole one begins.
    """
    at = begin = 0
    while at < len(data):
        payload = _frame_at(data, at)
        if payload is None:
            at = data.find(FRAME_MARK, at + 1)
            if at < 0:
                break
            continue
        if begin < at:
            yield Damage(begin, data[begin:at], is_tail=False)
        yield payload
        at = begin = at + _FRAME_HEAD.size + len(payload)
    if begin < len(data):
        raw = data[begin:]
        yield Damage(begin, raw, is_tail=_is_begun(raw))


def _frame_at(data: bytes, at: int) -> bytes | None:
    if at + _FRAME_HEAD.size > len(data):
        return None
    mark, length, crc = _FRAME_HEAD.unpack_from(data, at)
    begin = at + _FRAME_HEAD.size
    if mark != FRAME_MARK or length > FRAME_MAX_BYTES or begin + length > len(data):
        return None
    payload = data[begin : begin + length]
    return payload if zlib.crc32(struct.pack("<I", length) + payload) == crc else None


def _is_begun(raw: bytes) -> bool:
    """Whether `raw` is the beginning of one frame that was not written to its end."""
    if len(raw) < _FRAME_HEAD.size:
        return raw[: len(FRAME_MARK)] == FRAME_MARK[: len(raw)]
    mark, length, _ = _FRAME_HEAD.unpack_from(raw)
    return bool(mark == FRAME_MARK) and _FRAME_HEAD.size + length > len(raw)


def to_json(facts: dict[str, Any]) -> bytes:
    """Facts as bytes; any text that Python can hold survives."""
    text = json.dumps(facts, ensure_ascii=False, separators=(",", ":"))
    return text.encode("utf-8", "surrogatepass")


def from_json(data: bytes) -> dict[str, Any]:
    """The facts; raises ValueError where they are none."""
    facts = json.loads(data.decode("utf-8", "surrogatepass"))
    if not isinstance(facts, dict):
        raise ValueError("not an object")
    return facts
