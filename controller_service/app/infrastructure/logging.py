"""Logs: structlog, and the standard library's loggers through it. Untrusted text is escaped."""

import logging
import re
import sys
from typing import Final, Literal

import structlog
import structlog.tracebacks
from structlog.typing import EventDict, Processor, WrappedLogger

_CONTROL: Final = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069]")


def configure_logging(level: str, form: Literal["console", "json"]) -> None:
    """Write one line per event to stderr, from `level` on."""
    shared: list[Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_log_level,
        structlog.stdlib.add_logger_name,
        structlog.stdlib.ExtraAdder(),
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        _escape,
    ]
    # Tracebacks without local variables: those hold tokens, passwords and commands.
    frames = structlog.tracebacks.ExceptionDictTransformer(show_locals=False)
    console = structlog.dev.ConsoleRenderer(
        colors=sys.stderr.isatty(), exception_formatter=structlog.dev.plain_traceback
    )
    renderer: list[Processor] = (
        [structlog.processors.ExceptionRenderer(frames), structlog.processors.JSONRenderer()]
        if form == "json"
        else [console]
    )
    structlog.configure(
        processors=[*shared, structlog.stdlib.ProcessorFormatter.wrap_for_formatter],
        logger_factory=structlog.stdlib.LoggerFactory(),
        wrapper_class=structlog.stdlib.BoundLogger,
        cache_logger_on_first_use=True,
    )
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=shared,
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, *renderer],
        )
    )
    root = logging.getLogger()
    root.handlers = [handler]
    root.setLevel(level)
    for noisy in ("uvicorn.access", "uvicorn.error", "asyncio"):
        logging.getLogger(noisy).setLevel(max(logging.WARNING, logging.getLevelName(level)))
    for written_by_peers in ("engineio", "socketio"):  # a traceback per bad frame
        logging.getLogger(written_by_peers).setLevel(logging.CRITICAL)


def _escape(_logger: WrappedLogger, _method: str, event: EventDict) -> EventDict:
    """Make control characters visible: a log line is one line, whoever wrote its words."""
    for key, value in event.items():
        if isinstance(value, str) and _CONTROL.search(value):
            event[key] = _CONTROL.sub(lambda found: f"\\u{ord(found[0]):04x}", value)
    return event
