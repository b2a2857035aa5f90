"""Small sizes, so that a few bytes fill a window; and nothing that fails is only logged."""

import asyncio
import logging
import traceback
from collections.abc import Iterator, MutableMapping
from typing import Any

import pytest
import structlog

from agent.application import delivery
from agent.domain.models import output, transmission
from app.domain.models import digests


@pytest.fixture(autouse=True)
def small_sizes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(output, "CHUNK_MAX_BYTES", 12)
    monkeypatch.setattr(delivery, "COMMAND_WINDOW_BYTES", 24)
    monkeypatch.setattr(delivery, "SESSION_WINDOW_BYTES", 36)
    monkeypatch.setattr(delivery, "BURST_BYTES", 12)
    for module in (output, transmission, digests):
        monkeypatch.setattr(module, "DIGEST_BLOCK_BYTES", 16)


@pytest.fixture(autouse=True)
def no_silent_failures() -> Iterator[None]:
    """What a boundary catches and logs with its traceback is a bug as well."""
    log, before = logging.getLogger("agent"), structlog.get_config()
    handler = _Noting(logging.ERROR)
    log.addHandler(handler)
    log.propagate = False
    log.setLevel(logging.ERROR)
    structlog.configure(processors=[_note])
    yield
    structlog.configure(**before)
    log.removeHandler(handler)
    log.propagate = True
    log.setLevel(logging.NOTSET)


class _Noting(logging.Handler):
    def emit(self, record: logging.LogRecord) -> None:
        if record.exc_info:
            _fail(record.getMessage())


def _note(_logger: object, _name: str, facts: MutableMapping[str, Any]) -> Any:
    if facts.get("exc_info"):
        _fail(facts["event"])
    raise structlog.DropEvent


def _fail(what: str) -> None:
    asyncio.get_running_loop().failures.append(f"{what}\n{traceback.format_exc()}")  # type: ignore[attr-defined]
