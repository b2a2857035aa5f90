import hashlib
from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.domain.models.output import (
    CHUNK_MAX_BYTES,
    DIGEST_BLOCK_BYTES,
    BlockDigest,
    Piece,
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


@given(st.lists(st.tuples(st.sampled_from(list(Stream)), st.binary(min_size=1, max_size=9))))
def test_chunks_hold_exactly_what_was_written_in_order(written: list[tuple[Stream, bytes]]) -> None:
    transcript = Transcript(1 << 30)
    chunks = [c for stream, data in written for c in transcript.feed(Piece(stream, data), at=AT)]
    chunks += transcript.finish(at=AT)
    assert [chunk.seq for chunk in chunks] == list(range(len(chunks)))
    for stream in Stream:
        own = [chunk for chunk in chunks if chunk.stream is stream]
        whole = b"".join(data for wrote, data in written if wrote is stream)
        assert b"".join(chunk.data for chunk in own) == whole
        assert [c.offset for c in own] == [
            sum(len(b.data) for b in own[:i]) for i in range(len(own))
        ]


def test_a_character_in_two_pieces_arrives_in_one_chunk() -> None:
    transcript = Transcript(100)
    assert transcript.feed(Piece(Stream.STDOUT, b"\xe2\x82"), at=AT) == []
    (chunk,) = transcript.feed(Piece(Stream.STDOUT, b"\xac!"), at=AT)
    assert chunk.data == "€!".encode()


def test_half_a_character_at_the_end_is_kept() -> None:
    transcript = Transcript(100)
    (first,) = transcript.feed(Piece(Stream.STDERR, b"a\xe2\x82"), at=AT)
    (rest,) = transcript.finish(at=AT)
    assert (first.data, rest.data, rest.offset) == (b"a", b"\xe2\x82", 1)


def test_a_large_piece_is_cut_into_chunks_at_characters() -> None:
    data = "€".encode() * 200_000
    chunks = Transcript(1 << 30).feed(Piece(Stream.STDOUT, data), at=AT)
    assert [len(chunk.data) for chunk in chunks] == [262143, 262143, 75714]


def test_beyond_the_bound_bytes_are_counted_and_nothing_follows_the_cut() -> None:
    transcript = Transcript(5)
    chunks = transcript.feed(Piece(Stream.STDOUT, "aaa€".encode()), at=AT)
    chunks += transcript.feed(Piece(Stream.STDERR, b"b"), at=AT)
    totals = transcript.totals()
    assert [chunk.data for chunk in chunks] == [b"aaa"]
    assert (totals.next_seq, totals.stdout.written, totals.stdout.kept) == (1, 6, 3)
    assert (totals.stderr.written, totals.stderr.kept) == (1, 0)


@pytest.mark.parametrize("size", [0, 1, DIGEST_BLOCK_BYTES, DIGEST_BLOCK_BYTES + 1, 3 << 20])
def test_a_digest_covers_the_digests_of_blocks_however_the_bytes_came(size: int) -> None:
    data = bytes(range(256)) * (size // 256) + b"z" * (size % 256)
    digest = BlockDigest()
    for start in range(0, size, 300_000):
        digest.update(data[start : start + 300_000])
    blocks = [data[at : at + DIGEST_BLOCK_BYTES] for at in range(0, size, DIGEST_BLOCK_BYTES)]
    whole = b"".join(hashlib.sha256(block).digest() for block in blocks)
    assert digest.hexdigest() == hashlib.sha256(whole).hexdigest()
