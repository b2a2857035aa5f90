"""The promises of issue 3 under thousands of interleavings: see docs/reliability.md."""

import os
from typing import Any

import pytest
from hypothesis import HealthCheck, event, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from agent.domain.models.output import Stream
from app.domain.models.states import Action
from tests.model.host import Loss, Nature, Tree
from tests.model.network import PING_S, Way
from tests.model.promises import Promises
from tests.model.world import Fault, Mishap, Reader, Wish, World

pytestmark = [
    pytest.mark.timeout(900),
    # A process that dies leaves things behind that it was about to wait for.
    pytest.mark.filterwarnings("ignore:coroutine .* was never awaited"),
]
#: MODEL_EXAMPLES=20000 makes a long run of other interleavings; without it every run is the same.
EXAMPLES = int(os.environ.get("MODEL_EXAMPLES", "0"))
EXAMPLES_DEFAULT = 1200

#: How far the processes go on after an event before the next one comes; None: until they rest.
PACE = st.sampled_from([None, None, None, 0, 1, 2, 3, 5, 8, 13, 21])
WHICH = st.integers(0, 5)
WAY = st.sampled_from(Way)
BYTES = st.sampled_from(
    [b"a", b"line\n", "\u00f6".encode(), "\u00f6".encode()[:1], b"\xff\x00", b"0123456789" * 2]
)
PIECES = st.lists(st.tuples(st.sampled_from(Stream), BYTES), min_size=1, max_size=4)
SECONDS = st.sampled_from([0.003, 0.02, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0, 16.0, 46.0])


