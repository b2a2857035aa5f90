"""Patterns that users give, in RE2: no pattern takes more than linear time."""

from collections.abc import Callable

import re2

from app.domain.errors import InvalidFilter


def compile_filter(pattern: str) -> Callable[[str], bool]:
    """Whether a line holds `pattern` somewhere; raises InvalidFilter with RE2's reason."""
    options = re2.Options()
    options.log_errors = False
    options.max_mem = 8 << 20
    try:
        compiled = re2.compile(pattern, options)
    except re2.error as exc:
        reason = exc.args[0] if exc.args else "it cannot be read"
        text = reason.decode("utf-8", "replace") if isinstance(reason, bytes) else str(reason)
        raise InvalidFilter(f"the filter is no RE2 pattern: {text}") from exc
    return lambda text: compiled.search(text) is not None
