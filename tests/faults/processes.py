"""What is left of commands among the processes of this machine."""

import os
import zlib
from pathlib import Path


def sleep_of(key: str) -> str:
    """Shell that sleeps, and shows in its arguments whose it is, whatever its environment."""
    return f"sleep {_argument(key)}"


def left_of(command_id: str, key: str) -> list[int]:
    """Living processes that carry a command's mark, or that are `sleep_of` its key."""
    mark = f"OGENT_COMMAND_ID={command_id}".encode()
    argument = _argument(key).encode()
    return [
        int(entry.name)
        for entry in Path("/proc").iterdir()
        if entry.name.isdigit()
        and (mark in _words(entry / "environ") or argument in _words(entry / "cmdline"))
    ]


def _argument(key: str) -> str:
    return f"1000.{zlib.crc32(f'{os.getpid()} {key}'.encode())}"


def _words(path: Path) -> list[bytes]:
    try:
        return path.read_bytes().split(b"\0")
    except OSError:  # it has ended
        return []
