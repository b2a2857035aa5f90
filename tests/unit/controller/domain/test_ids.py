"""Ids are unique, URL-safe and sorted by the time they were made."""

import itertools
import re
import threading
import time

from app.domain.ids import IdSource

SHAPE = re.compile(r"[0-7][0-9a-z]{25}")


def test_ids_look_alike_and_are_safe_in_addresses() -> None:
    source = IdSource()
    assert all(SHAPE.fullmatch(source()) for _ in range(100))


def test_ids_of_one_source_are_sorted_as_they_were_made() -> None:
    source = IdSource()
    made = [source() for _ in range(20_000)]
    assert made == sorted(made)
    assert len(set(made)) == len(made)


def test_ids_made_in_several_threads_are_unique_and_sorted_in_each() -> None:
    source, made = IdSource(), [[] for _ in range(4)]
    threads = [
        threading.Thread(target=lambda ids=ids: ids.extend(source() for _ in range(5000)))
        for ids in made
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(20)
    assert all(ids == sorted(ids) for ids in made)
    assert len({one for ids in made for one in ids}) == 20_000


def test_ids_of_two_sources_differ() -> None:
    one, other = IdSource(), IdSource()
    assert len({one() for _ in range(1000)} | {other() for _ in range(1000)}) == 2000


def test_ids_stay_sorted_when_the_clock_is_set_back(monkeypatch) -> None:
    source, now = IdSource(), time.time_ns()
    first = source()
    monkeypatch.setattr("app.domain.ids.time.time_ns", lambda: now - 10**12)
    assert first < source() < source()
    monkeypatch.setattr("app.domain.ids.time.time_ns", lambda: now + 10**12)
    assert first < source()


def test_ids_begin_after_one_that_another_source_made_while_the_clock_was_ahead(
    monkeypatch,
) -> None:
    now = time.time_ns()
    monkeypatch.setattr("app.domain.ids.time.time_ns", lambda: now + 10**15)
    stored = IdSource()()
    monkeypatch.setattr("app.domain.ids.time.time_ns", lambda: now)
    source = IdSource(after=stored)
    made = [stored, *(source() for _ in range(1000))]
    assert made == sorted(set(made))
    assert all(SHAPE.fullmatch(one) for one in made)


def test_ids_made_while_the_clock_stands_cannot_be_guessed(monkeypatch) -> None:
    monkeypatch.setattr("app.domain.ids.time.time_ns", lambda: 10**18)
    source = IdSource()
    made = [source() for _ in range(10)]
    assert not any(one[:25] == other[:25] for one, other in itertools.pairwise(made))
