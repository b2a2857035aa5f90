"""The two service folders as somebody finds them: `cp .env.example .env` and start."""

import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx2

from ogent.client import Client
from tests.e2e.services import (
    AGENT_ACCOUNT,
    AGENT_PASSWORD,
    DEADLINE_S,
    Controller,
    Service,
    environment,
    free_port,
    online,
)

ROOT = Path(__file__).resolve().parents[2]


def copied(name: str, folder: Path) -> Path:
    """A service's folder without what running or installing has left in it."""
    left = shutil.ignore_patterns("data", ".env", "*.egg-info", "__pycache__")
    target = folder / name
    shutil.copytree(ROOT / name, target, ignore=left)
    shutil.copy(target / ".env.example", target / ".env")
    return target


def fill_in(folder: Path, **values: str) -> None:
    """Fill in `.env` as an editor would."""
    file = folder / ".env"
    lines = [line for line in file.read_text().splitlines() if line.split("=")[0] not in values]
    file.write_text("\n".join([*lines, *(f"{n}={v}" for n, v in values.items())]) + "\n")


@contextmanager
def started(folder: Path, script: str) -> Iterator[Service]:
    service = Service([sys.executable, script], folder, {})
    try:
        service.start()
        yield service
    finally:
        service.end()


async def test_the_controller_starts_with_the_example_as_it_stands(tmp_path: Path) -> None:
    folder = copied("controller_service", tmp_path)
    port = free_port()
    fill_in(folder, PORT=str(port))  # the example's own may be in use here
    with started(folder, "run.py") as service:
        await service.logs("listening")
        assert httpx2.get(f"http://127.0.0.1:{port}/health").json() == {"status": "healthy"}
        first = folder / "data" / "initial-admin-password"
        assert first.stat().st_mode & 0o777 == 0o600
        password = first.read_text().strip()
        assert password not in service.log
        form = {"username": "admin", "password": password}
        assert httpx2.post(f"http://127.0.0.1:{port}/token", data=form).status_code == 200
        assert await service.stop() == 0


def test_the_agent_says_what_the_example_leaves_to_be_filled_in(tmp_path: Path) -> None:
    folder = copied("agent_service", tmp_path)
    done = subprocess.run(
        [sys.executable, "agent.py"],
        cwd=folder,
        env=environment(tmp_path),
        capture_output=True,
        text=True,
        timeout=DEADLINE_S,
    )
    assert done.returncode == 2
    assert len(done.stderr.splitlines()) == 1
    assert "AGENT_USERNAME: is missing" in done.stderr


async def test_the_agent_starts_with_the_example_and_an_account(
    tmp_path: Path, controller: Controller, client: Client
) -> None:
    folder = copied("agent_service", tmp_path)
    fill_in(
        folder,
        CONTROLLER_URL=controller.url,
        AGENT_ID="from-a-folder",
        AGENT_USERNAME=AGENT_ACCOUNT,
        AGENT_PASSWORD=AGENT_PASSWORD,
    )
    with started(folder, "agent.py") as service:
        await online(client, "from-a-folder")
        assert await service.stop() == 0


def test_a_port_in_use_and_an_unwritable_folder_are_said_in_one_line(
    tmp_path: Path, controller: Controller
) -> None:
    file = tmp_path / "a file"
    file.touch()
    port = controller.url.rpartition(":")[2]
    for settings, said in (
        ({"PORT": port, "DATA_DIR": str(tmp_path / "data")}, f"PORT {port}"),
        ({"PORT": "0", "DATA_DIR": str(file / "data")}, "DATA_DIR"),
    ):
        done = subprocess.run(
            [sys.executable, str(ROOT / "controller_service" / "run.py")],
            cwd=tmp_path,
            env=environment(tmp_path) | settings,
            capture_output=True,
            text=True,
            timeout=DEADLINE_S,
        )
        assert (done.returncode, "Traceback" in done.stderr) == (2, False)
        assert said in done.stderr.splitlines()[-1]
