"""What a user asks to be run, within its bounds."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

from app.domain.errors import Invalid, TooLarge

KIB: Final = 1024
COMMAND_MAX_BYTES: Final = 64 * KIB
ENV_MAX_NAMES: Final = 128
ENV_MAX_BYTES: Final = 64 * KIB
STDIN_MAX_BYTES: Final = 256 * KIB
CWD_MAX_BYTES: Final = 4 * KIB


@dataclass(frozen=True, slots=True)
class CommandLine:
    """One line of shell with its surroundings. Sizes are of UTF-8.

    Raises TooLarge over a bound, Invalid for what no process can be given: an empty line, a NUL
    or half a surrogate pair anywhere, a variable without a name or with `=` in it.
    """

    text: str
    env: Mapping[str, str] = field(default_factory=dict)
    cwd: str | None = None
    stdin: str | None = None

    def __post_init__(self) -> None:
        """Hold every bound from the start."""
        if not self.text.strip():
            raise Invalid("command is empty: give one line of shell")
        _check("command", self.text, COMMAND_MAX_BYTES)
        _check("cwd", self.cwd or "", CWD_MAX_BYTES)
        if self.cwd is not None and not self.cwd.startswith("/"):
            raise Invalid("cwd has to be an absolute path")
        _check("stdin", self.stdin or "", STDIN_MAX_BYTES, nul=True)
        self._check_env()

    def _check_env(self) -> None:
        if len(self.env) > ENV_MAX_NAMES:
            raise TooLarge(f"env has {len(self.env)} names, at most {ENV_MAX_NAMES} are allowed")
        total = 0
        for name, value in self.env.items():
            if not name or "=" in name:
                raise Invalid(f"env has a name that no variable can have: {name[:64]!r}")
            total += _check("env", name, ENV_MAX_BYTES) + _check("env", value, ENV_MAX_BYTES)
        if total > ENV_MAX_BYTES:
            raise TooLarge(f"env has {total} bytes, at most {ENV_MAX_BYTES} are allowed")


def _check(what: str, text: str, max_bytes: int, *, nul: bool = False) -> int:
    try:
        size = len(text.encode())
    except UnicodeEncodeError as exc:
        raise Invalid(f"{what} holds a character that UTF-8 cannot carry") from exc
    if "\0" in text and not nul:
        raise Invalid(f"{what} holds a NUL character, which no process can be given")
    if size > max_bytes:
        raise TooLarge(f"{what} has {size} bytes, at most {max_bytes} are allowed")
    return size
