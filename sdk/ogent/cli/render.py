"""Words and numbers as people read them; pure, and safe for text from anywhere."""

import json
import unicodedata
from collections.abc import Iterable, Mapping
from datetime import datetime
from typing import Final

from ogent.protocol.resources import Command, Finished, Result
from ogent.protocol.states import State, Stream

_UNSAFE: Final = frozenset({"Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp"})
_SHORT: Final = {"\n": "\\n", "\r": "\\r", "\t": "\\t"}


def escape(text: str) -> str:
    """`text` on one line, with everything that could drive a terminal written as an escape."""
    if text.isascii() and text.isprintable():
        return text
    return "".join(_escaped(character) for character in text)


def _escaped(character: str) -> str:
    if unicodedata.category(character) not in _UNSAFE:
        return character
    return _SHORT.get(character) or character.encode("unicode_escape").decode("ascii")


def size(count: int) -> str:
    """A number of bytes: `0 B`, `999 B`, `1.5 KiB`."""
    if count < 1024:
        return f"{count} B"
    value = count / 1024
    for unit in ("KiB", "MiB", "GiB"):
        if value < 1024:
            return f"{value:.1f} {unit}"
        value /= 1024
    return f"{value:.1f} TiB"


def duration(seconds: float | None) -> str:
    """Seconds: `0.4 s`, `12 s`, `3 min 05 s`, `2 h 07 min`, and nothing for None."""
    if seconds is None:
        return ""
    return f"{seconds:.1f} s" if seconds < 10 else elapsed(seconds)


def elapsed(seconds: float) -> str:
    """Whole seconds that have passed, for a line that is drawn again and again: `4 s`."""
    whole = int(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02d} s"
    return f"{whole // 3600} h {whole % 3600 // 60:02d} min"


def when(at: datetime | None) -> str:
    """A time in the zone of this machine, to the second; nothing for None."""
    return "" if at is None else at.astimezone().strftime("%Y-%m-%d %H:%M:%S")


def when_shortly(at: datetime | None, now: datetime) -> str:
    """A time in the zone of this machine: `14:03:59` of the day of `now`, else its date."""
    if at is None:
        return ""
    local = at.astimezone()
    is_today = local.date() == now.astimezone().date()
    return local.strftime("%H:%M:%S" if is_today else "%Y-%m-%d")


def labels(values: Mapping[str, str]) -> str:
    """`env=prod,role=web`, sorted."""
    return ",".join(f"{name}={value}" for name, value in sorted(values.items()))


def shorten(text: str, width: int) -> str:
    """`text` in at most `width` characters, an ellipsis where it was longer."""
    return text if len(text) <= width else text[: max(0, width - 1)] + "…"


def progress_line(
    state: State | None, elapsed_s: float, received: int, quiet_s: float | None, width: int
) -> str:
    """What a waiting user wants to know; `quiet_s` is the age of the last output, None for none."""
    words = [state.value if state else "waiting", elapsed(elapsed_s), size(received)]
    words.append("no output yet" if quiet_s is None else f"last output {elapsed(quiet_s)} ago")
    return shorten(" · ".join(words), width)


def ending(finished: Finished) -> str | None:
    """What has to be said of a command's end beside its exit code; None for an ordinary one."""
    why = f": {finished.error.message} ({finished.error.code})" if finished.error else ""
    match finished.state:
        case State.SUCCEEDED:
            return None
        case State.FAILED if finished.result.exit_code is not None:
            return None
        case State.FAILED if finished.result.signal is not None:
            return f"ended by {finished.result.signal}{why}"
        case State.FAILED:
            return f"the command did not start{why}"
        case State.TIMED_OUT:
            return f"timed out after {duration(finished.result.duration)}{why}"
        case State.LOST:
            return f"lost: it may have finished or not{why}"
    return f"{finished.state.value}{why}"


def missing(counted: Command | Result, streams: Iterable[Stream] = Stream) -> str:
    """How much of what was written is not stored: `2.0 KiB of stdout`, nothing where all is.

    `truncated` does not tell: a Result sets it also where its own text is but an end of the output.
    """
    counts = {
        Stream.STDOUT: (counted.stdout_bytes, counted.stdout_stored),
        Stream.STDERR: (counted.stderr_bytes, counted.stderr_stored),
    }
    lacking = ((stream, _lacking(*counts[stream])) for stream in streams)
    return " and ".join(f"{size(count)} of {stream.value}" for stream, count in lacking if count)


def _lacking(written: int, stored: int | None) -> int:
    return 0 if stored is None else max(0, written - stored)


def cut(lacking: str) -> str:
    """That output was cut, and that `lacking` is what is missing of it."""
    return f"output was cut: {lacking} were not stored"


def as_json(value: object) -> str:
    """`value` as one line of JSON in ASCII: no control character survives."""
    return json.dumps(value)
