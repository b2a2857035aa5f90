"""What is left of commands among the processes of this machine."""

from pathlib import Path


def marked(key: str) -> str:
    """Shell words that do nothing and stay visible in a process's arguments."""
    return f": left-{key}"


def left_of(command_id: str, key: str) -> list[int]:
    """Living processes that carry a command's mark, or its key in their arguments."""
    mark = f"OGENT_COMMAND_ID={command_id}".encode()
    argument = f"left-{key}".encode()
    return [
        int(entry.name)
        for entry in Path("/proc").iterdir()
        if entry.name.isdigit()
        and (mark in _bytes(entry / "environ").split(b"\0") or _shows(entry, argument))
    ]


def _shows(entry: Path, argument: bytes) -> bool:
    return argument in _bytes(entry / "cmdline")


def _bytes(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError:  # it has ended
        return b""
