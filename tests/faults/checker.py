"""Holds the four promises over what really happened to a system's commands."""

import asyncio
from collections.abc import AsyncIterator, Container, Set
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

from ogent.client import OgentError, State
from ogent.protocol.states import Stream
from tests.faults.plans import Plan
from tests.faults.processes import left_of
from tests.faults.promises import STOPPED, Gap, Reading, Seen, broken_promises
from tests.faults.readers import follow_by_client, follow_by_socket
from tests.faults.system import System


@dataclass
class _Watched:
    plan: Plan
    command_id: str
    end: asyncio.Task[list[int]]
    readings: list[Reading] = field(default_factory=list)
    readers: list[asyncio.Task[None]] = field(default_factory=list)


class Checker:
    """Watches commands from their acceptance to their end; exists while its context is open.

    Every plan that it is given is submitted until it is accepted, may be followed by readers, and
    is held to the promises by `check`.
    """

    def __init__(self, system: System) -> None:
        self.system = system
        self._watched: list[_Watched] = []

    async def run(self, plan: Plan, *, readers: bool = False, queue: bool = True) -> str:
        """Submit a plan and watch it; the command's id."""
        command_id = await self.system.submit(plan, queue=queue)
        end = asyncio.create_task(self._end_of(plan, command_id))
        watched = _Watched(plan, command_id, end)
        self._watched.append(watched)
        if readers:
            self._follow(watched)
        return command_id

    def _follow(self, watched: _Watched) -> None:
        system, command_id = self.system, watched.command_id
        by_client, by_socket = watched.readings = [Reading("the client"), Reading("the socket")]
        for follow in (
            follow_by_client(system.client, command_id, by_client),
            follow_by_socket(system.controller.url, system.token, command_id, by_socket),
        ):
            watched.readers.append(asyncio.create_task(follow))

    async def _end_of(self, plan: Plan, command_id: str) -> list[int]:
        """What lives of a stopped command at the moment at which its end is known."""
        try:
            state = await self.system.finished(command_id)
        except (TimeoutError, OgentError) as exc:
            self.system.history.note(f"no end of {plan.key}: {exc!r}")
            return []
        left = left_of(command_id, plan.key) if state in STOPPED else []
        self.system.history.note(f"{plan.key} is {state}")
        return left

    async def check(
        self, may_end_as: Set[State] = frozenset(), only: Container[str] | None = None
    ) -> list[Seen]:
        """Wait for every end; raise AssertionError with the story where a promise is broken.

        `may_end_as` excuses these ends of the commands in `only`, or of all.
        """
        seen = [await self._seen(watched) for watched in self._watched]
        broken = []
        for one in seen:
            is_excused = only is None or one.command_id in only
            broken += broken_promises(one, may_end_as if is_excused else frozenset())
        broken += await self._strangers()
        assert not broken, self._told(broken)
        return seen

    async def _seen(self, watched: _Watched) -> Seen:
        left = await watched.end
        await asyncio.gather(*watched.readers)
        client = self.system.client
        command = await client.command(watched.command_id)
        missing = (await client.output(watched.command_id, limit=1)).missing
        return Seen(
            plan=watched.plan,
            truth=await watched.plan.run_locally(),
            command_id=watched.command_id,
            state=command.state,
            exit_code=command.exit_code,
            output_complete=command.output_complete,
            written={"stdout": command.stdout_bytes, "stderr": command.stderr_bytes},
            stored={s: await self._stored(watched.command_id, s) for s in Stream},
            missing=[Gap(gap.stream, gap.offset, gap.length) for gap in missing],
            starts=self.system.starts_of(watched.plan.key),
            left=left,
            readings=watched.readings,
        )

    async def _stored(self, command_id: str, stream: Stream) -> bytes:
        pieces = self.system.client.output_bytes(command_id, stream)
        return b"".join([piece async for piece in pieces])

    async def _strangers(self) -> list[str]:
        """Commands since the first of ours that nobody was told the id of: accepted twice."""
        first = min((watched.command_id for watched in self._watched), default="")
        found = []
        async for command in self.system.client.commands():
            if command.command_id < first:
                break
            if command.command_id not in self.system.accepted:
                found.append(f"promise 2: {command.command_id} came from a repeated request")
        return found

    async def end(self) -> None:
        """Leave no watcher behind."""
        tasks = [task for w in self._watched for task in (w.end, *w.readers)]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def _told(self, broken: list[str]) -> str:
        return "\n".join(["", *broken, self.system.history.story(), self.system.logs()])


@asynccontextmanager
async def watching(system: System) -> AsyncIterator[Checker]:
    """A checker whose watchers are gone at the end, however it comes.

    No TaskGroup: pytest opens and closes a fixture in two tasks.
    """
    checker = Checker(system)
    try:
        yield checker
    finally:
        await checker.end()
