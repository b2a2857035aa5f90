from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import httpx2
import pytest

from ogent.client import Client
from tests.e2e.gate import Gate
from tests.e2e.services import (
    AGENT_ACCOUNT,
    AGENT_PASSWORD,
    DEADLINE_S,
    Agent,
    Controller,
    agent_in,
    controller_in,
)
from tests.integration.controller.socket_client import SocketClient
from tests.integration.sdk.ogent_process import Ogent

NewAgent = Callable[..., Agent]
NewController = Callable[..., Controller]


@pytest.fixture(scope="session")
def controller(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Controller]:
    """The controller of every test that does not end one."""
    with controller_in(tmp_path_factory.mktemp("controller")) as shared:
        shared.start()
        shared.make_account(AGENT_ACCOUNT, AGENT_PASSWORD)
        yield shared


@pytest.fixture(scope="session")
def token(controller: Controller) -> str:
    return controller.token


@pytest.fixture(scope="session")
def running_agent(
    controller: Controller, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Agent]:
    folder = tmp_path_factory.mktemp("agent")
    labels = {"AGENT_LABELS": "env=prod,role=web"}
    with agent_in(folder, "shared", controller.url, **labels) as shared:
        shared.service.start()
        yield shared


@pytest.fixture
async def agent(running_agent: Agent) -> Agent:
    """The agent of every test that does not end one."""
    await running_agent.service.logs("registered with the controller")
    return running_agent


@pytest.fixture
def new_controller(tmp_path: Path) -> Iterator[NewController]:
    """Makes controllers that a test may end; started ones have the account of the agents."""
    with ExitStack() as ended:

        def make(*, started: bool = True, **settings: str) -> Controller:
            folder = tmp_path / f"controller-{len(list(tmp_path.iterdir()))}"
            made = ended.enter_context(controller_in(folder, **settings))
            if started:
                made.start()
                made.make_account(AGENT_ACCOUNT, AGENT_PASSWORD)
            return made

        yield make


@pytest.fixture
def new_agent(tmp_path: Path) -> Iterator[NewAgent]:
    """Starts agents that a test may end."""
    with ExitStack() as ended:

        def make(controller: Controller, agent_id: str, **settings: str) -> Agent:
            folder = tmp_path / f"agent-{len(list(tmp_path.iterdir()))}"
            made = ended.enter_context(agent_in(folder, agent_id, controller.url, **settings))
            made.service.start()
            return made

        yield make


@pytest.fixture
async def http(controller: Controller, token: str) -> AsyncIterator[httpx2.AsyncClient]:
    headers = {"Authorization": f"Bearer {token}"}
    async with httpx2.AsyncClient(
        base_url=controller.url, headers=headers, timeout=DEADLINE_S
    ) as opened:
        yield opened


@pytest.fixture
async def client(controller: Controller, token: str) -> AsyncIterator[Client]:
    async with Client(controller.url, token=token) as opened:
        yield opened


@pytest.fixture
async def cli(controller: Controller, token: str, tmp_path: Path) -> AsyncIterator[Ogent]:
    """The real `ogent`, signed in by its environment."""
    home = tmp_path / "home"
    home.mkdir()
    environ = {"OGENT_URL": controller.url, "OGENT_TOKEN": token}
    async with Ogent(home, environ).open() as opened:
        yield opened


@pytest.fixture
async def watcher(controller: Controller, token: str) -> AsyncIterator[SocketClient]:
    """A client of the Socket.IO door that keeps all that it hears."""
    opened = SocketClient()
    await opened.connect(controller.url, token)
    yield opened
    await opened.disconnect()


@pytest.fixture
def gate(tmp_path: Path) -> Iterator[Gate]:
    made = Gate(tmp_path / "gates")
    yield made
    made.open_all()
