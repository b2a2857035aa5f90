"""Runs commands on the agent's own host, by /bin/sh, in the hands of the runner."""

import asyncio
import errno
import logging
import os
from collections.abc import Collection, Mapping
from datetime import datetime
from pathlib import Path
from typing import Final

from agent.application.ports.executor import StopFailed
from agent.domain.errors import CannotStart, NeverStarted, NoRoomToStart, SpawnFailed, StartedBefore
from agent.domain.ids import CommandId
from agent.domain.models.execution import Ending, Failure, State, StopFailure
from agent.domain.models.executor import Exit, Place
from agent.domain.models.order import Order
from agent.domain.models.output import Counts
from agent.domain.models.transmission import Written
from agent.domain.stopping import Force
from agent.infrastructure.executors.accounts import Account
from agent.infrastructure.runner.client import Facts, RunnerClient, RunnerGone
from agent.infrastructure.storage.file_spool import file_stem
from agent.infrastructure.storage.journal_records import from_micros

log = logging.getLogger(__name__)

_STATES: Final[Mapping[str | None, State]] = {
    "cancelled": State.CANCELLED,
    "timed_out": State.TIMED_OUT,
    "lost": State.LOST,
}
_UNKNOWN_END: Final = Failure(
    "end_unknown", "the command has ended, and the system does not say how"
)


class LocalExecutor:
    """An Executor over a runner. Commands start with a clean environment, as `account`."""

    def __init__(self, account: Account, runner: RunnerClient) -> None:
        self._account = account
        self._runner = runner

    @property
    def keeper(self) -> str:
        """The runner that is here now."""
        return self._runner.runner_id

    async def start(self, order: Order, place: Place, stop_failed: StopFailed) -> "LocalProcess":
        """Have the runner start the order's process."""
        del place
        # Another folder may lie on a file system that does not answer.
        folder = await asyncio.to_thread(self._folder, order) if order.cwd else self._folder(order)
        wanted = self._wanted(order, folder)
        process = LocalProcess(order.id, self._runner, stop_failed)
        try:
            await self._start(order, wanted, process)
        except BaseException:
            self._runner.listen_no_more(order.id)
            raise
        return process

    async def _start(self, order: Order, wanted: Facts, process: "LocalProcess") -> None:
        answer = await self._asked_to_start(order, wanted, process)
        if answer is None:
            return
        code = answer.get("code")
        if code == "started_before":
            raise StartedBefore("the command was started before, and how it ended is not known")
        if code == "no_room":
            raise NoRoomToStart(f"the runner cannot write down the start: {answer['message']}")
        if code is not None:
            raise SpawnFailed(answer["message"])
        process.begin(from_micros(answer["started_at"]))

    async def _asked_to_start(
        self, order: Order, wanted: Facts, process: "LocalProcess"
    ) -> Facts | None:
        """The runner's answer; None where a dead one had started it, as the next one found."""
        while True:
            await self._runner.ready()
            keeper = self._runner.runner_id
            try:
                return await self._runner.request("start", **wanted)
            except RunnerGone:
                await self._runner.ready()
            if self._take(order, process):
                return None
            if self._runner.runner_id != keeper:  # else it ended in order, and remembers all
                raise CannotStart("the agent's runner died before it had started the command")

    async def take_over(self, order: Order, keeper: str, stop_failed: StopFailed) -> "LocalProcess":
        """The process that an earlier agent had the runner start."""
        await self._runner.ready()
        process = LocalProcess(order.id, self._runner, stop_failed)
        if self._take(order, process):
            return process
        self._runner.listen_no_more(order.id)
        if await self._is_unknown(order.id, keeper):
            raise NeverStarted(f"the runner has never heard of {order.id}")
        raise StartedBefore("the command was started, or may have been, and nothing is left of it")

    async def _is_unknown(self, command_id: CommandId, keeper: str) -> bool:
        """Whether `keeper` is here and has never started the command."""
        while keeper == self._runner.runner_id:
            try:
                answer = await self._runner.request("remembers", id=command_id)
            except RunnerGone:
                await self._runner.ready()  # the next one may have this one's name and memory
                continue
            return not answer.get("has_started")
        return False

    async def discard_strays(self, known: Collection[CommandId]) -> None:
        """End and forget what the runner has and nobody knows of any more."""
        await self._runner.ready()
        stems = {file_stem(command_id) for command_id in known}
        for stem, job in list(self._runner.found.items()):  # forgetting one removes it
            if stem in stems:
                continue
            log.warning("command %s is not in the journal: it is ended and forgotten", job["id"])
            stray = _Stray(CommandId(job["id"]), self._runner)
            if job["end"] is not None:
                stray.ended(job["end"])
            else:
                self._runner.listen(CommandId(job["id"]), stray)
                failure = {"code": "discarded", "message": "nobody knows of it"}
                await self._runner.request(
                    "stop", id=job["id"], force=Force.ASK, failure=failure, **{"as": "cancelled"}
                )

    def _take(self, order: Order, process: "LocalProcess") -> bool:
        job = self._runner.found.get(file_stem(order.id))
        if job is None:
            return False
        if job["end"] is not None:
            process.begin(from_micros(job["end"]["started_at"]))
            process.ended(job["end"])
        else:
            process.begin(from_micros(job["started_at"]), is_paused=job["state"] == "paused")
            if job["stop_failure"] is not None:
                process.stop_failed(job["stop_failure"])
        return True

    def _wanted(self, order: Order, folder: Path) -> Facts:
        account = self._account
        switched = {"uid": account.uid, "gid": account.gid, "groups": list(account.groups)}
        return {
            "id": order.id,
            "name": file_stem(order.id),
            "command": order.command,
            "cwd": str(folder),
            "env": {**account.environment(), **order.env},
            "account": switched if account.switches else None,
            "stdin": order.stdin,
            "timeout_s": order.timeout_s,
            "max_output_bytes": order.max_output_bytes,
        }

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
        except (OSError, ValueError) as exc:
            reason = getattr(exc, "strerror", None) or str(exc)
            raise SpawnFailed(
                f"the working directory {order.cwd!r} cannot be used: {reason}"
            ) from exc
        return folder


