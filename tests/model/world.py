"""Everything together: one controller, one agent on its host, the link, clients; and the story."""

import asyncio
from contextlib import aclosing
from dataclasses import dataclass, field
from enum import StrEnum

from agent.domain.models.output import Stream
from app.application.use_cases.submit_command import Submission
from app.domain.errors import ControllerError
from app.domain.ids import CommandId
from app.domain.models.command import Command
from app.domain.models.command_line import CommandLine
from app.domain.models.output import Chunk
from app.domain.models.states import Action, State
from tests.builders import WEB, a_principal
from tests.model.agent_process import AgentProcess
from tests.model.controller_process import ControllerProcess
from tests.model.host import Files, Host, Loss, Nature, Tree
from tests.model.network import GOODBYE, PING_S, Connection, Network, Way
from tests.model.storage import Database, Disk, JournalFile
from tests.model.virtual_loop import VirtualLoop


class Fault(StrEnum):
    """What may excuse that a command is lost."""

    RUNNER_DIED = "the runner died"
    POWER_LOST = "the host lost its power"
    FOLDER_WIPED = "the data folder was wiped"
    DATABASE_OLD = "the database is an older one"


class Mishap(StrEnum):
    """What may become of the next frame that is held up."""

    ARRIVES = "arrives"
    REPEATED = "arrives, and will once more,"
    LOST = "is lost"
    OVERTAKEN = "is overtaken"


@dataclass(slots=True)
class Wish:
    """Something that a client wanted run: what it said, and what it was told."""

    name: str
    submission: Submission
    nature: Nature
    since: int
    #: Ids that clients were told; more than one is a broken promise.
    told: set[CommandId] = field(default_factory=set)
    asked: list[Action] = field(default_factory=list)
    #: Actions to which the answer was 202.
    granted: list[Action] = field(default_factory=list)


@dataclass(slots=True)
class Reader:
    """A client that follows a command and remembers where it was."""

    wish: Wish
    command_id: CommandId
    chunks: list[Chunk] = field(default_factory=list)
    has_ended: bool = False
    reading: asyncio.Task[None] | None = None
    mistakes: list[str] = field(default_factory=list)

    @property
    def is_reading(self) -> bool:
        return self.reading is not None and not self.reading.done()

    def take(self, chunk: Chunk) -> None:
        if chunk.seq != len(self.chunks):
            self.mistakes.append(f"got chunk {chunk.seq} after {len(self.chunks)} chunks")
        self.chunks.append(chunk)


