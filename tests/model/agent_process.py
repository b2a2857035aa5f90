"""The agent as one process of the model: its real parts over the model's outside."""

import asyncio
from contextlib import AsyncExitStack
from datetime import datetime, timedelta

from agent import wire
from agent.application.controller_time import ControllerTime
from agent.application.delivery import Delivery
from agent.application.ports.controller_link import HostFacts
from agent.application.supervisor import Supervisor
from agent.application.use_cases.accept_order import AcceptOrder
from agent.application.use_cases.control_execution import ControlExecution
from agent.application.use_cases.resume_session import ResumeSession
from agent.application.use_cases.run_execution import RunExecution
from agent.domain.ids import AgentId
from agent.domain.models.executor import ExecutionType
from agent.infrastructure.controller.session import Backoff, keep_session
from agent.infrastructure.controller.sign_in import SignInFailed
from agent.infrastructure.controller.socketio_link import SocketIOLink
from agent.infrastructure.executors.accounts import own_account
from agent.infrastructure.executors.local_executor import LocalExecutor
from agent.presentation.socketio.controller_events import ControllerEvents, UseCases
from tests.builders import NOW, WEB
from tests.model.host import Host, HostSpool, ModelRunnerClient
from tests.model.network import ModelClient, Network
from tests.model.storage import SyncedJournal
from tests.model.virtual_loop import Life, VirtualLoop

HERE = AgentId(WEB)
#: Commands beside each other: few, so that some have to wait.
MAX_CONCURRENT = 2
FACTS = HostFacts(
    platform="Linux",
    version="6.1",
    python="3.11",
    hostname="web-1",
    agent_version="0.1.0",
    executors=[ExecutionType.LOCAL],
)
ACCOUNT = own_account()


class VirtualClock:
    """Both services' Clock, over the time of the loop."""

    def __init__(self, loop: VirtualLoop) -> None:
        self._loop = loop

    def now(self) -> datetime:
        return NOW + timedelta(seconds=self._loop.elapsed)

    def monotonic(self) -> float:
        return self._loop.elapsed

    async def sleep(self, seconds: float) -> None:
        await asyncio.sleep(seconds)


class AgentProcess:
    """An agent, from its start to its end."""

    def __init__(self, host: Host, network: Network, name: str) -> None:
        self.life = Life(host.loop, name)
        self._host = host
        self._network = network
        self._clock = VirtualClock(host.loop)
        self.delivery: Delivery | None = None
        self.supervisor: Supervisor | None = None
        self.life.spawn(self._run(), name)

    @property
    def is_serving(self) -> bool:
        """Whether its session with the controller stands."""
        return self.delivery is not None and self.delivery.is_serving

    @property
    def holds_nothing(self) -> bool:
        """Whether it has told everything."""
        return self.delivery is not None and not len(self.delivery)

    def kill(self) -> None:
        """End it as SIGKILL does."""
        self.life.end()
        if self._host.runner is not None:
            self._host.runner.agent_gone()

    async def _run(self) -> None:
        async with AsyncExitStack() as stack:
            journal = SyncedJournal(self._host.journal, self._host.disk, self.life)
            time = ControllerTime(self._clock, journal.ahead_s())
            runner = ModelRunnerClient(
                self._host, self.life, lambda command_id: delivery.grown(command_id)
            )
            self.delivery = delivery = Delivery(HostSpool(self._host, runner), journal, self._clock)
            keeping = asyncio.create_task(runner.keep(), name="runner")
            stack.callback(keeping.cancel)
            await runner.ready()
            executor = LocalExecutor(ACCOUNT, runner)  # type: ignore[arg-type]
            executors = {ExecutionType.LOCAL: executor}
            self.supervisor = await stack.enter_async_context(
                Supervisor(
                    RunExecution(
                        executors=executors, journal=journal, time=time, clock=self._clock
                    ),
                    journal=journal,
                    delivery=delivery,
                    clock=self._clock,
                    max_concurrent=MAX_CONCURRENT,
                )
            )
            unfinished = journal.unfinished()
            await executor.discard_strays([entry.order.id for entry in unfinished])
            for entry in unfinished:
                self.supervisor.take_up(entry)
            await self._keep_sessions(self._use_cases(journal, time, delivery, self.supervisor))

    def _use_cases(
        self,
        journal: SyncedJournal,
        time: ControllerTime,
        delivery: Delivery,
        supervisor: Supervisor,
    ) -> UseCases:
        return UseCases(
            accept_order=AcceptOrder(
                agent_id=HERE, journal=journal, supervisor=supervisor, time=time
            ),
            control_execution=ControlExecution(
                agent_id=HERE, journal=journal, supervisor=supervisor
            ),
            resume_session=ResumeSession(
                agent_id=HERE,
                facts=FACTS,
                labels={},
                journal=journal,
                delivery=delivery,
                supervisor=supervisor,
                time=time,
            ),
            delivery=delivery,
            verify=wire.unsigned_orders,
        )

    async def _keep_sessions(self, use_cases: UseCases) -> None:
        async def sign_in() -> str:
            if self._network.server is None or not self._network.is_up:
                raise SignInFailed("nobody answers")
            return "a token"

        async def serve(token: str) -> None:
            events = ControllerEvents(use_cases)
            client = ModelClient(self.life, self._network)
            link = SocketIOLink(client)
            for event, handler in events.handlers().items():
                client.on(event, handler, "/")
            try:
                await client.connect({"instance_id": self.life.name, "boot_id": "", "protocol": 1})
                await events.serve(link, link.closed())
            finally:
                await client.disconnect()

        backoff = Backoff(first_s=1.0, max_attempts=0, fraction=lambda: 0.5)
        await keep_session(sign_in, serve, backoff)
