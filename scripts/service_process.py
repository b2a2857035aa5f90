"""A service as a process of its own, with its log in a file."""

import os
import subprocess
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from time import monotonic, sleep

STOP_GRACE_S = 10.0
POLL_EVERY_S = 0.05
TAIL_LINES = 30
#: What of the caller's environment a service or the command line needs at all.
PASSED_ON = ("PATH", "HOME", "USER", "SHELL", "LANG", "LC_ALL", "TZ", "TMPDIR", "TERM", "NO_COLOR")


class ServiceFailed(Exception):
    """A service did not do what was waited for; the message ends with the tail of its log."""


def clean_environment(settings: Mapping[str, str]) -> dict[str, str]:
    """`settings` and the basics: a variable of the caller's shell must not configure a service."""
    return {name: os.environ[name] for name in PASSED_ON if name in os.environ} | dict(settings)


class ServiceProcess:
    """A running service; `service_process` starts and ends it."""

    def __init__(self, name: str, log: Path, process: subprocess.Popen[bytes]) -> None:
        self.name = name
        self.pid = process.pid
        self._log = log
        self._process = process

    def wait_until(self, happened: Callable[[], bool], what: str, *, timeout_s: float) -> None:
        """Return once `happened()`; ServiceFailed when the time is over or the process ended."""
        deadline = monotonic() + timeout_s
        while not happened():
            if self._process.poll() is not None:
                raise self.failed("ended")
            if monotonic() > deadline:
                raise self.failed(f"after {timeout_s:.0f} s not {what}")
            sleep(POLL_EVERY_S)  # nothing tells from outside that a server has become ready

    def wait(self) -> int:
        """Wait for its end, without a deadline, and return its exit status."""
        return self._process.wait()

    def failed(self, how: str) -> ServiceFailed:
        """The error that says how it failed and how its log ends."""
        status = self._process.poll()
        ended = f" (exit status {status})" if status is not None else ""
        return ServiceFailed(f"the {self.name}: {how}{ended}\n{self.tail()}")

    def tail(self) -> str:
        """The last TAIL_LINES of its log, under a line that names the file."""
        with self._log.open(errors="replace") as lines:
            last = deque(lines, maxlen=TAIL_LINES)
        text = "".join(f"  | {line.rstrip()}\n" for line in last) or "  | (empty)\n"
        return f"The end of {self._log}:\n{text}"

    def stop(self) -> None:
        """Ask it to end, wait, and kill it where it has not ended after STOP_GRACE_S."""
        try:
            self._process.terminate()
            self._process.wait(STOP_GRACE_S)
        except subprocess.TimeoutExpired:
            print(f"the {self.name} did not stop within {STOP_GRACE_S:.0f} s: killing it")
        finally:  # also when the user does not want to wait
            self._process.kill()
            self._process.wait()


@contextmanager
def service_process(
    name: str, argv: Sequence[str], settings: Mapping[str, str], folder: Path
) -> Iterator[ServiceProcess]:
    """Run `argv` in `folder` with `settings` as its environment; stopped at the end of the block.

    It is in a session of its own, so that Ctrl-C reaches it only through its stop.
    """
    log = folder / f"{name}.log"
    with log.open("ab") as sink:
        process = subprocess.Popen(  # noqa: S603 - our own console scripts
            argv,
            stdin=subprocess.DEVNULL,
            stdout=sink,
            stderr=subprocess.STDOUT,
            env=clean_environment(settings),
            cwd=folder,
            start_new_session=True,
        )
    service = ServiceProcess(name, log, process)
    try:
        yield service
    finally:
        service.stop()
