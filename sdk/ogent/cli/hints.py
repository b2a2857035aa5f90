"""The next step after an error."""

from collections.abc import Mapping
from typing import Final

from ogent.cli.render import as_json, escape
from ogent.client.errors import (
    ApiError,
    ConnectionFailed,
    NotSignedIn,
    OgentError,
    OutputGap,
    UnexpectedAnswer,
    UnusableAddress,
    UnusableToken,
)
from ogent.client.login import DamagedLogin

_BY_CODE: Final[Mapping[str, str]] = {
    "invalid_credentials": "check the name and the password, then `ogent login` again",
    "unauthorized": "`ogent login` makes a new token",
    "token_expired": "`ogent login` makes a new token",
    "forbidden": "`ogent whoami` shows your role; an administrator can change it",
    "agent_not_found": "`ogent agents` lists the agents that you may see",
    "agent_offline": "`ogent agents` shows when it was last seen; `--queue` runs it on its return",
    "command_not_found": "`ogent ps --all` lists commands",
    "token_not_found": "`ogent tokens list` lists them",
    "too_many_attempts": "wait before you try again",
    "too_many_commands": "`ogent ps` lists what is running",
    "draining": "try again in a moment",
    "storage_full": "free space on the controller's disk, or lower RETENTION_DAYS there",
    "storage_unavailable": "look at the controller's database",
    "internal_error": "look at the controller's log",
    "not_found": "compare `ogent --version` with the controller's",
}


def next_step(error: OgentError) -> str | None:
    """What to do about `error`, in one line; None where there is nothing to advise."""
    if isinstance(error, ApiError):
        if error.retry_after_s is not None:
            return f"try again in {error.retry_after_s:.0f} s"
        return _BY_CODE.get(error.code)
    if isinstance(error, NotSignedIn):
        return "`ogent login`, or set OGENT_TOKEN"
    if isinstance(error, ConnectionFailed):
        return "is the controller running, and OGENT_URL right? `ogent doctor` looks"
    if isinstance(error, UnusableAddress):
        return "set OGENT_URL as http://HOST:PORT or https://HOST"
    if isinstance(error, UnusableToken):
        return "set OGENT_TOKEN to the token and nothing else; `ogent login` makes a new one"
    if isinstance(error, UnexpectedAnswer):
        return "check OGENT_URL: another program may answer there"
    if isinstance(error, DamagedLogin):
        return "`ogent login` writes it anew"
    if isinstance(error, OutputGap):
        return "`ogent logs` shows what is stored"
    return None


def error_text(error: OgentError) -> str:
    """`error` and its next step, for people; safe to print."""
    lines = [f"ogent: {escape(str(error))}"]
    if isinstance(error, ApiError):
        for wrong in error.errors:
            where = ".".join(str(part) for part in wrong.loc)
            lines.append(f"  {escape(where)}: {escape(wrong.msg)}")
    step = next_step(error)
    if step is not None:
        lines.append(f"  next: {step}")
    return "\n".join(lines)


def error_json(error: OgentError) -> str:
    """`error` and its next step, for programs."""
    code = error.code if isinstance(error, ApiError) else _snake(type(error).__name__)
    return as_json({"error": {"code": code, "message": str(error), "next": next_step(error)}})


def _snake(name: str) -> str:
    return "".join(f"_{c.lower()}" if c.isupper() else c for c in name).lstrip("_")
