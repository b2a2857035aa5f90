"""The agent's host: processes, the runner that owns them, and what lies on the disk.

The runner here is a model of agent.infrastructure.runner: the same requests, the same answers
and files, the same steps of a stop, over processes that do as the test says.
"""

import asyncio
import itertools
from collections import deque
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import Any

from agent.domain.ids import CommandId
from agent.domain.models.output import Piece, Stream
from agent.domain.stopping import Force, Impulse, Survivors, TreeStop
from agent.infrastructure.runner.channel import LENGTH, PROTOCOL, packed
from agent.infrastructure.runner.client import RunnerClient, _Link
from agent.infrastructure.runner.job import CHILDREN_READ_S, runner_died
from agent.infrastructure.runner.records import from_json
from agent.infrastructure.runner.server import GATHER_S, IDLE_S
from agent.infrastructure.storage.file_spool import file_stem
from agent.infrastructure.storage.in_memory_spool import InMemoryRecording, InMemorySpool
from agent.infrastructure.storage.journal_records import from_micros, to_micros
from tests.builders import NOW
from tests.model.storage import Disk, JournalFile
from tests.model.virtual_loop import Life, VirtualLoop

Facts = dict[str, Any]


class Nature(StrEnum):
    """What a command's processes do when they are asked to end."""

    MILD = "mild"
    STUBBORN = "stubborn"
    #: Leaves a child behind that holds its pipes.
    PARENT = "parent"


@dataclass(slots=True)
class Tree:
    """The processes of one command, and what really happened to them."""

    command_id: CommandId
    name: str
    nature: Nature
    timeout_s: float | None
    started_at: float
    is_alive: bool = True
    has_child: bool = False
    is_paused: bool = False
    is_terminated: bool = False
    wrote: dict[Stream, bytearray] = field(default_factory=lambda: {s: bytearray() for s in Stream})
    #: Bytes that nobody has taken out of the pipes yet.
    pipe: deque[tuple[Stream, bytes]] = field(default_factory=deque)
    code: int | None = None
    signal: str | None = None
    #: A stop began while its first process lived.
    is_stopped: bool = False
    #: How it ended is in a file.
    is_written_down: bool = False
    #: Bytes that the runner has taken, of those that it keeps.
    kept: dict[Stream, int] = field(default_factory=lambda: dict.fromkeys(Stream, 0))

    @property
    def alive(self) -> int:
        """How many of its processes live."""
        return self.is_alive + self.has_child

    def pids(self) -> tuple[int, ...]:
        return tuple(range(1, 1 + self.alive))

    def end(self, code: int | None, signal: str | None) -> None:
        """The first process ends."""
        self.is_alive, self.code, self.signal = False, code, signal

    def signal_all(self, impulse: Impulse) -> Survivors:
        """Send it to every process; who lived before that."""
        before = Survivors(self.pids())
        if impulse is Impulse.TERMINATE:
            self.is_terminated = True
        elif impulse in (Impulse.PAUSE, Impulse.CONTINUE):
            self.is_paused = impulse is Impulse.PAUSE
        dies_of_term = (
            self.is_terminated and not self.is_paused and self.nature is not Nature.STUBBORN
        )
        if impulse is Impulse.KILL or dies_of_term:
            self.has_child = False
            if self.is_alive:
                self.end(None, "SIGKILL" if impulse is Impulse.KILL else "SIGTERM")
        return before


class Loss(StrEnum):
    """What of the files that were never synced a loss of power takes."""

    NOTHING = "nothing"
    ENDS = "the newest"
    ALL = "everything"


@dataclass(slots=True)
class Folder:
    """A command's folder in the spool."""

    start: Facts
    exit: Facts | None = None


