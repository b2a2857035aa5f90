"""What is sent of a recording, from any place, over gaps and restarts."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.domain.models.output import (
    DIGEST_BLOCK_BYTES,
    START,
    BlockDigest,
    Chunk,
    Counts,
    Missing,
    Piece,
    Position,
    Stream,
)
from agent.domain.models.transmission import Transmission, Written
from agent.infrastructure.storage.in_memory_spool import InMemoryRecording

AT = datetime(2026, 11, 21, tzinfo=UTC)
OUT, ERR = Stream.STDOUT, Stream.STDERR


@dataclass
class Told:
    """A Ledger that remembers."""

    gaps: list[tuple[Missing, bool]] = field(default_factory=list)

    def note_gap(self, gap: Missing, *, is_sent_past: bool) -> None:
        self.gaps.append((gap, is_sent_past))


class DamagedRecording(InMemoryRecording):
    """Some of its bytes cannot be read as they were."""

    def damage(self, stream: Stream, begin: int, end: int) -> None:
        self.damaged = (stream, begin, end)

    def read(self, after: Counts) -> Piece | Missing | None:
        found = super().read(after)
        stream, begin, end = getattr(self, "damaged", (OUT, 0, 0))
        if not isinstance(found, Piece) or found.stream is not stream:
            return found
        if begin <= found.offset < end:
            return Missing(stream, found.offset, end - found.offset)
        length = begin - found.offset
        if found.offset < begin < found.offset + len(found.data):
            return Piece(stream, found.offset, found.data[:length], AT)
        return found


def recorded(*written: tuple[Stream, bytes]) -> DamagedRecording:
    recording = DamagedRecording()
    offsets = dict.fromkeys(Stream, 0)
    for stream, data in written:
        recording.add(Piece(stream, offsets[stream], data, AT))
        offsets[stream] += len(data)
    return recording


def transmission(recording: InMemoryRecording, **known: Any) -> tuple[Transmission, Told]:
    told = Told()
    return Transmission(recording, told, **known), told


def written(stdout: int = 0, stderr: int = 0) -> Written:
    return Written(Counts(stdout, stderr), Counts(stdout, stderr))


def taken(sending: Transmission) -> list[Chunk]:
    chunks = []
    while (chunk := sending.next_chunk()) is not None:
        chunks.append(chunk)
    return chunks


def data_of(chunks: Sequence[Chunk], stream: Stream = OUT) -> bytes:
    return b"".join(chunk.data for chunk in chunks if chunk.stream is stream)


def digest_of(data: bytes) -> str:
    digest = BlockDigest()
    digest.update(data)
    return digest.hexdigest()


def test_everything_is_given_once_in_order_with_its_digest() -> None:
    sending, _ = transmission(recorded((OUT, b"one"), (ERR, b"two"), (OUT, b"three")))
    sending.finish(written(8, 3))
    chunks = taken(sending)
    assert [(c.seq, c.offset, c.data) for c in chunks] == [
        (0, 0, b"one"),
        (1, 0, b"two"),
        (2, 3, b"three"),
    ]
    totals = sending.totals()
    assert (totals.next_seq, totals.stdout.sent, totals.stderr.sent) == (3, 8, 3)
    assert (totals.stdout.digest, totals.missing) == (digest_of(b"onethree"), ())


def test_what_comes_later_is_given_later() -> None:
    recording = recorded()
    sending, _ = transmission(recording)
    assert sending.next_chunk() is None
    recording.add(Piece(OUT, 0, b"x", AT))
    assert len(taken(sending)) == 1
    assert sending.next_chunk() is None


def test_before_the_end_is_known_half_a_character_waits() -> None:
    sending, _ = transmission(recorded((OUT, b"a\xe2\x82")))
    assert data_of(taken(sending)) == b"a"
    sending.finish(written(3))
    assert data_of(taken(sending)) == b"\xe2\x82"
    assert sending.totals().stdout.digest == digest_of(b"a\xe2\x82")


def test_half_a_character_at_the_bound_of_the_output_is_not_sent() -> None:
    sending, _ = transmission(recorded((OUT, b"a\xe2\x82")))
    sending.finish(Written(Counts(9, 0), Counts(3, 0)))
    assert data_of(taken(sending)) == b"a"
    totals = sending.totals()
    assert (totals.stdout.written, totals.stdout.sent) == (9, 1)
    assert (totals.stdout.digest, totals.missing) == (digest_of(b"a"), ())


@given(
    st.lists(
        st.tuples(st.sampled_from(list(Stream)), st.binary(min_size=1, max_size=5)), max_size=12
    ),
    st.data(),
)
def test_from_any_place_the_rest_follows_byte_for_byte(
    parts: list[tuple[Stream, bytes]], data: st.DataObject
) -> None:
    whole = {s: b"".join(part for stream, part in parts if stream is s) for s in Stream}
    place = Position(
        5, data.draw(st.integers(0, len(whole[OUT]))), data.draw(st.integers(0, len(whole[ERR])))
    )
    sending, told = transmission(recorded(*parts))
    sending.seek(place)
    sending.finish(written(len(whole[OUT]), len(whole[ERR])))
    chunks = taken(sending)
    assert [chunk.seq for chunk in chunks] == [5 + n for n in range(len(chunks))]
    totals = sending.totals()
    for stream, said in ((OUT, totals.stdout), (ERR, totals.stderr)):
        assert data_of(chunks, stream) == whole[stream][place.bytes_of(stream) :]
        assert (said.sent, said.digest) == (len(whole[stream]), digest_of(whole[stream]))
    assert (totals.missing, told.gaps) == ((), [])


def test_going_back_hashes_nothing_twice() -> None:
    sending, _ = transmission(recorded((OUT, b"abc"), (OUT, b"def")))
    taken(sending)
    for sent in (0, 3, 1):
        sending.seek(Position(0, sent, 0))
        assert data_of(taken(sending)) == b"abcdef"[sent:]
    sending.finish(written(6))
    assert sending.totals().stdout.digest == digest_of(b"abcdef")


def test_a_gap_is_left_out_named_and_written_down() -> None:
    recording = recorded((OUT, b"abcdef"), (ERR, b"e"))
    recording.damage(OUT, 2, 4)
    sending, told = transmission(recording)
    sending.finish(written(6, 1))
    chunks = taken(sending)
    assert (data_of(chunks), data_of(chunks, ERR)) == (b"abef", b"e")
    totals = sending.totals()
    assert totals.missing == (Missing(OUT, 2, 2),)
    assert (totals.stdout.written, totals.stdout.sent) == (6, 4)
    assert totals.stdout.digest == digest_of(b"abef")
    assert told.gaps == [(Missing(OUT, 2, 2), False)]


def test_half_a_character_before_a_gap_is_sent_as_it_is() -> None:
    recording = recorded((OUT, "a€b".encode()))
    recording.damage(OUT, 3, 4)
    sending, _ = transmission(recording)
    sending.finish(written(5))
    assert [chunk.data for chunk in taken(sending)] == [b"a", b"\xe2\x82", b"b"]


@pytest.mark.parametrize("sent", range(5))
def test_after_a_restart_a_known_gap_moves_the_places_behind_it(sent: int) -> None:
    recording = recorded((OUT, b"abcdef"))
    recording.damage(OUT, 2, 4)
    sending, told = transmission(recording, gaps=[Missing(OUT, 2, 2)])
    sending.seek(Position(1, sent, 0))
    sending.finish(written(6))
    assert data_of(taken(sending)) == b"abef"[sent:]
    totals = sending.totals()
    assert (totals.stdout.sent, totals.stdout.digest) == (4, digest_of(b"abef"))
    assert (totals.missing, told.gaps) == ((Missing(OUT, 2, 2),), [])


@pytest.mark.parametrize("first", range(5))
@pytest.mark.parametrize("second", range(5))
def test_a_gap_that_is_met_again_moves_nothing_twice(first: int, second: int) -> None:
    recording = recorded((OUT, b"abcdefgh"))
    recording.damage(OUT, 2, 4)
    sending, told = transmission(recording)
    taken(sending)
    for sent in (first, second):
        sending.seek(Position(1, sent, 0))
        assert data_of(taken(sending)) == b"abefgh"[sent:]
    assert told.gaps[1:] == [(Missing(OUT, 2, 2), True)] * (len(told.gaps) - 1)


def test_a_gap_that_has_grown_is_one_gap() -> None:
    recording = recorded((OUT, b"abcdefgh"))
    recording.damage(OUT, 3, 5)
    sending, _ = transmission(recording)
    taken(sending)
    recording.damage(OUT, 1, 6)
    sending.seek(START)
    assert data_of(taken(sending)) == b"agh"
    sending.seek(Position(1, 2, 0))
    assert data_of(taken(sending)) == b"h"
    assert sending.totals().missing == (Missing(OUT, 1, 5),)


def test_what_was_never_recorded_although_it_was_kept_is_a_gap() -> None:
    sending, _ = transmission(recorded((OUT, b"ab")))
    sending.finish(written(5, 2))
    taken(sending)
    assert sending.totals().missing == (Missing(ERR, 0, 2), Missing(OUT, 2, 3))


def test_a_gap_in_what_was_sent_before_takes_the_proof_away() -> None:
    recording = recorded((OUT, b"abcdef"))
    sending, told = transmission(recording)
    taken(sending)
    recording.damage(OUT, 2, 4)
    sending.seek(START)
    assert data_of(taken(sending)) == b"abef"
    sending.finish(written(6))
    assert sending.totals().stdout.digest == ""
    assert told.gaps == [(Missing(OUT, 2, 2), True)]
    again, _ = transmission(recording, gaps=[Missing(OUT, 2, 2)], unproven=[OUT])
    again.seek(Position(2, 4, 0))
    assert (again.totals().stdout.digest, again.blocks_of(OUT)) == ("", ())


def test_what_cannot_be_hashed_again_after_a_restart_is_named_and_unproven() -> None:
    recording = recorded((OUT, b"abcdef"))
    recording.damage(OUT, 1, 2)
    sending, told = transmission(recording)
    sending.seek(Position(1, 4, 0))
    sending.finish(written(6))
    assert data_of(taken(sending)) == b"ef"
    totals = sending.totals()
    assert (totals.stdout.digest, totals.missing) == ("", (Missing(OUT, 1, 1),))
    assert told.gaps == []


def test_what_is_gone_although_it_was_sent_is_named_and_unproven() -> None:
    sending, _ = transmission(recorded())
    sending.seek(Position(1, 4, 0))
    sending.finish(written(4))
    assert taken(sending) == []
    assert sending.totals().missing == (Missing(OUT, 0, 4),)
    assert sending.totals().stderr.digest == digest_of(b"")


def test_a_digest_goes_on_from_the_blocks_that_were_written_down() -> None:
    data = bytes(range(256)) * (DIGEST_BLOCK_BYTES // 256) + b"rest"
    block = hashlib.sha256(data[:DIGEST_BLOCK_BYTES]).digest()
    recording = recorded((OUT, data))
    recording.damage(OUT, 0, DIGEST_BLOCK_BYTES)  # what is hashed is not read again
    sending, _ = transmission(recording, blocks={OUT: [block]})
    sending.seek(Position(9, len(data) - 1, 0))
    sending.finish(written(len(data)))
    assert data_of(taken(sending)) == b"t"
    assert (sending.totals().stdout.digest, sending.totals().missing) == (digest_of(data), ())


def test_what_no_written_digest_covers_is_needed_and_nothing_else() -> None:
    data = b"x" * (2 * DIGEST_BLOCK_BYTES)
    sending, _ = transmission(recorded((OUT, data)), unproven=[ERR])
    taken(sending)
    assert len(sending.blocks_of(OUT)) == 2
    assert sending.needed_from(OUT, 1) == DIGEST_BLOCK_BYTES
    assert sending.needed_from(ERR, 0) > 1 << 60


def test_what_the_controller_has_otherwise_is_disowned() -> None:
    sending, _ = transmission(recorded((OUT, b"abc")))
    taken(sending)
    sending.finish(written(3))
    sending.disown()
    totals = sending.totals()
    assert (totals.stdout.digest, totals.stderr.digest) == ("", digest_of(b""))
    assert totals.missing == (Missing(OUT, 0, 3),)


def test_before_anything_is_known_the_account_is_empty() -> None:
    sending, _ = transmission(recorded())
    totals = sending.totals()
    assert (totals.next_seq, totals.stdout.written, totals.missing) == (0, 0, ())
