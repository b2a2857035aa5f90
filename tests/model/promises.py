"""What Ogent promises of every accepted command, checked against what really happened."""

from typing import NoReturn

from agent.domain.models.output import Stream, incomplete_tail
from agent.domain.stopping import KILL_GRACE_S, TERM_GRACE_S
from app.application.dispatcher import agent_state_lost
from app.domain.models.command import Command
from app.domain.models.states import STOPS, State
from tests.builders import WEB
from tests.model.host import Tree
from tests.model.world import Fault, Wish, World

#: How long after its deadline a tree may live: until it is killed, and that was seen.
DEADLINE_SLACK_S = TERM_GRACE_S + KILL_GRACE_S


class BrokenPromise(AssertionError):
    """What happened, step by step, and the promise that it broke."""


class Promises:
    """Looks at a world again and again."""

    def __init__(self, world: World) -> None:
        self._world = world

    def break_(self, promise: str, what: str) -> NoReturn:
        story = "\n".join(f"  {n:3}. {line}" for n, line in enumerate(self._world.story, 1))
        raise BrokenPromise(f"\n\n{story}\n\nBroken: {promise}\n        {what}\n")

    # --- at every step --------------------------------------------------------------------

    def check(self) -> None:
        """What holds at any time."""
        self._nothing_failed()
        for command_id, starts in self._world.host.starts.items():
            if starts > 1:
                self.break_("it starts at most once", f"{command_id} was started {starts} times")
        for command in self._world.commands:
            self._final_stays(command)
            self._output_is_true(command)
            if not self._world.has_had(Fault.DATABASE_OLD):  # which may not know that it runs
                self._a_stop_is_a_stop(command)
        for tree in self._world.live_trees():
            self._deadline_holds(tree)
        for reader in self._world.readers:
            if reader.mistakes:
                self.break_("every subscriber sees every chunk once, in order", reader.mistakes[0])
        for wish in self._world.wishes:
            if wish.submission.idempotency_key is not None and len(wish.told) > 1:
                self.break_("one key is one command", f"{wish.name} was given {sorted(wish.told)}")

    def _nothing_failed(self) -> None:
        if self._world.loop.failures:
            self.break_("nothing fails unnoticed", self._world.loop.failures[0])

    def _final_stays(self, command: Command) -> None:
        if not command.is_final:
            if command.id in self._world.final:
                self.break_("a final state never changes", self._said(command))
            return
        now = (command.state, command.exit_code, command.signal)
        if self._world.final.setdefault(command.id, now) != now:
            self.break_("a final state never changes", self._said(command))

    def _output_is_true(self, command: Command) -> None:
        tree = self._world.tree_of(command)
        for stream in Stream:
            stored = self._world.stored(command, stream)
            wrote = bytes(tree.wrote[stream]) if tree else b""
            if not wrote.startswith(stored) and not self._is_said_to_differ(command):
                text = f"{stored!r} is stored of {wrote!r} ({stream} of {command.text})"
                self.break_("stored output is what the process wrote", text)

    def _is_said_to_differ(self, command: Command) -> bool:
        """Whether it was damaged on its way, and the end, once it is there, says so."""
        is_told = command.stdout_written is not None
        return command.id in self._world.network.damaged and (not is_told or bool(command.missing))

    def _a_stop_is_a_stop(self, command: Command) -> None:
        tree = self._world.tree_of(command)
        if command.state in (State.CANCELLED, State.TIMED_OUT) and tree is not None and tree.alive:
            text = f"{command.text} is {command.state}, and {tree.alive} of its processes live"
            self.break_("after a stop no process of the tree is left", text)

    def _deadline_holds(self, tree: Tree) -> None:
        runner = self._world.host.runner
        if tree.timeout_s is None or runner is None or tree.command_id not in runner.running:
            return
        late_s = self._world.loop.elapsed - tree.started_at - tree.timeout_s
        if late_s > DEADLINE_SLACK_S:
            self.break_(
                "a deadline holds on the host", f"{tree.name} lives {late_s:g} s after its own"
            )

    # --- when everything is over ----------------------------------------------------------

    def check_sessions(self) -> None:
        """After everything was mended the two sides have found each other."""
        agent = self._world.agent
        if agent is None or not agent.is_serving:
            self.break_("the agent comes back by itself", "it has no session")
        if not self._world.database.agents._agents[WEB].is_online:
            self.break_("a late end of an old session is not the new one's", "it is off line")

    def check_stops(self) -> None:
        """Who was to be stopped, and that was granted, is stopped by now."""
        for command in self._world.commands:
            wish = self._world.wish_of(command)
            if not command.is_final and STOPS & set(wish.granted):
                self.break_("a granted stop takes effect", self._said(command))

    def check_end(self) -> None:
        """What holds once everything has ended."""
        stored = {command.id for command in self._world.commands}
        for wish in self._world.wishes:
            for command_id in wish.told:
                if command_id not in stored:
                    self.break_("nothing accepted is forgotten", f"{wish.name} is not there")
        for wish in self._world.wishes:
            made = [c for c in self._world.commands if c.text == wish.name]
            if len(made) > 1:
                self.break_("one key is one command", f"{wish.name} is there {len(made)} times")
        for command in self._world.commands:
            self._a_stop_is_a_stop(command)
            self._end_is_true(command, self._world.wish_of(command))
        if self._world.agent is None or not self._world.agent.holds_nothing:
            self.break_("everything is told to the controller", "the agent still holds a command")
        runner = self._world.host.runner
        if runner is None or runner.jobs:
            self.break_("nothing is left behind", "the runner still keeps a command")
        for reader in self._world.readers:
            command = self._world.database.commands._commands[reader.command_id]
            if not reader.has_ended or len(reader.chunks) != command.stored.next_seq:
                what = f"the reader of {command.text} has {len(reader.chunks)} chunks"
                self.break_("every subscriber sees every chunk, and the end", what)

    def _end_is_true(self, command: Command, wish: Wish) -> None:
        tree = self._world.tree_of(command)
        if not command.is_final:
            self.break_("it ends in one final state", self._said(command))
        said = f"{self._said(command)}; really: {_really(tree)}"
        if not self._is_true(command, wish, tree):
            self.break_("its final state is the one that it really had", said)
        is_whole = command.state is not State.LOST and command.id not in self._world.network.damaged
        if is_whole and not self._faults_of(wish):
            for stream in Stream:
                stored = len(self._world.stored(command, stream))
                if command.missing or stored != _kept_text(tree, stream):
                    self.break_("its output is complete", said)

    def _is_true(self, command: Command, wish: Wish, tree: Tree | None) -> bool:
        is_stopped = tree is None or (tree.is_stopped and not tree.alive)
        match command.state:
            case State.SUCCEEDED | State.FAILED if tree is not None:
                code = command.exit_code
                return not tree.is_stopped and (code, command.signal) == (tree.code, tree.signal)
            case State.FAILED:
                return command.failure is not None
            case State.TIMED_OUT:
                return tree is not None and is_stopped and tree.timeout_s is not None
            case State.CANCELLED:
                return is_stopped and bool(STOPS & set(wish.asked))
            case State.REJECTED:
                return tree is None
            case _:
                return self._may_be_lost(command, wish, tree)

    def _may_be_lost(self, command: Command, wish: Wish, tree: Tree | None) -> bool:
        """Whether something happened after which nobody can know how it ended."""
        faults = self._faults_of(wish)
        if command.failure is None or command.failure.code == "impossible_result":
            return False
        if command.failure == agent_state_lost():  # its agent has no record of what it accepted
            return self._world.has_had(Fault.FOLDER_WIPED, Fault.DATABASE_OLD)
        if faults == {Fault.RUNNER_DIED} and tree is not None:
            return not tree.is_written_down
        return bool(faults)

    def _faults_of(self, wish: Wish) -> set[Fault]:
        return {fault for step, fault in self._world.faults if step >= wish.since}

    def _said(self, command: Command) -> str:
        why = f" ({command.failure.code})" if command.failure else ""
        how = f" code {command.exit_code} signal {command.signal}"
        return f"{command.text} ({command.id}) is said to be {command.state}{why}{how}"


def _kept_text(tree: Tree | None, stream: Stream) -> int:
    """Bytes that are to be stored: those that are kept, without half a character at a cut."""
    if tree is None:
        return 0
    kept, wrote = tree.kept[stream], bytes(tree.wrote[stream])
    return kept if kept == len(wrote) else kept - incomplete_tail(wrote[:kept])


def _really(tree: Tree | None) -> str:
    if tree is None:
        return "it was never started"
    stopped = ", was stopped" if tree.is_stopped else ""
    output = ", ".join(f"{stream} {bytes(tree.wrote[stream])!r}" for stream in Stream)
    return f"code {tree.code} signal {tree.signal}{stopped}; it wrote {output}"
