"""Totals of output grow by exactly the next chunk."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.domain.errors import OutputGap
from app.domain.models.output import OutputTotals, Stream
from tests.builders import a_chunk, chunks_of

PIECES = st.lists(st.tuples(st.sampled_from(Stream), st.binary(min_size=1, max_size=9)))


@given(PIECES)
def test_totals_count_what_was_appended(pieces: list[tuple[Stream, bytes]]) -> None:
    totals = OutputTotals()
    for chunk in chunks_of(*pieces):
        totals = totals.after(chunk)
    assert totals.next_seq == len(pieces)
    for stream in Stream:
        assert totals.bytes_of(stream) == sum(len(data) for s, data in pieces if s is stream)


@given(PIECES.filter(bool), st.data())
def test_all_that_was_appended_is_a_repeat_and_nothing_else(pieces, data: st.DataObject) -> None:
    chunks = chunks_of(*pieces)
    stored = data.draw(st.integers(0, len(chunks)))
    totals = OutputTotals()
    for chunk in chunks[:stored]:
        totals = totals.after(chunk)
    assert [totals.is_repeat(chunk) for chunk in chunks] == [
        number < stored for number in range(len(chunks))
    ]


@pytest.mark.parametrize(
    ("seq", "offset", "stream"),
    [(1, 3, "stdout"), (3, 3, "stdout"), (2, 2, "stdout"), (2, 4, "stdout"), (2, 3, "stderr")],
)
def test_what_does_not_follow_is_a_gap(seq: int, offset: int, stream: str) -> None:
    totals = OutputTotals(next_seq=2, stdout_bytes=3, stderr_bytes=1)
    with pytest.raises(OutputGap) as caught:
        totals.after(a_chunk(seq=seq, offset=offset, stream=Stream(stream)))
    assert f"chunk {seq} at {stream} byte {offset}" in caught.value.message
