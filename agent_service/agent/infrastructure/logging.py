"""The agent's log: one line per event, on stderr, for people or as JSON."""

import logging
import sys
from collections.abc import MutableMapping
from typing import Any, Final

import structlog

_TIMESTAMPER: Final = structlog.processors.TimeStamper(fmt="iso", utc=True)


def configure_logging(level: str, form: str) -> None:
    """Send everything from `level` on to stderr, as `console` lines or `json`.

    The Socket.IO libraries speak from warnings on: at INFO they would write tokens and commands.
    """
    shared: list[structlog.typing.Processor] = [
        structlog.stdlib.add_log_level,
        structlog.stdlib.add_logger_name,
        _TIMESTAMPER,
    ]
    formatter = structlog.stdlib.ProcessorFormatter(
        foreign_pre_chain=shared,
        processors=[
            structlog.stdlib.ProcessorFormatter.remove_processors_meta,
            structlog.processors.format_exc_info,
            *_renderers(form),
        ],
    )
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(formatter)
    logging.basicConfig(level=level, handlers=[handler], force=True)
    for library in ("socketio", "engineio", "aiohttp", "asyncio"):
        logging.getLogger(library).setLevel(logging.WARNING)


def _renderers(form: str) -> list[structlog.typing.Processor]:
    if form == "json":
        return [structlog.processors.JSONRenderer(ensure_ascii=True)]
    return [_console_line]


def _console_line(
    _logger: object,
    _method: str,
    event: MutableMapping[str, Any],
) -> str:
    exception = event.pop("exception", None)
    head = f"{event.pop('timestamp')} {event.pop('level'):<8} "
    name, text = event.pop("logger", ""), event.pop("event")
    line = head + escaped(f"{text} [{name}]")
    return f"{line}\n{exception}" if exception else line


def escaped(text: str) -> str:
    """`text` with everything that could steer a terminal or begin a line written as an escape."""
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)
