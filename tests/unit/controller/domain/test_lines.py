"""Output cut into lines is the same however it was cut into chunks."""

import itertools

from hypothesis import example, given
from hypothesis import strategies as st

from app.domain.models.lines import (
    LINE_MAX_BYTES,
    MARK_EVERY_BYTES,
    LineCount,
    LineMark,
    LineSplitter,
    marks_between,
)
from app.domain.models.output import Chunk, OutputTotals, Stream
from tests.builders import chunks_of, later

OUT, ERR = Stream.STDOUT, Stream.STDERR
TEXT = st.lists(st.sampled_from([b"a", b"\n", b"\xc3\xa9", b"\r\n", b"\0"])).map(b"".join)
# Parts around the bound of a line, with and without a newline.
LONG = st.lists(
    st.tuples(
        st.sampled_from([0, 1, LINE_MAX_BYTES - 1, LINE_MAX_BYTES, LINE_MAX_BYTES + 1]),
        st.sampled_from([b"", b"\n", b"\n\n"]),
    ),
    max_size=5,
).map(lambda parts: b"".join(b"x" * size + end for size, end in parts))
PIECES = st.lists(st.tuples(st.sampled_from(Stream), TEXT.filter(bool)), max_size=12)


def expected(data: bytes) -> list[tuple[bytes, bool]]:
    """Lines of a whole stream, each with whether it is cut."""
    lines = data.split(b"\n")
    if not lines[-1]:
        lines.pop()
    return [part for line in lines for part in _cut(line)]


def _cut(line: bytes) -> list[tuple[bytes, bool]]:
    starts = range(0, max(len(line), 1), LINE_MAX_BYTES)
    return [(line[s : s + LINE_MAX_BYTES], s + LINE_MAX_BYTES < len(line)) for s in starts]


def split(chunks: list[Chunk], splitter: LineSplitter | None = None) -> list:
    splitter = splitter or LineSplitter()
    lines = [line for chunk in chunks for line in splitter.feed(chunk)]
    return lines + list(splitter.finish())


def cut_at(data: bytes, places: list[int]) -> list[bytes]:
    bounds = sorted({0, len(data), *(place % (len(data) + 1) for place in places)})
    return [data[a:b] for a, b in itertools.pairwise(bounds)]


@given(TEXT, st.lists(st.integers(0, 1000), max_size=10))
def test_any_chunking_gives_the_lines_of_the_whole(data: bytes, places: list[int]) -> None:
    lines = split(chunks_of(*cut_at(data, places)))
    assert [(line.data, line.is_cut) for line in lines] == expected(data)


@given(LONG, st.lists(st.integers(0, 10 * LINE_MAX_BYTES), max_size=6))
@example(b"x" * (2 * LINE_MAX_BYTES) + b"\n", [LINE_MAX_BYTES])
@example(b"x" * (LINE_MAX_BYTES + 1), [LINE_MAX_BYTES])
def test_long_lines_are_cut_at_the_same_places_in_any_chunking(
    data: bytes, places: list[int]
) -> None:
    lines = split(chunks_of(*cut_at(data, places)))
    assert [(line.data, line.is_cut) for line in lines] == expected(data)


@given(PIECES)
def test_two_streams_do_not_mix_and_are_numbered_together(pieces) -> None:
    lines = split(chunks_of(*pieces))
    assert [line.number for line in lines] == list(range(len(lines)))
    for stream in Stream:
        whole = b"".join(data for s, data in pieces if s is stream)
        own = [(line.data, line.is_cut) for line in lines if line.stream is stream]
        assert own == expected(whole)


@given(PIECES)
def test_a_line_has_the_time_at_which_it_ended(pieces) -> None:
    chunks = chunks_of(*pieces)
    splitter = LineSplitter()
    for chunk in chunks:
        assert all(line.at == chunk.at for line in splitter.feed(chunk))
    last = {stream: [c.at for c in chunks if c.stream is stream][-1:] for stream in Stream}
    assert all([line.at] == last[line.stream] for line in splitter.finish())


def test_what_never_got_its_newline_comes_last_stdout_first() -> None:
    lines = split(chunks_of(b"out ", (ERR, b"err"), b"again"))
    assert [(line.number, line.text, line.at) for line in lines] == [
        (0, "out again", later(3.002)),
        (1, "err", later(3.001)),
    ]


def test_finishing_twice_gives_nothing_more() -> None:
    splitter = LineSplitter()
    list(splitter.feed(chunks_of(b"half")[0]))
    assert len(list(splitter.finish())) == 1
    assert list(splitter.finish()) == []


def test_undecodable_bytes_are_replaced_in_the_text_alone() -> None:
    (line,) = split(chunks_of(b"\xff\xc3\n"))
    assert (line.data, line.text) == (b"\xff\xc3", "\ufffd\ufffd")


@given(st.lists(st.tuples(st.sampled_from(Stream), LONG.filter(bool)), max_size=5))
def test_lines_are_counted_as_they_are_split(pieces) -> None:
    splitter, count = LineSplitter(), LineCount()
    for chunk in chunks_of(*pieces):
        list(splitter.feed(chunk))
        count = count.after(chunk)
        assert count.ended == splitter.next_number
    list(splitter.finish())
    assert count.with_rests == splitter.next_number


@given(PIECES, st.integers(0, 12))
def test_a_splitter_that_resumes_at_a_mark_gives_the_same_lines(pieces, place: int) -> None:
    # What waits for its newline at the mark ends after it, and so has its place among the others.
    chunks = chunks_of(*pieces, (OUT, b"\n"), (ERR, b"\n"))
    place = min(place, len(pieces))
    mark = marked(chunks[:place])
    rests = [
        b"".join(chunk.data for chunk in chunks[:place] if chunk.stream is stream)
        for stream in (OUT, ERR)
    ]
    rests = [
        rest[len(rest) - length :]
        for rest, length in zip(
            rests, (mark.lines.stdout_rest, mark.lines.stderr_rest), strict=True
        )
    ]
    resumed = LineSplitter.resumed(mark, rests[0], rests[1], later(0))
    whole = [line for line in split(chunks) if line.number >= mark.lines.ended]
    assert split(chunks[place:], resumed) == whole


def marked(chunks: list[Chunk]) -> LineMark:
    """The mark after `chunks`."""
    totals, count = OutputTotals(), LineCount()
    for chunk in chunks:
        totals, count = totals.after(chunk), count.after(chunk)
    return LineMark(totals, count)


def test_a_mark_is_due_whenever_another_mebibyte_is_full() -> None:
    def totals(stdout: int, stderr: int) -> OutputTotals:
        return OutputTotals(1, stdout, stderr)

    almost = MARK_EVERY_BYTES - 1
    assert not marks_between(totals(0, 0), totals(almost, 0))
    assert marks_between(totals(almost, 0), totals(almost, 1))
    assert not marks_between(totals(almost, 1), totals(almost, 2))
    assert marks_between(totals(0, 0), totals(0, 5 * MARK_EVERY_BYTES))
