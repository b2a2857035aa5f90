from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ogent.cli import render
from ogent.cli.exec import shell_line
from ogent.protocol.states import State


@given(st.text())
def test_nothing_that_is_escaped_drives_a_terminal(text):
    escaped = render.escape(text)
    assert escaped.isprintable() or all(c.isprintable() or c.isspace() for c in escaped)
    assert not any(c in escaped for c in "\x1b\n\r\t\x9b\u202e\u2028")


@given(st.text(st.characters(categories=["L", "N", "P", "S"])))
def test_ordinary_text_is_left_alone(text):
    assert render.escape(text) == text


@pytest.mark.parametrize(
    ("count", "text"),
    [(0, "0 B"), (1023, "1023 B"), (1024, "1.0 KiB"), (1536, "1.5 KiB"), (2**50, "1024.0 TiB")],
)
def test_sizes(count, text):
    assert render.size(count) == text


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(None, ""), (0.44, "0.4 s"), (12.9, "12 s"), (185, "3 min 05 s"), (7620, "2 h 07 min")],
)
def test_durations(seconds, text):
    assert render.duration(seconds) == text


def test_times_and_labels():
    assert render.when(None) == ""
    assert len(render.when(datetime(2026, 11, 21, tzinfo=UTC))) == 19
    assert render.labels({"role": "web", "env": "prod"}) == "env=prod,role=web"


def test_the_progress_line_fits_its_width():
    line = render.progress_line(State.RUNNING, 75.0, 2048, 3.9, 100)
    assert line == "running · 1 min 15 s · 2.0 KiB · last output 3 s ago"
    assert render.progress_line(None, 4.0, 0, None, 12) == "waiting · 4…"


@pytest.mark.parametrize(
    ("words", "line"),
    [(["ls | wc"], "ls | wc"), (["echo", "a b", "*", "it's"], "echo 'a b' '*' 'it'\"'\"'s'")],
)
def test_words_become_a_line_of_shell(words, line):
    assert shell_line(words) == line


def test_a_time_of_today_is_short_and_another_day_is_its_date():
    at = datetime(2026, 11, 21, 12, 0, 7, tzinfo=UTC).astimezone()
    assert render.when_shortly(at, at.replace(hour=23)) == at.strftime("%H:%M:%S")
    assert render.when_shortly(at, at + timedelta(days=1)) == at.strftime("%Y-%m-%d")
    assert render.when_shortly(None, at) == ""
