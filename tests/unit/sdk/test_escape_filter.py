from itertools import pairwise

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from ogent.cli.escape_filter import EscapeFilter

ESC_RICH = st.lists(
    st.sampled_from(
        [b"\x1b", b"[", b"]", b"31m", b"2J", b"P", b"\\", b"\x07", b"\n", b"text", b"(", b"0"]
    )
    | st.sampled_from(
        [b"\x9b", b"\xc2\x9b", b"\xc2", "ä€😀".encode(), b"\xf0\x9f", b";", b"?25l", b"\x18"]
    )
    | st.binary(max_size=5),
    max_size=30,
).map(b"".join)


def shown(*pieces: bytes) -> bytes:
    filter_ = EscapeFilter()
    return b"".join(filter_.feed(piece) for piece in pieces) + filter_.finish()


@given(ESC_RICH, st.lists(st.integers(0, 200), max_size=10))
@example(b"\x1b]" + b"x" * 5000 + b"\x07after", [3, 4100])
def test_how_the_bytes_are_cut_changes_nothing(data, places):
    edges = [0, *sorted(min(place, len(data)) for place in places), len(data)]
    pieces = [data[a:b] for a, b in pairwise(edges)]
    assert shown(*pieces) == shown(data) == shown(*(data[n : n + 1] for n in range(len(data))))


@given(ESC_RICH)
def test_only_colours_are_left_of_escape_sequences(data):
    text = shown(data).decode(errors="surrogateescape")
    for rest in text.split("\x1b")[1:]:
        assert rest[0] == "["
        assert rest[1:].lstrip("0123456789;:")[0] == "m"
    assert not any("\x80" <= character <= "\x9f" for character in text)
    assert not any("\udc80" <= character <= "\udc9f" for character in text)


@given(st.text(st.characters(exclude_categories=["Cc", "Cs"])))
def test_text_passes_as_it_is(text):
    assert shown(text.encode()) == text.encode()


@pytest.mark.parametrize(
    ("data", "left"),
    [
        (b"\x1b[31mred\x1b[0m", b"\x1b[31mred\x1b[0m"),
        (b"\x1b[31mred", b"\x1b[31mred\x1b[0m"),
        (b"\x1b[38;2;1;2;3mx\x1b[m", b"\x1b[38;2;1;2;3mx\x1b[m"),
        (b"a\x1b[2Jb\x1b[?25lc\x1b[>4;1md", b"abcd"),
        (b"a\x1b]0;title\x07b\x1b]8;;http://x\x1b\\c", b"abc"),
        (b"a\x1bP1$q\x1b\\b\x1b_apc\x1b\\c", b"abc"),
        (b"a\x1b(0b\x1bcc\x1b7d", b"abcd"),
        (b"a\x1b]never ended\nb", b"a\nb"),
        (b"a\x0e\x07\x7f\x00b\tc\r\n\x08", b"ab\tc\r\n\x08"),
        (b"a\xc2\x9b2Jb\x9bc", b"a2Jbc"),
        (b"latin \xe4 1", b"latin \xe4 1"),
        (b"cut \xe2\x82", b"cut \xe2"),
        (b"a\x1b[", b"a"),
    ],
)
def test_what_passes_and_what_does_not(data, left):
    assert shown(data) == left
