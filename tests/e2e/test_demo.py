"""What `make demo` runs, as a user sees it."""

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from time import monotonic

import pytest

SCRIPT = Path(__file__).resolve().parents[2] / "scripts" / "demo.py"
TIMEOUT_S = 120.0

pytestmark = pytest.mark.slow


def test_the_demo_shows_lines_as_they_are_written_and_leaves_nothing(tmp_path: Path) -> None:
    arrived: dict[str, float] = {}
    with _demo(tmp_path) as process:
        assert process.stdout is not None
        for line in process.stdout:
            arrived.setdefault(line.split(" from ")[0].strip(), monotonic())
        assert process.wait(TIMEOUT_S) == 0
    # The command sleeps half a second after each of its ten lines.
    assert arrived["line 5 of 10"] - arrived["line 1 of 10"] > 1
    assert arrived["line 10 of 10"] - arrived["line 5 of 10"] > 1
    assert list(tmp_path.iterdir()) == []
    assert _processes_under(tmp_path) == []


def test_ctrl_c_in_the_middle_of_the_demo_leaves_nothing(tmp_path: Path) -> None:
    with _demo(tmp_path) as process:
        assert process.stdout is not None
        next(line for line in process.stdout if line.startswith("line 2 of 10"))
        process.send_signal(signal.SIGINT)
        process.communicate(timeout=TIMEOUT_S)
        assert process.returncode == 130
    assert list(tmp_path.iterdir()) == []
    assert _processes_under(tmp_path) == []


@contextmanager
def _demo(folder: Path) -> Iterator[subprocess.Popen[str]]:
    environment = {**os.environ, "TMPDIR": str(folder)}
    environment.pop("ADMIN_PASSWORD", None)
    process = subprocess.Popen(
        [sys.executable, SCRIPT], env=environment, stdout=subprocess.PIPE, text=True
    )
    try:
        yield process
    finally:
        process.terminate()  # it stops its services by itself
        process.communicate(timeout=TIMEOUT_S)


def _processes_under(folder: Path) -> list[str]:
    """Processes whose environment names `folder`: the services get their DATA_DIR there."""
    found = []
    for environ in Path("/proc").glob("[0-9]*/environ"):
        try:
            if str(folder).encode() in environ.read_bytes():
                found.append(environ.parts[2])
        except OSError:  # it has ended, or is somebody else's
            continue
    return found
