"""The controller's folder: private, held by one process, with the secrets that were generated."""

import fcntl
import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

_LOCK: Final = "controller.lock"
_SECRET_BYTES: Final = 48


class DataDirUnusable(Exception):
    """The folder cannot be used; the message says why and what to do."""


@contextmanager
def open_data_dir(path: Path) -> Iterator[Path]:
    """The folder, made where it is missing, held against any second process while open.

    Raises DataDirUnusable where it cannot be written or another process holds it.
    """
    try:
        path.mkdir(mode=0o700, parents=True, exist_ok=True)
        path.chmod(0o700)
        lock = os.open(path / _LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError as exc:
        raise DataDirUnusable(f"DATA_DIR {path} cannot be written: {exc.strerror}") from exc
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield path
    except BlockingIOError as exc:
        raise DataDirUnusable(
            f"DATA_DIR {path} is in use by another controller: stop it or choose another folder"
        ) from exc
    finally:
        os.close(lock)


def kept_secret(path: Path) -> str:
    """The secret in the file, made with 384 random bits where it is missing (0600).

    Raises DataDirUnusable for a file that holds anything shorter, or cannot be read.
    """
    try:
        secret = path.read_text().strip()
    except FileNotFoundError:
        secret = secrets.token_urlsafe(_SECRET_BYTES)
        write_private(path, secret + "\n")
    except (OSError, ValueError) as exc:
        raise DataDirUnusable(f"{path} cannot be read: {exc}") from exc
    if len(secret) < _SECRET_BYTES:
        raise DataDirUnusable(
            f"{path} is damaged: restore it, or delete it for a new one, which ends all sign-ins"
        )
    return secret


def write_private(path: Path, text: str) -> None:
    """Replace the file by one that holds `text`, durable and 0600, in one step."""
    fresh = path.with_name(path.name + ".new")
    descriptor = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
    with os.fdopen(descriptor, "w") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    fresh.replace(path)