class Interleavings(RuleBasedStateMachine):
    """Does anything, at any time, to a controller, an agent, a runner and what is between."""

    def __init__(self) -> None:
        super().__init__()
        self.world = World()
        self.promises = Promises(self.world)

    def go_on(self, pace: int | None) -> None:
        if pace is None:
            self.world.loop.run()
        else:
            self.world.loop.run(pace)

    @initialize(natures=st.lists(st.sampled_from(Nature), min_size=1, max_size=3))
    def begin(self, natures: list[Nature]) -> None:
        for nature in natures:
            self.world.submit(self.world.wish(nature))
        self.world.loop.advance(0.2)

    # --- clients --------------------------------------------------------------------------

    @precondition(lambda self: self.world.controller and len(self.world.wishes) < 6)
    @rule(
        nature=st.sampled_from([*Nature]),
        has_key=st.booleans(),
        timeout_s=st.sampled_from([None, None, 2.0, 20.0]),
        may_wait=st.booleans(),
        expires_in_s=st.sampled_from([None, None, None, None, 3.0]),
        pace=PACE,
    )
    def submit(self, has_key: bool, pace: int | None, **wanted: Any) -> None:
        key = f"k{len(self.world.wishes) + 1}" if has_key else None
        self.world.submit(self.world.wish(key=key, **wanted))
        self.go_on(pace)

    @precondition(lambda self: self.world.controller and self.keyed())
    @rule(which=WHICH, pace=PACE)
    def submit_again(self, which: int, pace: int | None) -> None:
        self.world.submit(pick(self.keyed(), which))
        self.go_on(pace)

    @precondition(lambda self: self.world.controller and self.known())
    @rule(which=WHICH, action=st.sampled_from(Action), pace=PACE)
    def control(self, which: int, action: Action, pace: int | None) -> None:
        self.world.control(pick(self.known(), which), action)
        self.go_on(pace)

    @precondition(lambda self: self.world.controller and self.known())
    @rule(which=WHICH)
    def read_or_go_away(self, which: int) -> None:
        wish = pick(self.known(), which)
        reader = next((r for r in self.world.readers if r.wish is wish), None)
        if reader is None:
            reader = Reader(wish, min(wish.told))
            self.world.readers.append(reader)
        if reader.is_reading:
            self.world.stop_reading(reader)
        else:
            self.world.follow(reader)
        self.go_on(None)

    # --- processes of commands ------------------------------------------------------------

    @precondition(lambda self: self.talking())
    @rule(which=WHICH, pieces=PIECES, pace=PACE)
    def write(self, which: int, pieces: list[tuple[Stream, bytes]], pace: int | None) -> None:
        tree = pick(self.talking(), which)
        for stream, data in pieces:
            if tree.is_alive:
                self.world.say(f"{tree.name} writes {data!r} to {stream}")
                self.world.host.write(tree, stream, data)
        self.go_on(pace)

    @precondition(lambda self: self.talking())
    @rule(
        which=WHICH,
        how=st.sampled_from([(0, None), (3, None), (None, "SIGSEGV")]),
        pace=PACE,
    )
    def exit(self, which: int, how: tuple[int | None, str | None], pace: int | None) -> None:
        tree = pick(self.talking(), which)
        self.world.say(f"{tree.name} ends by itself, code {how[0]}, signal {how[1]}")
        self.world.host.exit(tree, *how)
        self.go_on(pace)

    # --- time and the link ----------------------------------------------------------------

    @rule(seconds=SECONDS)
    def wait(self, seconds: float) -> None:
        self.world.say(f"{seconds:g} s pass")
        self.world.loop.advance(seconds)

    @rule(way=WAY, pace=PACE)
    def hold_or_let_flow(self, way: Way, pace: int | None) -> None:
        network = self.world.network
        if way in network.held:
            self.world.say(f"frames {way} flow again")
            network.release(way)
        else:
            self.world.say(f"frames {way} are held up")
            network.held.add(way)
        self.go_on(pace)

    @precondition(lambda self: self.waiting())
    @rule(which=WHICH, what=st.sampled_from(Mishap), pace=PACE)
    def one_frame(self, which: int, what: Mishap, pace: int | None) -> None:
        way = pick(self.waiting(), which)
        connection = self.world.network.waiting(way)
        self.world.mishap(connection, way, what)
        self.go_on(pace)

    @precondition(lambda self: not self.world.network.damaged)
    @rule()
    def damage_next_chunk(self) -> None:
        self.world.damage_next_chunk()

    @precondition(lambda self: self.world.network.newest and self.world.network.newest.is_open)
    @rule(
        agent_s=st.sampled_from([0.0, PING_S]),
        controller_s=st.sampled_from([0.0, PING_S]),
        loses=st.sampled_from([set(), {Way.UP}, {Way.DOWN}, set(Way)]),
        pace=PACE,
    )
    def cut(self, agent_s: float, controller_s: float, loses: set[Way], pace: int | None) -> None:
        lost = " and ".join(sorted(loses)) or "nowhere"
        self.world.say(
            f"the connection is cut; the agent notices after {agent_s:g} s, the controller after "
            f"{controller_s:g} s; what is on its way {lost} is lost"
        )
        self.world.network.newest.cut(
            client_after_s=agent_s, server_after_s=controller_s, loses=loses
        )
        self.go_on(pace)

    @precondition(lambda self: self.world.network.is_up)
    @rule()
    def unplug(self) -> None:
        self.world.unplug()

    # --- crashes --------------------------------------------------------------------------

    @rule(
        who=st.sampled_from(["controller", "agent", "runner", "host"]), loss=st.sampled_from(Loss)
    )
    def crash(self, who: str, loss: Loss) -> None:
        if who == "controller" and self.world.controller:
            self.world.kill_controller()
        elif who == "agent" and self.world.agent:
            self.world.kill_agent()
        elif who == "runner" and self.world.host.runner:
            self.world.kill_runner()
        elif who == "host":
            self.world.lose_power(loss)

    @precondition(lambda self: self.world.is_broken)
    @rule(pace=PACE)
    def mend(self, pace: int | None) -> None:
        self.world.mend()
        self.go_on(pace)

    # Who has lost his memory on both sides cannot be helped: one of the two a story.

    @precondition(lambda self: not self.world.has_had(Fault.FOLDER_WIPED, Fault.DATABASE_OLD))
    @rule()
    def wipe_folder(self) -> None:
        self.world.wipe_folder()

    @precondition(lambda self: not self.world.has_had(Fault.FOLDER_WIPED))
    @rule()
    def back_up_or_restore(self) -> None:
        if self.world.backup is None:
            self.world.back_up()
        elif not self.world.has_had(Fault.DATABASE_OLD):
            self.world.restore()

    # --- disks ----------------------------------------------------------------------------

    @rule(is_agents=st.booleans())
    def stall_or_go_on(self, is_agents: bool) -> None:
        disk = self.world.host.disk if is_agents else self.world.database_disk
        whose = "agent's" if is_agents else "controller's"
        self.world.say(f"the {whose} disk {'goes on' if disk.is_stalled else 'stands still'}")
        (disk.go_on if disk.is_stalled else disk.stall)()
        self.go_on(None)

    # --- what is promised -----------------------------------------------------------------

    @invariant()
    def promises_hold(self) -> None:
        self.promises.check()

    def teardown(self) -> None:
        try:
            self.finish()
        finally:
            self.world.close()

    def finish(self) -> None:
        """Mend everything, let everything end, and look at the whole."""
        self.promises.check()
        self.world.heal()
        self.promises.check()
        self.promises.check_sessions()
        self.promises.check_stops()
        self.world.end_processes()
        self.promises.check()
        for reader in self.world.readers:
            if not reader.has_ended and not reader.is_reading:
                self.world.follow(reader)
        self.world.loop.advance(10)
        self.promises.check()
        self.promises.check_end()
        for command in self.world.commands:
            event(f"a command ended {command.state}")

    # --- whom it may happen to ------------------------------------------------------------

    def keyed(self) -> list[Wish]:
        return [wish for wish in self.world.wishes if wish.submission.idempotency_key]

    def known(self) -> list[Wish]:
        return [wish for wish in self.world.wishes if wish.told]

    def talking(self) -> list[Tree]:
        return [tree for tree in self.world.live_trees() if not tree.is_paused]

    def waiting(self) -> list[Way]:
        held = sorted(self.world.network.held)
        return [way for way in held if self.world.network.waiting(way) is not None]


def pick(things: list[Any], which: int) -> Any:
    return things[which % len(things)]


TestInterleavings = Interleavings.TestCase
TestInterleavings.settings = settings(
    max_examples=EXAMPLES or EXAMPLES_DEFAULT,
    stateful_step_count=40,
    deadline=None,
    derandomize=not EXAMPLES,
    database=None,
    report_multiple_bugs=False,
    suppress_health_check=list(HealthCheck),
)
