"""The agent's folder: its name in a file, and a lock so that only one process uses it."""

import fcntl
import os
import re
import secrets
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from agent.domain.ids import AgentId

FOLDER_MODE: Final = 0o700
FILE_MODE: Final = 0o600
_ID_FORM: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
_HOST_MAX_CHARS: Final = 48


class DataDirUnusable(Exception):
    """The folder cannot be used; the message says why, in one line."""


@contextmanager
def locked_data_dir(folder: Path) -> Iterator[Path]:
    """Make `folder`, private to this account, and hold its lock; raises DataDirUnusable."""
    try:
        folder.mkdir(mode=FOLDER_MODE, parents=True, exist_ok=True)
        folder.chmod(FOLDER_MODE)
        lock = os.open(folder / "agent.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, FILE_MODE)
    except OSError as exc:
        raise DataDirUnusable(f"cannot write to {folder}: {exc.strerror}") from exc
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield folder
    except BlockingIOError as exc:
        raise DataDirUnusable(f"another agent is running with {folder}") from exc
    finally:
        os.close(lock)


def agent_id_in(folder: Path) -> AgentId:
    """The agent's name in `folder`; made from the host's name when there is none yet.

    Raises DataDirUnusable where it cannot be read or kept.
    """
    file = folder / "agent-id"
    try:
        if file.exists():
            return _checked(file.read_text(encoding="utf-8").strip(), file)
        made = _from_host_name(socket.gethostname())
        _write_durably(file, f"{made}\n")
    except (OSError, UnicodeDecodeError) as exc:
        raise DataDirUnusable(f"cannot keep the agent's id in {file}: {exc}") from exc
    return made


def _checked(text: str, file: Path) -> AgentId:
    if not _ID_FORM.fullmatch(text):
        raise DataDirUnusable(f"{file} does not hold an agent id")
    return AgentId(text)


def _from_host_name(host: str) -> AgentId:
    plain = re.sub(r"[^A-Za-z0-9._-]+", "-", host.split(".")[0]).strip("._-")
    return AgentId(f"{plain[:_HOST_MAX_CHARS] or 'agent'}-{secrets.token_hex(4)}")


def _write_durably(file: Path, text: str) -> None:
    fresh = file.with_suffix(".new")
    fresh.touch(FILE_MODE)
    with fresh.open("w", encoding="utf-8") as out:
        out.write(text)
        out.flush()
        os.fsync(out.fileno())
    fresh.replace(file)
