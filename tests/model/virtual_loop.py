"""An event loop whose time is turned by hand, and the lives of the processes that share it."""

import asyncio
import heapq
import itertools
import signal
from collections.abc import Callable, Coroutine
from contextvars import Context, ContextVar, copy_context
from typing import Any

#: Handles that one call of `run` may take: more means that something turns in circles.
RUN_MAX = 200_000
#: CPU seconds after which a step that does not end is broken off.
STEP_MAX_S = 10.0
#: Rounds in which the tasks of a process that has died must have ended.
UNWIND_MAX = 50


class Standstill(Exception):
    """Something never comes to rest."""


class _Endless(SystemExit):
    """Raised within a step that does not end; a loop lets nothing else through."""


class OrderedTask(asyncio.Task[Any]):
    """A task with a number for its hash: sets of tasks have the same order in every run."""

    def __init__(self, *args: Any, number: int, **options: Any) -> None:
        self._number = number
        super().__init__(*args, **options)

    def __hash__(self) -> int:
        return self._number


class VirtualLoop(asyncio.BaseEventLoop):
    """Runs one handle at a time, whenever it is told to; nothing ever waits for real."""

    def __init__(self) -> None:
        super().__init__()
        self.elapsed = 0.0
        #: What no handler has caught: each is a bug.
        self.failures: list[str] = []
        self._numbers = itertools.count()
        self.set_task_factory(self._new_task)
        self.set_exception_handler(self._note_failure)

    def time(self) -> float:
        return self.elapsed

    @property
    def is_idle(self) -> bool:
        """Whether nothing can go on before time does."""
        return not self._ready

    def run(self, most: int = RUN_MAX) -> None:
        """Take up to `most` steps: until nothing is left to do at this time."""
        signal.signal(signal.SIGVTALRM, _break_off)
        signal.setitimer(signal.ITIMER_VIRTUAL, STEP_MAX_S)
        try:
            self._run(most)
        except _Endless as exc:
            raise Standstill("a step never ends") from exc
        finally:
            signal.setitimer(signal.ITIMER_VIRTUAL, 0)

    def _run(self, most: int) -> None:
        for _ in range(most):
            self._wake_due()
            if not self._ready:
                return
            handle = self._ready.popleft()
            if not handle.cancelled():
                handle._run()
        if most == RUN_MAX:
            raise Standstill("the processes never come to rest")

    def advance(self, seconds: float) -> None:
        """Let so much time pass; whoever sleeps wakes when it is his time."""
        end = self.elapsed + seconds
        self.run()
        while (due := self._next_due()) is not None and due <= end:
            self.elapsed = max(due, self.elapsed)
            self.run()
        self.elapsed = end

    def unwind(self, life: "Life") -> None:
        """Run what belongs to `life` alone, until all its tasks have ended."""
        for _ in range(UNWIND_MAX):
            for task in life.tasks:
                task.cancel()
            while self._run_one_of(life):
                pass
            if all(task.done() for task in life.tasks):
                break
        else:
            raise Standstill(f"{life.name} does not die")
        for timer in self._scheduled:
            if timer._context.get(LIFE, None) is life:
                timer.cancel()

    def _run_one_of(self, life: "Life") -> bool:
        for place, handle in enumerate(self._ready):
            if handle._context.get(LIFE, None) is life:
                del self._ready[place]
                if not handle.cancelled():
                    handle._run()
                return True
        return False

    def _next_due(self) -> float | None:
        while self._scheduled and self._scheduled[0].cancelled():
            heapq.heappop(self._scheduled)._scheduled = False
        return self._scheduled[0].when() if self._scheduled else None

    def _wake_due(self) -> None:
        while (due := self._next_due()) is not None and due <= self.elapsed:
            timer = heapq.heappop(self._scheduled)
            timer._scheduled = False
            self._ready.append(timer)

    def _timer_handle_cancelled(self, handle: asyncio.TimerHandle) -> None:
        """Nothing to count: cancelled timers go when their time comes."""

    def _new_task(
        self, loop: asyncio.AbstractEventLoop, coro: Coroutine[Any, Any, Any], **options: Any
    ) -> OrderedTask:
        task = OrderedTask(coro, loop=loop, number=next(self._numbers), **options)
        context = options.get("context")
        life = LIFE.get(None) if context is None else context.get(LIFE, None)
        if life is not None:
            life.tasks.append(task)
        return task

    def _note_failure(self, _loop: object, facts: dict[str, Any]) -> None:
        self.failures.append(f"{facts['message']}: {facts.get('exception')!r}")

    def _write_to_self(self) -> None:
        """Nobody waits in a selector."""

    def _process_events(self, event_list: object) -> None:
        """There are none."""


def _break_off(_number: int, _frame: object) -> None:
    raise _Endless


class Life:
    """One process from its start to its end: after that, nothing it does has any effect."""

    def __init__(self, loop: VirtualLoop, name: str) -> None:
        self.loop = loop
        self.name = name
        self.is_over = False
        self.tasks: list[asyncio.Task[Any]] = []
        self._context: Context = copy_context()
        self._context.run(LIFE.set, self)

    def spawn(self, work: Coroutine[Any, Any, Any], name: str = "") -> asyncio.Task[Any]:
        """A task of this process."""
        return self.loop.create_task(work, name=name, context=self._context.copy())

    def call(self, function: Callable[..., object], *args: object) -> None:
        """Call it soon, within this process, if that still lives."""
        self.loop.call_soon(self._call, function, *args, context=self._context.copy())

    def call_later(self, seconds: float, function: Callable[..., object]) -> asyncio.TimerHandle:
        """Call it after so long, within this process, if that still lives."""
        return self.loop.call_later(seconds, self._call, function, context=self._context.copy())

    def _call(self, function: Callable[..., object], *args: object) -> None:
        if not self.is_over:
            function(*args)

    def require(self) -> None:
        """Return while it lives; whatever a dead process wants from the world, it does not get."""
        if self.is_over:
            raise asyncio.CancelledError

    def end(self) -> None:
        """Die at once: no word to anybody, nothing more is stored."""
        self.is_over = True
        self.loop.unwind(self)


LIFE: ContextVar[Life] = ContextVar("LIFE")