@dataclass(slots=True)
class Files:
    """The data folder without the journal."""

    folders: dict[str, Folder] = field(default_factory=dict)
    recordings: dict[CommandId, InMemoryRecording] = field(default_factory=dict)
    #: What a runner that has ended in order leaves to the next one; what is synced of that.
    legacy: Facts | None = None
    synced_legacy: Facts | None = None

    def lose(self, loss: Loss) -> None:
        """The power goes."""
        if loss is Loss.NOTHING:
            return
        self.legacy = self.synced_legacy
        for folder in self.folders.values():
            folder.exit = None
        for recording in self.recordings.values():
            del recording.pieces[len(recording.pieces) // 2 :]
        if loss is Loss.ALL:
            self.folders.clear()
            self.recordings.clear()


class Host:
    """One machine; `starts` counts how often each command was really started."""

    def __init__(self, loop: VirtualLoop) -> None:
        self.loop = loop
        self.disk = Disk()
        self.journal = JournalFile()
        self.files = Files()
        self.trees: dict[CommandId, Tree] = {}
        self.starts: dict[CommandId, int] = {}
        self.runner: ModelRunner | None = None
        #: What is to become of a command, by its text.
        self.natures: dict[str, Nature] = {}
        self._runners = itertools.count(1)

    def now_us(self) -> int:
        return to_micros(NOW) + round(self.loop.elapsed * 1_000_000)

    def start_runner(self) -> "ModelRunner":
        """A runner that takes over what other ones left."""
        self.runner = ModelRunner(self, f"runner {next(self._runners)}")
        self.runner.take_over()
        return self.runner

    def kill_runner(self) -> None:
        """Its children live on, their pipes are broken."""
        runner, self.runner = self.runner, None
        if runner is not None:
            runner.life.end()
            runner.break_channels()
        for tree in self.trees.values():
            tree.pipe.clear()

    def lose_power(self, loss: Loss) -> None:
        """Nothing lives any more; what was not synced may be gone."""
        self.kill_runner()
        for tree in self.trees.values():
            tree.has_child = False
            if tree.is_alive:
                tree.end(None, None)
            tree.is_written_down = tree.is_written_down and loss is Loss.NOTHING
        if loss is not Loss.NOTHING:
            self.journal.written.clear()
        self.files.lose(loss)

    def retire_runner(self, runner: "ModelRunner") -> None:
        """It has ended in order, and leaves its memory to the next one."""
        self.files.legacy = self.files.synced_legacy = runner.memory()
        self.runner = None
        self.loop.call_soon(runner.life.end)

    # --- processes ------------------------------------------------------------------------

    def spawn(self, wanted: Facts) -> Tree:
        """Really start a command."""
        command_id = CommandId(wanted["id"])
        self.starts[command_id] = self.starts.get(command_id, 0) + 1
        name = wanted["command"]
        nature = self.natures[name]
        tree = Tree(command_id, name, nature, wanted["timeout_s"], self.loop.elapsed)
        tree.has_child = nature is Nature.PARENT
        self.trees[command_id] = tree
        return tree

    def write(self, tree: Tree, stream: Stream, data: bytes) -> None:
        """The first process writes."""
        if self.runner is None or tree.command_id not in self.runner.running:
            tree.end(None, "SIGPIPE")
            return
        tree.wrote[stream] += data
        tree.pipe.append((stream, data))
        self.runner.noticed(tree)

    def exit(self, tree: Tree, code: int | None, signal: str | None) -> None:
        """The first process ends by itself."""
        tree.end(code, signal)
        if self.runner is not None:
            self.runner.noticed(tree)


class Job:
    """A command as its runner sees it; the steps are those of RunningJob."""

    def __init__(self, runner: "ModelRunner", tree: Tree, folder: Folder, max_bytes: int) -> None:
        self.runner = runner
        self.tree = tree
        self.folder = folder
        self.recording = runner.recording(tree.command_id)
        self.started_at_us: int = folder.start["started_at"]
        self.written = dict.fromkeys(Stream, 0)
        self.kept = dict.fromkeys(Stream, 0)
        self.max_bytes = max_bytes
        self.is_paused = False
        self._has_pipes = True
        self._exit: Facts | None = None
        self._stop: TreeStop | None = None
        self._ended_as: str | None = None
        self._failure: Facts | None = None
        self._is_left = False

    def facts(self) -> Facts:
        state = "ended" if self.folder.exit else "paused" if self.is_paused else "running"
        return {
            "id": self.tree.command_id,
            "name": file_stem(self.tree.command_id),
            "state": state,
            "started_at": self.started_at_us,
            "stop_failure": None,
            "end": self.folder.exit,
        }

    def begin(self, timeout_s: float | None) -> None:
        if timeout_s is not None:
            why = {"code": "timed_out", "message": f"stopped after {timeout_s:g} s"}
            self.runner.life.call_later(timeout_s, lambda: self._time_out(why))

    def _time_out(self, why: Facts) -> None:
        if self._exit is None:
            self.stop("timed_out", Force.ASK, why)

    def look(self) -> None:
        """Take what is in the pipes, and notice the end of the first process."""
        while self.tree.pipe:
            self._take(*self.tree.pipe.popleft())
        if not self.tree.is_alive and self._exit is None:
            self._exit = {"code": self.tree.code, "signal": self.tree.signal}
            self.runner.life.call_later(CHILDREN_READ_S, self._abandon)
        if not self.tree.alive:
            self._has_pipes = False
        self._settle()

    def _take(self, stream: Stream, data: bytes) -> None:
        room = self.max_bytes - sum(self.kept.values())
        if kept := data[:room]:
            at = from_micros(self.runner.host.now_us())
            self.recording.add(Piece(stream, self.kept[stream], kept, at))
            self.kept[stream] += len(kept)
            self.tree.kept[stream] += len(kept)
            self.runner.grown(self)
        self.written[stream] += len(data)

    def _abandon(self) -> None:
        if self._stop is not None and not self._stop.is_gone:
            self.runner.life.call_later(CHILDREN_READ_S, self._abandon)
            return
        self._has_pipes = False
        self._settle()

    def stop(self, ended_as: str, force: Force, failure: Facts | None) -> None:
        if self._exit is not None and self._stop is None:
            return
        if self._stop is not None:
            self._stop.insist(force)
        else:
            self._ended_as, self._failure = ended_as, failure
            self._stop = TreeStop(force, now=self.runner.host.loop.time())
            self.tree.is_stopped = self.tree.is_alive
        self._drive()

    def shift(self, impulse: Impulse) -> bool:
        """Pause or continue it, unless it is being stopped or has ended."""
        if self._stop is not None or self._exit is not None:
            return False
        self.tree.signal_all(impulse)
        self.is_paused = impulse is Impulse.PAUSE
        return True

    def clean_up(self) -> None:
        """Kill what a dead runner left of it; then it is lost."""
        self._exit, self._ended_as, self._failure = {}, "lost", runner_died()
        self._is_left = True
        self._has_pipes = False
        self._stop = TreeStop(Force.KILL, now=self.runner.host.loop.time())
        self._drive()

    def _drive(self) -> None:
        stop = self._stop
        if stop is None or stop.is_gone:
            return
        first, *others = stop.impulses(self.runner.host.loop.time())
        alive = self.tree.signal_all(first)
        for impulse in others:
            self.tree.signal_all(impulse)
        pause_s = stop.note(alive, self.runner.host.loop.time())
        self.runner.noticed(self.tree)
        if pause_s is None:
            self._settle()
        else:
            self.runner.life.call_later(pause_s, self._drive)

    def _settle(self) -> None:
        is_stopping = self._stop is not None and not self._stop.is_gone
        if self.folder.exit or self._exit is None or self._has_pipes or is_stopping:
            return
        was_stopped = self._stop is not None and (self._stop.found_any or self._is_left)
        self.folder.exit = {
            **self._exit,
            "command_id": self.tree.command_id,
            "ended_as": self._ended_as if was_stopped else None,
            "failure": self._failure if was_stopped else None,
            "stop_failure": None,
            "started_at": self.started_at_us,
            "finished_at": self.runner.host.now_us(),
            "written": [self.written[stream] for stream in Stream],
            "kept": [self.kept[stream] for stream in Stream],
        }
        self.tree.is_written_down = not self._is_left
        self.runner.ended(self)


class ModelRunner:
    """Owns the commands of one agent, and answers it."""

    def __init__(self, host: Host, name: str) -> None:
        self.host = host
        self.life = Life(host.loop, name)
        self.jobs: dict[CommandId, Job] = {}
        self.running: dict[CommandId, Job] = {}
        legacy = host.files.legacy
        host.files.legacy = host.files.synced_legacy = None
        self.runner_id: str = legacy["runner_id"] if legacy else name
        self._started: dict[CommandId, None] = dict.fromkeys(legacy["started"] if legacy else ())
        self._agent: Channel | None = None
        self._grown: set[CommandId] = set()

    def take_over(self) -> None:
        """Keep what has ended, and end what still lives."""
        for folder in list(self.host.files.folders.values()):
            tree = self.host.trees[CommandId(folder.start["command_id"])]
            job = Job(self, tree, folder, 0)
            for piece in job.recording.pieces:
                job.kept[piece.stream] = piece.offset + len(piece.data)
            job.written = dict(job.kept)
            self.jobs[tree.command_id] = job
            if folder.exit is None:
                self.running[tree.command_id] = job
                job.clean_up()

    def break_channels(self) -> None:
        """The agent sees that the socket is closed."""
        if self._agent is not None:
            self._agent.close()

    def agent_gone(self) -> None:
        """Its agent has died; without work it ends some time later."""
        self._agent = None
        self.life.call_later(IDLE_S, self._retire)

    def _retire(self) -> None:
        if self._agent is None and not self.running:
            self.host.retire_runner(self)

    def memory(self) -> Facts:
        """What the next runner goes on with."""
        return {"runner_id": self.runner_id, "started": list(self._started)}

    def recording(self, command_id: CommandId) -> InMemoryRecording:
        """Where the output of a command goes."""
        return self.host.files.recordings.setdefault(command_id, InMemoryRecording())

    # --- what happens here ----------------------------------------------------------------

    def noticed(self, tree: Tree) -> None:
        """Something happened to a tree: its job looks, soon."""
        if job := self.running.get(tree.command_id):
            self.life.call(job.look)

    def grown(self, job: Job) -> None:
        """Tell it soon, once."""
        if job.tree.command_id not in self._grown:
            self._grown.add(job.tree.command_id)
            self.life.call_later(GATHER_S, lambda: self._tell_grown(job.tree.command_id))

    def _tell_grown(self, command_id: CommandId) -> None:
        self._grown.discard(command_id)
        if command_id in self.running:
            self._tell({"is": "grown", "id": command_id})

    def ended(self, job: Job) -> None:
        """Tell how it ended."""
        self.running.pop(job.tree.command_id, None)
        self._tell({"is": "ended", "id": job.tree.command_id, "end": job.folder.exit})

    def _tell(self, facts: Facts) -> None:
        if self._agent is not None:
            self._agent.tell(facts)

    # --- what it is asked -----------------------------------------------------------------

    def answer(self, channel: "Channel", facts: Facts) -> None:
        """Do what the agent asks, and answer under its number."""
        handle = getattr(self, f"_{facts['do']}")
        if facts["do"] == "hello":
            self._agent = channel
        answer = handle(facts)
        if "n" in facts:
            channel.tell({"is": "answer", "id": str(facts["n"]), **answer})

    def _hello(self, facts: Facts) -> Facts:
        jobs = [job.facts() for job in self.jobs.values()]
        return {"v": PROTOCOL, "runner_id": self.runner_id, "pid": 1, "jobs": jobs}

    def _start(self, facts: Facts) -> Facts:
        command_id, name = CommandId(facts["id"]), facts["name"]
        if command_id in self.jobs or command_id in self._started or name in self._folders:
            return {"code": "started_before", "message": "it was started before"}
        self._started[command_id] = None
        origin = {"command_id": command_id, "started_at": self.host.now_us()}
        folder = self._folders[name] = Folder(origin)
        job = Job(self, self.host.spawn(facts), folder, facts["max_output_bytes"])
        self.jobs[command_id] = self.running[command_id] = job
        job.begin(facts["timeout_s"])
        return {"pid": 1, "started_at": job.started_at_us}

    def _remembers(self, facts: Facts) -> Facts:
        return {"has_started": facts["id"] in self._started}

    def _stop(self, facts: Facts) -> Facts:
        if job := self.running.get(facts["id"]):
            job.stop(facts["as"], Force(facts["force"]), facts.get("failure"))
        return {}

    def _pause(self, facts: Facts) -> Facts:
        job = self.running.get(facts["id"])
        return {"has_happened": job is not None and job.shift(Impulse.PAUSE)}

    def _resume(self, facts: Facts) -> Facts:
        job = self.running.get(facts["id"])
        return {"has_happened": job is not None and job.shift(Impulse.CONTINUE)}

    def _release(self, facts: Facts) -> Facts:
        return {}

    def _forget(self, facts: Facts) -> Facts:
        if facts["id"] in self.jobs and facts["id"] not in self.running:
            del self.jobs[facts["id"]]
            del self._folders[file_stem(facts["id"])]
            self.host.files.recordings.pop(facts["id"], None)
        return {}

    @property
    def _folders(self) -> dict[str, Folder]:
        return self.host.files.folders


class Channel:
    """The Unix socket between an agent's link and a runner; also the link's transport."""

    def __init__(self, runner: ModelRunner, link: _Link, agent: Life) -> None:
        self._runner = runner
        self._link = link
        self._agent = agent
        self._is_open = True

    def write(self, data: bytes) -> None:
        """What the agent asks: it arrives although the agent dies meanwhile."""
        if self._is_open and not self._agent.is_over:
            (length,) = LENGTH.unpack_from(data)
            facts = from_json(data[LENGTH.size : LENGTH.size + length])
            self._runner.life.call(self._runner.answer, self, facts)

    def tell(self, facts: Facts) -> None:
        """What the runner says."""
        if self._is_open:
            self._agent.call(self._link.data_received, packed(facts))

    def close(self) -> None:
        """It is over, for the agent, too."""
        if self._is_open:
            self._is_open = False
            self._agent.call(self._link.connection_lost, None)


class ModelRunnerClient(RunnerClient):
    """The real client over a Channel instead of a socket."""

    def __init__(self, host: Host, life: Life, grown: Any) -> None:
        super().__init__(Path("/"), spool_max_bytes=1 << 20, grown=grown)
        self._host = host
        self._life = life

    async def _connect(self) -> _Link:
        await asyncio.sleep(0)
        self._life.require()
        if self._host.runner is None:
            raise ConnectionRefusedError
        link = _Link(self._hear, self._part)
        link.connection_made(Channel(self._host.runner, link, self._life))  # type: ignore[arg-type]
        return link

    async def _launch(self) -> None:
        await asyncio.sleep(0)
        self._life.require()
        if self._host.runner is None:
            self._host.start_runner()


class HostSpool(InMemorySpool):
    """A Spool over the recordings of a host, which the runner fills and deletes."""

    def __init__(self, host: Host, runner: ModelRunnerClient) -> None:
        super().__init__(host.files.recordings)
        self._runner = runner

    def forget(self, command_id: CommandId) -> None:
        self._transmissions.pop(command_id, None)
        self._runner.forget(command_id)
