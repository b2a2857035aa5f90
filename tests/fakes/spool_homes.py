"""Spools whose commands write: one in memory, one of files that a real recorder fills."""

import os
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Protocol

from agent.application.ports.spool import Spool
from agent.domain.ids import CommandId
from agent.domain.models.output import Counts, Piece, Stream
from agent.domain.models.transmission import Written
from agent.infrastructure.runner.recorder import Recorder, pipe_for_output
from agent.infrastructure.runner.spool_files import SpoolFiles
from agent.infrastructure.storage.file_spool import FileSpool, file_stem
from agent.infrastructure.storage.in_memory_spool import InMemoryRecording, InMemorySpool
from tests.fakes.agent_ports import NOW, C

STREAMS = list(Stream)
_WRITE_BYTES = 64 * 1024


class SpoolHome(Protocol):
    """A spool, and the commands that write into it."""

    spool: Spool

    def write(self, data: bytes, stream: Stream = Stream.STDOUT, command_id: CommandId = C) -> None:
        """What a command wrote is kept, up to its bound."""
        ...

    def written(self, command_id: CommandId = C) -> Written:
        """What it wrote so far, and what was kept of it."""
        ...

    def reopen(self) -> None:
        """A new process opens the spool."""
        ...

    def close(self) -> None:
        """Let go of everything."""
        ...


class InMemoryHome:
    """An InMemorySpool."""

    def __init__(self, folder: Path, max_bytes: int = 1 << 30) -> None:
        self._recordings: dict[CommandId, InMemoryRecording] = {}
        self._counts: dict[tuple[CommandId, Stream], int] = {}
        self.reopen()

    def write(self, data: bytes, stream: Stream = Stream.STDOUT, command_id: CommandId = C) -> None:
        offset = self._counts.get((command_id, stream), 0)
        self.spool.write(command_id, Piece(stream, offset, data, NOW))
        self._counts[command_id, stream] = offset + len(data)

    def written(self, command_id: CommandId = C) -> Written:
        counts = Counts(*(self._counts.get((command_id, stream), 0) for stream in STREAMS))
        return Written(counts, counts)

    def reopen(self) -> None:
        self.spool = InMemorySpool(self._recordings)

    def close(self) -> None:
        pass


class FileHome:
    """A FileSpool over folders that a Recorder of the runner fills from real pipes.

    `told` says what the recorder was told may go, and `forgotten` which commands.
    """

    def __init__(self, folder: Path, max_bytes: int = 1 << 30) -> None:
        self.folder = folder
        self.usage = SpoolFiles(str(folder))
        self.told: list[tuple[Counts, Counts]] = []
        self.forgotten: list[CommandId] = []
        self._max_bytes = max_bytes
        self._null = os.open(os.devnull, os.O_WRONLY)
        self._recorders: dict[CommandId, Recorder] = {}
        self._pipes: dict[CommandId, list[tuple[int, int]]] = {}
        self.spool = FileSpool(folder, self)

    def path(self, name: str, command_id: CommandId = C) -> Path:
        return self.folder / f"{file_stem(command_id)}.{name}"

    def recorder(self, command_id: CommandId = C) -> Recorder:
        if command_id not in self._recorders:
            self._recorders[command_id] = Recorder(
                str(self.folder / file_stem(command_id)), self._max_bytes, self._null, self.usage
            )
            self._pipes[command_id] = [pipe_for_output(), pipe_for_output()]
        return self._recorders[command_id]

    def write(self, data: bytes, stream: Stream = Stream.STDOUT, command_id: CommandId = C) -> None:
        recorder = self.recorder(command_id)
        number = STREAMS.index(stream)
        read_end, write_end = self._pipes[command_id][number]
        for at in range(0, len(data), _WRITE_BYTES):
            os.write(write_end, data[at : at + _WRITE_BYTES])
            with suppress(BlockingIOError):
                while True:
                    recorder.take(number, read_end, _WRITE_BYTES)
        recorder.flush()

    def written(self, command_id: CommandId = C) -> Written:
        recorder = self.recorder(command_id)
        return Written(Counts(*recorder.written), Counts(*recorder.kept))

    def reopen(self) -> None:
        self.spool.close()
        self.spool = FileSpool(self.folder, self)

    def close(self) -> None:
        self.spool.close()
        for recorder in self._recorders.values():
            recorder.close()
        for pipes in self._pipes.values():
            for end in (end for ends in pipes for end in ends):
                os.close(end)
        os.close(self._null)

    # --- what a SpoolOwner is told ---------------------------------------------------------

    def release(self, command_id: CommandId, stored: Counts, unneeded: Counts) -> None:
        self.told.append((stored, unneeded))
        unlink = (unneeded.stdout, unneeded.stderr)
        self.recorder(command_id).release(stored.stdout, stored.stderr, unlink=unlink)

    def forget(self, command_id: CommandId) -> None:
        self.forgotten.append(command_id)


HOMES: dict[str, Callable[..., SpoolHome]] = {"in_memory": InMemoryHome, "file": FileHome}
