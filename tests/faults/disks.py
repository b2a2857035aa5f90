"""Small disks that can be filled, and room again."""

import asyncio
import os
import subprocess
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress
from pathlib import Path

import pytest

BLOCK = 4096


class SmallDisk:
    """A file system of its own; `fill` leaves so many bytes free."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._ballast = folder / "ballast"

    @property
    def data_dir(self) -> Path:
        return self.folder / "data"

    @property
    def free_bytes(self) -> int:
        found = os.statvfs(self.folder)
        return found.f_bavail * found.f_frsize

    def fill(self, leave_bytes: int = 0) -> None:
        with self._ballast.open("ab") as ballast:
            size = ballast.tell() + max(0, self.free_bytes - leave_bytes)
            os.posix_fallocate(ballast.fileno(), 0, max(size // BLOCK * BLOCK, BLOCK))

    def make_room(self) -> None:
        self._ballast.unlink(missing_ok=True)


@contextmanager
def small_disk_in(folder: Path, mebibytes: int) -> Iterator[SmallDisk]:
    """A tmpfs; the test is skipped where none may be mounted."""
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", f"size={mebibytes}m", "tmpfs", str(folder)]
    try:
        done = subprocess.run(mount, capture_output=True, text=True, timeout=20)
    except FileNotFoundError:
        pytest.skip("no full disk: there is no mount")
    if done.returncode != 0:
        pytest.skip(f"no full disk: no tmpfs may be mounted here: {done.stderr.strip()}")
    try:
        yield SmallDisk(folder)
    finally:
        subprocess.run(["umount", "-l", str(folder)], check=True, timeout=20)


@asynccontextmanager
async def failing_syncs(pid: int, log: Path) -> AsyncIterator[None]:
    """While open, no fsync of the process succeeds; skipped where it may not be traced."""
    words = ["-f", "-o", str(log), "-e", "trace=fsync,fdatasync"]
    words += ["-e", "inject=fsync,fdatasync:error=EIO", "-p", str(pid)]
    try:
        tracer = await asyncio.create_subprocess_exec("strace", *words, stderr=subprocess.PIPE)
    except FileNotFoundError:
        pytest.skip("no failing fsync: there is no strace")
    assert tracer.stderr is not None
    try:
        async with asyncio.timeout(20):
            said = (await tracer.stderr.readline()).decode()
        if "attached" not in said:
            pytest.skip(f"no failing fsync: {said.strip()}")
        yield
    finally:
        with suppress(ProcessLookupError):
            tracer.terminate()
        await tracer.communicate()
