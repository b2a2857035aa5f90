"""Ways to run a command, and how a process ends."""

from dataclasses import dataclass
from enum import StrEnum


class ExecutionType(StrEnum):
    """A way to run commands."""

    LOCAL = "local"
    SSH = "ssh"


@dataclass(frozen=True, slots=True)
class Place:
    """Where a command runs: by which executor, and for SSH on which of its targets."""

    execution_type: ExecutionType
    target: str | None = None


@dataclass(frozen=True, slots=True)
class Exit:
    """How a process ended: with `code` 0 to 255, or by `signal`, written `SIGTERM`."""

    code: int | None = None
    signal: str | None = None
