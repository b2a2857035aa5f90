"""The table of bounds in docs/architecture.md names every bound of the services, as it is."""

import importlib
import re
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
ROW = re.compile(r"^\| [^|]*\| `([a-z][\w.]*)\.([A-Z][A-Z0-9_]*)` \| ([^|]+) \|", re.MULTILINE)
#: How constants that bound something are called.
BOUND = re.compile(
    r"^((?:[A-Z][A-Z0-9_]*_)?(?:S|MS|US|MAX|BYTES|CHARS|NAMES|WAITING|RECORDS|EVERY)|(?:[A-Z]\w*_)?WINDOW"
    r"|THREADS|READERS|BACKLOG|KEY_KEPT|[A-Z]\w*_FOR|[A-Z]\w*_FACTOR): Final",
    re.MULTILINE,
)
KIB, MIB = 1024, 1024 * 1024


def test_the_table_has_every_bound_of_the_services() -> None:
    named = {f"{module}.{name}" for module, name, _ in _rows()}
    missing = sorted(set(_bounds("controller_service", "agent_service")) - named)
    assert missing == [], "say in docs/architecture.md, Bounds, what happens beyond them"


def test_every_row_says_what_the_code_says() -> None:
    assert len(_rows()) > 50
    wrong = [
        f"{module}.{name} is {actual}, not {said}"
        for module, name, said in _rows()
        if (actual := _actual(module, name)) != said
    ]
    assert wrong == []


@pytest.mark.parametrize(
    ("name", "value", "text"),
    [
        ("READ_MAX_BYTES", 512 * KIB, "512 KiB"),
        ("PAGE_MAX_BYTES", 8 * MIB, "8 MiB"),
        ("ACK_TIMEOUT_S", 15.0, "15 s"),
        ("EXPIRES_MAX_S", 29 * 86400.0, "29 d"),
        ("KEY_KEPT", timedelta(hours=24), "1 d"),
        ("GROUP_MAX", 4096, "4,096"),
    ],
)
def test_a_bound_is_written_as_people_read_it(name: str, value: object, text: str) -> None:
    assert _text(name, value) == text


def _rows() -> list[tuple[str, str, str]]:
    return ROW.findall((ROOT / "docs" / "architecture.md").read_text())


def _bounds(*services: str) -> Iterator[str]:
    for service in services:
        for path in (ROOT / service).rglob("*.py"):
            module = ".".join(path.relative_to(ROOT / service).with_suffix("").parts)
            yield from (f"{module}.{name}" for name in BOUND.findall(path.read_text()))


def _actual(module: str, name: str) -> str:
    value = getattr(importlib.import_module(module), name, None)
    return "not there" if value is None else _text(name, value)


def _text(name: str, value: object) -> str:
    if isinstance(value, timedelta):
        return _duration(value.total_seconds())
    assert isinstance(value, int | float), name
    if "BYTES" in name:
        return f"{value // MIB} MiB" if value % MIB == 0 else f"{value // KIB:,} KiB"
    return _duration(value) if name.endswith("_S") else f"{value:,}"


def _duration(seconds: float) -> str:
    return f"{seconds / 86400:g} d" if seconds % 86400 == 0 else f"{seconds:g} s"
