"""Runs commands on the agent's own host, by /bin/sh."""

import asyncio
import errno
import os
import signal
import subprocess
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import ExitStack, asynccontextmanager
from pathlib import Path
from typing import Final

from agent.domain.errors import EndUnknown, SpawnFailed
from agent.domain.models.executor import Exit, Impulse, Place, Survivors
from agent.domain.models.order import Order
from agent.domain.models.output import Piece
from agent.infrastructure.executors.accounts import Account
from agent.infrastructure.executors.process_tree import MARK, ProcessTree
from agent.infrastructure.executors.pump import Pump, pipe_for_output

_SHELL: Final = "/bin/sh"
_SIGNALS: Final[Mapping[Impulse, int]] = {
    Impulse.TERMINATE: signal.SIGTERM,
    Impulse.KILL: signal.SIGKILL,
    Impulse.PAUSE: signal.SIGSTOP,
    Impulse.CONTINUE: signal.SIGCONT,
    Impulse.PROBE: 0,
}


class LocalExecutor:
    """An Executor whose processes are children of this one, each in a session of its own.

    They start with a clean environment, as `account`; changing to another needs root.
    """

    def __init__(self, account: Account) -> None:
        self._account = account

    @asynccontextmanager
    async def run(self, order: Order, place: Place) -> AsyncIterator["LocalProcess"]:  # noqa: ARG002
        """Start the process."""
        with ExitStack() as stack:
            yield self._start(order, stack)

    def _start(self, order: Order, stack: ExitStack) -> "LocalProcess":
        folder = self._folder(order)
        try:
            with ExitStack() as ours:  # what the child has a copy of, and we need no more
                child, handle, pump = self._open(order, folder, ours)
        except OSError as exc:
            raise SpawnFailed(_reason(exc)) from exc
        except UnicodeEncodeError as exc:
            raise SpawnFailed("the command holds text that is not Unicode") from exc
        except ValueError as exc:  # a NUL, or a variable's name with "=" in it
            raise SpawnFailed(f"the command cannot be started: {exc}") from exc
        process = LocalProcess(child, handle, pump, ProcessTree(child.pid, order.id))
        stack.callback(process.close)
        return process

    def _open(
        self, order: Order, folder: Path, ours: ExitStack
    ) -> tuple[subprocess.Popen[bytes], int, Pump]:
        stdin = _input(order.stdin)
        ours.callback(os.close, stdin)
        (read_out, stdout), (read_err, stderr) = pipe_for_output(), pipe_for_output()
        ours.callback(os.close, stdout)
        ours.callback(os.close, stderr)
        pump = Pump(read_out, read_err)
        try:
            child = self._spawn(order, folder, stdin, stdout, stderr)
            return child, os.pidfd_open(child.pid), pump
        except BaseException:
            pump.close()
            raise

    def _folder(self, order: Order) -> Path:
        home = Path(self._account.home)
        if order.cwd is None:
            return home if home.is_dir() else Path("/")
        try:
            folder = home / order.cwd
            if not folder.is_dir():
                reason = "it is not a folder" if folder.exists() else "it does not exist"
                raise SpawnFailed(f"the working directory {order.cwd!r} cannot be used: {reason}")
            if not self._account.may_enter(folder):
                raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))
        except OSError as exc:
            reason = exc.strerror or str(exc)
            raise SpawnFailed(
                f"the working directory {order.cwd!r} cannot be used: {reason}"
            ) from exc
        return folder

    def _spawn(
        self, order: Order, folder: Path, stdin: int, stdout: int, stderr: int
    ) -> subprocess.Popen[bytes]:
        account = self._account
        return subprocess.Popen(  # noqa: S603 - running what it is told is its purpose
            [_SHELL, "-c", order.command],
            stdin=stdin,
            stdout=stdout,
            stderr=stderr,
            cwd=folder,
            env=account.environment() | dict(order.env) | {MARK: order.id},
            start_new_session=True,
            user=account.uid if account.switches else None,
            group=account.gid if account.switches else None,
            extra_groups=list(account.groups) if account.switches else None,
        )


class LocalProcess:
    """A RunningProcess that is a child of this process; reaped when it is closed."""

    def __init__(
        self, child: subprocess.Popen[bytes], handle: int, pump: Pump, tree: ProcessTree
    ) -> None:
        self._child = child
        self._handle = handle
        self._pump = pump
        self._tree = tree
        self._loop = asyncio.get_running_loop()
        self._exit: asyncio.Future[Exit] = self._loop.create_future()
        self._loop.add_reader(handle, self._on_ended)

    @property
    def pid(self) -> int:
        """The number of the first process."""
        return self._child.pid

    async def read(self) -> Sequence[Piece]:
        """What was written since the last call."""
        return await self._pump.read()

    async def wait(self) -> Exit:
        """How the first process ended; it stays a zombie, so that its number stays its own."""
        return await asyncio.shield(self._exit)

    def abandon_output(self) -> None:
        """Read nothing more than what is in the pipes."""
        self._pump.abandon()

    async def signal(self, impulse: Impulse) -> Survivors:
        """Send `impulse` to the tree."""
        return await asyncio.to_thread(self._tree.signal, _SIGNALS[impulse])

    def close(self) -> None:
        """Let go of the process and its pipes, and reap it if it has ended."""
        self._pump.close()
        self._stop_watching()
        os.close(self._handle)
        self._child.poll()

    def _on_ended(self) -> None:
        self._stop_watching()
        try:
            self._exit.set_result(_exit_of(self._child.pid))
        except OSError as exc:  # somebody else has reaped it
            unknown = EndUnknown(f"the command has ended, its exit code is lost: {exc.strerror}")
            unknown.__cause__ = exc
            self._exit.set_exception(unknown)

    def _stop_watching(self) -> None:
        self._loop.remove_reader(self._handle)


def _exit_of(pid: int) -> Exit:
    """How the child `pid`, which has ended, did so; it is not reaped."""
    status = os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT)
    if status is None:  # only where WNOHANG was asked for
        raise ChildProcessError(errno.ECHILD, f"process {pid} has not ended")
    if status.si_code == os.CLD_EXITED:
        return Exit(code=status.si_status)
    return Exit(signal=_signal_name(status.si_status))


def _input(text: str | None) -> int:
    """What the command reads: `text`, then its end; the caller closes it."""
    if not text:
        return os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC)
    descriptor = os.memfd_create("stdin", os.MFD_CLOEXEC)
    with open(descriptor, "wb", closefd=False) as file:
        file.write(text.encode("utf-8", "surrogateescape"))
    os.lseek(descriptor, 0, os.SEEK_SET)
    return descriptor


def _reason(exc: OSError) -> str:
    if exc.errno == errno.E2BIG:
        return "the command and its environment are longer than this system allows"
    where = f" ({exc.filename})" if exc.filename and exc.filename != _SHELL else ""
    return f"the command could not be started: {exc.strerror or exc}{where}"


def _signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:  # between SIGRTMIN and SIGRTMAX
        return f"SIGRTMIN+{number - signal.SIGRTMIN}"
