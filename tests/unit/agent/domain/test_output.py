import hashlib
from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.domain.models.output import (
    CHUNK_MAX_BYTES,
    DIGEST_BLOCK_BYTES,
    START,
    BlockDigest,
    Chunk,
    Piece,
    Position,
    Stream,
    Transcript,
    incomplete_tail,
)
from ogent.protocol import limits

AT = datetime(2026, 11, 21, tzinfo=UTC)


def test_the_bounds_are_those_of_the_protocol() -> None:
    assert CHUNK_MAX_BYTES == limits.CHUNK_MAX_BYTES
    assert DIGEST_BLOCK_BYTES == limits.DIGEST_BLOCK_BYTES


@pytest.mark.parametrize(
    "character", ["a", "ä", "€", "\ud7ff", "\uffff", "😀", "\U00040000", "\U0010ffff"]
)
def test_a_character_is_incomplete_until_its_last_byte(character: str) -> None:
    encoded = character.encode()
    for length in range(1, len(encoded)):
        assert incomplete_tail(b"x" + encoded[:length]) == length
    assert incomplete_tail(b"x" + encoded) == 0


@pytest.mark.parametrize(
    "invalid",
    [
        b"",
        b"\x80",
        b"\xc0",
        b"\xc1\x80",
        b"\xe0\x80",
        b"\xed\xa0",
        b"\xf0\x80",
        b"\xf4\x90",
        b"\xf5",
        b"\xff",
        b"\x80\x80\x80",
        b"\xf0\x9f\x98\x80\x80",
    ],
)
def test_what_can_never_become_a_character_is_not_waited_for(invalid: bytes) -> None:
    assert incomplete_tail(b"x" + invalid) == 0


@given(st.text(max_size=40), st.integers(0, 200))
def test_text_cut_anywhere_is_complete_without_its_tail(text: str, cut: int) -> None:
    begun = text.encode()[:cut]
    begun[: len(begun) - incomplete_tail(begun)].decode()


def feed(transcript: Transcript, *written: tuple[Stream, bytes]) -> list[Chunk]:
    """What `written` becomes, the ends of both streams included."""
    chunks: list[Chunk] = []
    offsets = dict.fromkeys(Stream, 0)
    for stream, data in written:
        chunks += transcript.feed(Piece(stream, offsets[stream], data, AT))
        offsets[stream] += len(data)
    for stream in Stream:
        chunks += transcript.break_off(stream)
    return chunks


@given(st.lists(st.tuples(st.sampled_from(list(Stream)), st.binary(min_size=1, max_size=9))))
def test_chunks_hold_exactly_what_was_written_in_order(written: list[tuple[Stream, bytes]]) -> None:
    place = START
    data = dict.fromkeys(Stream, b"")
    for chunk in feed(Transcript(START), *written):
        assert (chunk.seq, chunk.offset) == (place.next_seq, place.bytes_of(chunk.stream))
        assert chunk.other == place.bytes_of(chunk.stream.other)
        place = chunk.after
        data[chunk.stream] += chunk.data
    for stream in Stream:
        assert data[stream] == b"".join(part for wrote, part in written if wrote is stream)


def test_cutting_goes_on_from_any_place() -> None:
    chunks = feed(Transcript(Position(7, 100, 50)), (Stream.STDERR, b"e"), (Stream.STDOUT, b"o"))
    assert [(c.seq, c.offset, c.other) for c in chunks] == [(7, 50, 100), (8, 100, 51)]


def test_a_character_in_two_pieces_arrives_in_one_chunk() -> None:
    (chunk,) = feed(Transcript(START), (Stream.STDOUT, b"\xe2\x82"), (Stream.STDOUT, b"\xac!"))
    assert chunk.data == "€!".encode()


def test_half_a_character_at_the_end_is_kept() -> None:
    first, rest = feed(Transcript(START), (Stream.STDERR, b"a\xe2\x82"))
    assert (first.data, rest.data, rest.offset) == (b"a", b"\xe2\x82", 1)


def test_half_a_character_at_a_cut_may_be_dropped() -> None:
    transcript = Transcript(START)
    transcript.feed(Piece(Stream.STDERR, 0, b"a\xe2\x82", AT))
    assert transcript.break_off(Stream.STDERR, is_kept=False) == []
    assert transcript.break_off(Stream.STDERR) == []


def test_a_large_piece_is_cut_into_chunks_at_characters() -> None:
    chunks = feed(Transcript(START), (Stream.STDOUT, "€".encode() * 200_000))
    assert [len(chunk.data) for chunk in chunks] == [262143, 262143, 75714]


@pytest.mark.parametrize("size", [0, 1, DIGEST_BLOCK_BYTES, DIGEST_BLOCK_BYTES + 1, 3 << 20])
def test_a_digest_covers_the_digests_of_blocks_however_the_bytes_came(size: int) -> None:
    data = bytes(range(256)) * (size // 256) + b"z" * (size % 256)
    digest = BlockDigest()
    for start in range(0, size, 300_000):
        digest.update(data[start : start + 300_000])
    assert digest.covered == size
    blocks = [data[at : at + DIGEST_BLOCK_BYTES] for at in range(0, size, DIGEST_BLOCK_BYTES)]
    whole = b"".join(hashlib.sha256(block).digest() for block in blocks)
    assert digest.hexdigest() == hashlib.sha256(whole).hexdigest()


def test_a_digest_goes_on_from_complete_blocks() -> None:
    data = b"x" * (2 * DIGEST_BLOCK_BYTES + 5)
    whole = BlockDigest()
    whole.update(data)
    later = BlockDigest(whole.blocks[:1])
    later.update(data[DIGEST_BLOCK_BYTES:])
    assert later.hexdigest() == whole.hexdigest()