class LocalProcess:
    """A RunningProcess that is the runner's child; a JobListener."""

    def __init__(self, command_id: CommandId, runner: RunnerClient, failed: StopFailed) -> None:
        self._command_id = command_id
        self._runner = runner
        self._failed = failed
        self._started_at: datetime | None = None
        self._is_paused = False
        self._ending: asyncio.Future[Ending] = asyncio.get_running_loop().create_future()
        runner.listen(command_id, self)

    @property
    def started_at(self) -> datetime:
        """When it was started."""
        if self._started_at is None:
            raise ValueError("it has not begun")
        return self._started_at

    @property
    def is_paused(self) -> bool:
        """Whether it stands still, as asked."""
        return self._is_paused

    def begin(self, started_at: datetime, *, is_paused: bool = False) -> None:
        """It was started."""
        self._started_at, self._is_paused = started_at, is_paused

    async def wait(self) -> Ending:
        """How it ended."""
        return await asyncio.shield(self._ending)

    async def stop(self, ended_as: State, force: Force, failure: Failure | None) -> None:
        """Have the runner end the whole tree."""
        why = {"code": failure.code, "message": failure.message} if failure else None
        facts = {"as": ended_as.value, "force": force.value, "failure": why}
        await self._ask("stop", facts)

    async def pause(self) -> bool:
        """Stop the tree's clock."""
        return await self._ask("pause", {})

    async def resume(self) -> bool:
        """Let a paused tree go on."""
        return await self._ask("resume", {})

    async def _ask(self, do: str, facts: Facts) -> bool:
        while not self._ending.done():
            try:
                answer = await self._runner.request(do, id=self._command_id, **facts)
            except RunnerGone:
                continue  # the next runner ends the command, or is asked
            return bool(answer.get("has_happened", True))
        return False

    # --- what the runner tells ------------------------------------------------------------

    def ended(self, end: Facts) -> None:
        """It has ended."""
        self._settle(_ending(end))

    def stop_failed(self, failure: Facts) -> None:
        """Its tree has outlived being killed."""
        self._failed(_stop_failure(failure))

    def vanished(self) -> bool:
        """Nobody knows of it any more."""
        if self._started_at is None:
            return False  # who is starting it finds that out
        now = datetime.now(self._started_at.tzinfo)
        failure = Failure("runner_died", "the agent's runner died and left nothing of the command")
        nothing = Written(Counts(), Counts())
        self._settle(
            Ending(
                finished_at=now,
                started_at=self._started_at,
                written=nothing,
                stopped_as=State.LOST,
                failure=failure,
            )
        )
        return True

    def _settle(self, ending: Ending) -> None:
        if not self._ending.done():
            self._ending.set_result(ending)


class _Stray:
    """A command that nobody knows of any more; a JobListener that forgets it at its end."""

    def __init__(self, command_id: CommandId, runner: RunnerClient) -> None:
        self._command_id = command_id
        self._runner = runner

    def ended(self, end: Facts) -> None:
        """It has ended."""
        del end
        self._runner.forget(self._command_id)

    def stop_failed(self, failure: Facts) -> None:
        """Its tree has outlived being killed."""
        log.error("%s: %s: %s", self._command_id, failure["message"], failure["pids"])

    def vanished(self) -> bool:
        """Another runner does not find it."""
        return True


def _ending(end: Facts) -> Ending:
    written, kept = Counts(*end["written"]), Counts(*end["kept"])
    stopped_as, failure = _STATES.get(end["ended_as"]), end["failure"]
    why = Failure(failure["code"], failure["message"]) if failure else None
    if end.get("is_unknown") and stopped_as is None:
        stopped_as, why = State.LOST, _UNKNOWN_END
    is_lost = stopped_as is State.LOST
    return Ending(
        started_at=from_micros(end["started_at"]),
        finished_at=from_micros(end["finished_at"]),
        written=Written(written, kept),
        exit=Exit() if is_lost else Exit(end.get("code"), end.get("signal")),
        stopped_as=stopped_as,
        failure=why,
        stop_failure=_stop_failure(end["stop_failure"]) if end["stop_failure"] else None,
    )


def _stop_failure(facts: Facts) -> StopFailure:
    return StopFailure(facts["code"], facts["message"], tuple(facts["pids"]))