class World:
    """What a test does to the system, each with a sentence for the story."""

    def __init__(self) -> None:
        self.loop = VirtualLoop()
        asyncio._set_running_loop(self.loop)
        self.network = Network(self.loop)
        self.host = Host(self.loop)
        self.database = Database()
        self.database_disk = Disk()
        self.wishes: list[Wish] = []
        self.readers: list[Reader] = []
        self.faults: list[tuple[int, Fault]] = []
        self.backup: Database | None = None
        #: Final states as they were first seen.
        self.final: dict[CommandId, tuple[State, int | None, str | None]] = {}
        self.story: list[str] = []
        self.steps = 0
        self._ids = 0
        self._lives = 0
        self.controller: ControllerProcess | None = None
        self.agent: AgentProcess | None = None
        self.start_controller()
        self.start_agent()
        self.loop.advance(1)
        self.story.clear()

    def close(self) -> None:
        """End everything; nothing is checked any more."""
        self.network.is_up = False
        if self.agent is not None:
            self.agent.kill()
        if self.controller is not None:
            self.controller.kill()
        self.host.kill_runner()
        self.loop.close()
        asyncio._set_running_loop(None)

    def say(self, sentence: str) -> None:
        """Go on with the story."""
        self.steps += 1
        self.story.append(f"[{self.loop.elapsed:7.2f}] {sentence}")

    def new_id(self) -> str:
        self._ids += 1
        return f"id-{self._ids:05d}"

    # --- processes ------------------------------------------------------------------------

    def start_controller(self) -> None:
        self.say("the controller starts")
        self._lives += 1
        self.controller = ControllerProcess(
            self.database,
            self.database_disk,
            self.network,
            self.new_id,
            f"controller {self._lives}",
        )

    def kill_controller(self) -> None:
        self.say("the controller is killed")
        assert self.controller is not None
        self.controller.kill()
        self.controller = None
        for connection in self.network.connections:
            connection.close_server()

    def start_agent(self) -> None:
        self.say("the agent starts")
        self._lives += 1
        self.agent = AgentProcess(self.host, self.network, f"agent {self._lives}")

    def kill_agent(self) -> None:
        self.say("the agent is killed")
        assert self.agent is not None
        self.agent.kill()
        self.agent = None
        for connection in self.network.connections:
            connection.close_client()

    def kill_runner(self) -> None:
        self.say("the runner is killed")
        self.faults.append((self.steps, Fault.RUNNER_DIED))
        self.host.kill_runner()

    def lose_power(self, loss: Loss) -> None:
        self.say(f"the agent's host loses its power; of what was not synced it loses {loss}")
        self.faults.append((self.steps, Fault.POWER_LOST))
        if self.agent is not None:
            self.agent.kill()
            self.agent = None
        self.host.lose_power(loss)
        for connection in self.network.connections:
            connection.cut(client_after_s=0, server_after_s=PING_S, loses={Way.DOWN})

    def has_had(self, *faults: Fault) -> bool:
        """Whether one of them has happened so far."""
        return any(fault in faults for _, fault in self.faults)

    def back_up(self) -> None:
        self.say("the database is copied")
        self.backup = self.database.copy()

    def restore(self) -> None:
        """Go on with the copy: what came after it is forgotten, and excused."""
        assert self.backup is not None
        if self.controller is not None:
            self.kill_controller()
        self.say("the controller's database is replaced by the older copy")
        self.faults.append((self.steps, Fault.DATABASE_OLD))
        self.database = self.backup.copy()
        self.readers.clear()
        self.final.clear()
        known = {command.text for command in self.commands}
        for wish in self.wishes:
            wish.granted.clear()
            if wish.name not in known:
                wish.told.clear()

    def wipe_folder(self) -> None:
        """The agent's host is set up anew."""
        self.lose_power(Loss.NOTHING)
        self.say("the agent's data folder is wiped")
        self.faults.append((self.steps, Fault.FOLDER_WIPED))
        self.host.journal = JournalFile()
        self.host.files = Files()

    def unplug(self) -> None:
        self.say("the link breaks, and none can be made")
        self.network.is_up = False
        for connection in self.network.connections:
            connection.cut(client_after_s=0, server_after_s=0, loses=set(Way))

    @property
    def is_broken(self) -> bool:
        """Whether something is missing that a person would start."""
        return not (self.controller and self.agent and self.network.is_up)

    def mend(self) -> None:
        """Start what does not run, and plug the cable in."""
        if not self.network.is_up:
            self.say("the link is back")
            self.network.is_up = True
        if self.controller is None:
            self.start_controller()
        if self.agent is None:
            self.start_agent()

    def damage_next_chunk(self) -> None:
        self.say("the next output that is sent is damaged on its way")
        self.network.damages_next_chunk = True

    def mishap(self, connection: Connection, way: Way, what: Mishap) -> None:
        """Let something happen to the first frame that waits there."""
        frames = connection.frames[way]
        frame, second = frames[0], frames[1] if len(frames) > 1 else GOODBYE
        self.say(f"{frame.kind} {way} {what}")
        if what is Mishap.ARRIVES or frame is GOODBYE:
            connection.arrive(way, frames.popleft())
        elif what is Mishap.REPEATED:
            connection.arrive(way, frame)
        elif what is Mishap.LOST:
            frames.popleft()
        elif second is not GOODBYE:
            frames[0], frames[1] = second, frame

    # --- clients --------------------------------------------------------------------------

    def wish(
        self,
        nature: Nature,
        *,
        key: str | None = None,
        timeout_s: float | None = None,
        may_wait: bool = False,
        expires_in_s: float | None = None,
    ) -> Wish:
        """Something new that a client wants run."""
        name = f"c{len(self.wishes) + 1}"
        submission = Submission(
            principal=a_principal(),
            agent_id=WEB,
            line=CommandLine(name),
            timeout_s=timeout_s,
            may_wait=may_wait,
            expires_in_s=expires_in_s,
            idempotency_key=key,
            fingerprint=name,
        )
        self.host.natures[name] = nature
        wish = Wish(name, submission, nature, self.steps)
        self.wishes.append(wish)
        return wish

    def submit(self, wish: Wish) -> None:
        wanted = wish.submission
        more = [f"timeout {wanted.timeout_s:g} s"] if wanted.timeout_s else []
        more += ["queue"] if wanted.may_wait else []
        more += [f"expires in {wanted.expires_in_s:g} s"] if wanted.expires_in_s else []
        more += [f"key {wanted.idempotency_key}"] if wanted.idempotency_key else []
        again = " again" if wish.told else ""
        self.say(f"a client submits {wish.name}{again} ({', '.join([wish.nature, *more])})")
        assert self.controller is not None
        self.controller.life.spawn(self._submit(self.controller, wish))

    async def _submit(self, controller: ControllerProcess, wish: Wish) -> None:
        try:
            command_id = await controller.submit(wish.submission)
        except ControllerError as exc:
            self.story.append(f"          {wish.name} was refused: {exc.code}")
            return
        wish.told.add(command_id)

    def control(self, wish: Wish, action: Action) -> None:
        self.say(f"a client asks to {action} {wish.name}")
        wish.asked.append(action)
        assert self.controller is not None
        self.controller.life.spawn(self._control(self.controller, wish, action))

    async def _control(self, controller: ControllerProcess, wish: Wish, action: Action) -> None:
        try:
            await controller.control(min(wish.told), action)
        except ControllerError as exc:
            self.story.append(f"          {action} of {wish.name} was refused: {exc.code}")
            return
        wish.granted.append(action)

    def follow(self, reader: Reader) -> None:
        """Read on from where the reader was."""
        self.say(f"a reader follows {reader.wish.name} from chunk {len(reader.chunks)}")
        assert self.controller is not None
        reader.reading = self.controller.life.spawn(self._follow(self.controller, reader))

    async def _follow(self, controller: ControllerProcess, reader: Reader) -> None:
        async with aclosing(controller.follow(reader.command_id, len(reader.chunks))) as found:
            async for item in found:
                if isinstance(item, Chunk):
                    reader.take(item)
                else:
                    reader.has_ended = True

    def stop_reading(self, reader: Reader) -> None:
        self.say(f"the reader of {reader.wish.name} goes away")
        assert reader.reading is not None
        reader.reading.cancel()

    # --- what stands in the stores --------------------------------------------------------

    @property
    def commands(self) -> list[Command]:
        """What the controller's database holds."""
        return list(self.database.commands._commands.values())

    def stored(self, command: Command, stream: Stream) -> bytes:
        """What is stored of a stream."""
        chunks = self.database.output._chunks.get(command.id, ())
        return b"".join(chunk.data for chunk in chunks if chunk.stream == stream)

    def wish_of(self, command: Command) -> Wish:
        return next(wish for wish in self.wishes if wish.name == command.text)

    def tree_of(self, command: Command) -> Tree | None:
        return self.host.trees.get(command.id)

    def live_trees(self) -> list[Tree]:
        return [tree for tree in self.host.trees.values() if tree.is_alive]

    # --- the end --------------------------------------------------------------------------

    def heal(self) -> None:
        """Mend everything, and let both sides find each other again."""
        self.say("everything is mended")
        self.database_disk.go_on()
        self.host.disk.go_on()
        self.network.release(*Way)
        self.mend()
        self.loop.advance(PING_S + 15)
        for connection in self.network.connections:
            if connection.is_open:  # what was lost on the way is sent again in a new session
                connection.cut(client_after_s=0, server_after_s=0, loses=set(Way))
        self.loop.advance(60)

    def end_processes(self) -> None:
        """Let everything that runs come to its end, and what waits as well."""
        for _ in range(2 * len(self.wishes) + 2):
            live = self.live_trees()
            for tree in live:
                tree.is_paused = False
                self.host.exit(tree, 7, None)
            self.loop.advance(4)
            if not live and not any(not c.is_final for c in self.commands):
                return
