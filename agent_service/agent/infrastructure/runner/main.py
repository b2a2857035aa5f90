"""The runner as a process: `python -I -S main.py FOLDER`, started by the agent.

It takes the folder's lock, says a line on its standard output once it listens, and goes on alone.
"""

from __future__ import annotations

import contextlib
import ctypes
import fcntl
import os
import signal
import socket
import sys

#: Where the package `agent` is: isolated as it is started, Python would not find it.
sys.path.insert(0, os.path.abspath(__file__).rsplit("/", 4)[0])

from agent.infrastructure.runner.channel import EXIT_HELD
from agent.infrastructure.runner.server import SOCKET, Runner

LOCK = "runner.lock"
PID = "runner.pid"
_PR_SET_CHILD_SUBREAPER = 36


def main(data_dir: str) -> int:
    """Serve until nothing is left to do; the process's exit status."""
    home, spool = f"{data_dir}/runner", f"{data_dir}/spool"
    lock = os.open(f"{home}/{LOCK}", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return EXIT_HELD
    ctypes.CDLL(None).prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
    runner = Runner(spool, home, _boot_id())
    for number in signal.valid_signals() - {signal.SIGPIPE}:
        if signal.getsignal(number) is signal.SIG_IGN:  # by who started the agent: not for commands
            signal.signal(number, signal.SIG_DFL)
    for number in (signal.SIGHUP, signal.SIGINT, signal.SIGTERM):
        # Handled, not ignored: what is ignored here would be ignored by every command.
        signal.signal(number, lambda *_: runner.ask_to_end())
    with _listening(home) as listening:
        with contextlib.suppress(OSError):  # for people; a full disk is no reason not to run
            _write(f"{home}/{PID}", f"{os.getpid()}\n")
        runner.take_over()
        os.write(1, b"ready\n")
        _to_null(1)
        runner.serve(listening)
        with contextlib.suppress(FileNotFoundError):  # the whole folder may be gone
            os.unlink(f"{home}/{SOCKET}")
            runner.hand_down()
    return 0


def _listening(home: str) -> socket.socket:
    listening = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    os.chdir(home)  # a socket's path is short, and the folder's may be long
    with contextlib.suppress(FileNotFoundError):
        os.unlink(SOCKET)
    listening.bind(SOCKET)
    listening.listen(16)
    os.chdir("/")
    return listening


def _boot_id() -> str:
    try:
        with open("/proc/sys/kernel/random/boot_id") as file:
            return file.read().strip()
    except OSError:
        return ""


def _write(path: str, text: str) -> None:
    with open(path, "w") as file:
        file.write(text)


def _to_null(descriptor: int) -> None:
    null = os.open(os.devnull, os.O_WRONLY)
    os.dup2(null, descriptor)
    os.close(null)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
