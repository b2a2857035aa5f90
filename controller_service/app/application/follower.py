"""Following a command: stored chunks first, then live ones, from a cursor, in bounded memory."""

from collections.abc import AsyncGenerator
from dataclasses import dataclass
from datetime import datetime
from typing import Final

from app.application.look_again import rung_or_due
from app.application.ports.output_log import OutputLog, require_from
from app.application.ports.repositories import CommandRepository
from app.application.ports.wakeups import Wakeups, command_topic
from app.domain.ids import CommandId
from app.domain.models.command import Command
from app.domain.models.output import Chunk
from app.domain.models.states import FINAL, State

#: Bytes of output that one follower reads, and so holds, at once.
READ_MAX_BYTES: Final = 512 * 1024
#: After this time without a wake-up a follower looks by itself.
LOOK_AGAIN_S: Final = 5.0


@dataclass(frozen=True, slots=True)
class StateReached:
    """The command entered `state`."""

    state: State
    at: datetime


@dataclass(frozen=True, slots=True)
class Ended:
    """The command is final and every chunk of it was given."""

    command: Command


Followed = Chunk | StateReached | Ended


class Follower:
    """Reads commands for those who watch them.

    A late reader, one that comes back and one that was there from the start take the same path:
    all read the store from their cursor and wait for "look again" at its end.
    """

    def __init__(self, commands: CommandRepository, output: OutputLog, wakeups: Wakeups) -> None:
        self.commands = commands
        self._output = output
        self._wakeups = wakeups

    async def follow(
        self, command_id: CommandId, from_seq: int = 0
    ) -> AsyncGenerator[Followed, None]:
        """Every chunk with `seq >= from_seq` in order, states as they change, then Ended.

        Nothing is read ahead of the consumer beyond READ_MAX_BYTES. Raises CommandNotFound, and
        OutputDamaged where a stored chunk is missing.
        """
        told: State | None = None
        with self._wakeups.listen(command_topic(command_id)) as bell:
            while True:
                command = await self.commands.get(command_id)
                for reached in _states_before_output(command, told):
                    told = reached.state
                    yield reached
                while from_seq < command.stored.next_seq:
                    chunks = await self._output.read(
                        command_id, from_seq=from_seq, max_bytes=READ_MAX_BYTES
                    )
                    require_from(chunks, from_seq)
                    for chunk in chunks:
                        yield chunk
                        from_seq = chunk.seq + 1
                if command.is_final:
                    yield StateReached(command.state, command.finished_at or command.created_at)
                    yield Ended(command)
                    return
                await rung_or_due(bell, LOOK_AGAIN_S)

    async def wait(self, command_id: CommandId) -> Command:
        """The command once it is final; the caller sets the deadline."""
        with self._wakeups.listen(command_topic(command_id)) as bell:
            while True:
                command = await self.commands.get(command_id)
                if command.is_final:
                    return command
                await rung_or_due(bell, LOOK_AGAIN_S)


def _states_before_output(command: Command, told: State | None) -> list[StateReached]:
    """States that `command` has been in since `told`, as far as its output does not precede them.

    Which states it passed through follows from its times, so a reader that looks late hears of
    the same ones. A final state comes after the output, and is told by the caller.
    """
    passed = [
        StateReached(state, at)
        for state, at in (
            (State.QUEUED, command.created_at),
            (State.DISPATCHED, command.dispatched_at),
            (State.RUNNING, command.started_at),
        )
        if at is not None
    ]
    known = [reached.state for reached in passed]
    if told in known:
        passed = passed[known.index(told) + 1 :]
    elif told is not None:
        passed = []
    is_new = command.state not in FINAL and command.state not in (told, *known)
    if is_new or (told is State.PAUSED and command.state is State.RUNNING):
        passed.append(StateReached(command.state, command.moved_at or command.created_at))
    return passed
