from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ogent.client.errors import ProtocolError
from ogent.client.server_sent_events import ServerSentEvent, ServerSentEventParser

line = st.binary(max_size=40).map(lambda b: b.replace(b"\n", b"").replace(b"\r", b""))
events = st.lists(
    st.builds(
        ServerSentEvent,
        event=st.sampled_from(["progress", "state", "result", "message"]),
        data=line,
        id=st.none() | st.integers(0, 10**6).map(str),
    ),
    max_size=8,
)


def written(event: ServerSentEvent, end: bytes) -> bytes:
    lines = [b": keepalive", b""]
    lines += [] if event.id is None else [b"id: " + event.id.encode()]
    lines += [b"event: " + event.event.encode(), b"data: " + event.data, b""]
    return b"".join(part + end for part in lines)


def cut(data: bytes, places: list[int]) -> list[bytes]:
    edges = [0, *sorted(place % (len(data) + 1) for place in places), len(data)]
    return [data[a:b] for a, b in pairwise(edges)]


@given(events, st.lists(st.integers(0, 10**6), max_size=30), st.sampled_from([b"\n", b"\r\n"]))
def test_how_the_bytes_are_cut_changes_nothing(wanted, places, end):
    parser = ServerSentEventParser()
    data = b"".join(written(event, end) for event in wanted)
    assert [event for piece in cut(data, places) for event in parser.feed(piece)] == wanted


@given(events)
def test_byte_by_byte_is_the_same_as_at_once(wanted):
    parser = ServerSentEventParser()
    data = b"".join(written(event, b"\n") for event in wanted)
    assert [e for n in range(len(data)) for e in parser.feed(data[n : n + 1])] == wanted


def test_an_unfinished_event_is_never_given():
    assert ServerSentEventParser().feed(b"event: state\ndata: {}\n") == []


def test_fields_without_a_space_and_several_data_lines():
    [event] = ServerSentEventParser().feed(b"data:a\ndata: b\nretry: 5\nid:7\n\n")
    assert event == ServerSentEvent("message", b"a\nb", "7")


def test_an_event_without_data_is_dropped():
    assert ServerSentEventParser().feed(b"event: state\nid: 4\n\n: comment\n\n") == []


def test_nothing_of_an_event_stays_for_the_next():
    _, second = ServerSentEventParser().feed(b"id: 1\nevent: a\ndata: x\n\ndata: y\n\n")
    assert second == ServerSentEvent("message", b"y", None)


@pytest.mark.parametrize("flood", [b"x" * 101, b"data: " + b"x" * 101, b"data: 123456789\n" * 12])
def test_an_event_over_the_bound_is_refused(flood):
    with pytest.raises(ProtocolError, match="more than 100 bytes"):
        ServerSentEventParser(max_bytes=100).feed(flood)
