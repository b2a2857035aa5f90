"""Start docker-compose.yml as a project of its own, run a command through it, remove it again.

Nothing of the user's own containers, volumes or `.env` is touched: another project name, fresh
secrets and a free port.
"""

import os
import secrets
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from time import monotonic, sleep

from rest import RestApi, RestError
from service_process import clean_environment

ROOT = Path(__file__).resolve().parent.parent
OGENT = Path(sys.executable).parent / "ogent"
PROJECT = "ogent-test"
AGENT_ID = "compose-test"
BUILD_TIMEOUT_S = 1200.0
START_TIMEOUT_S = 180.0
COMMAND_TIMEOUT_S = 60.0
POLL_EVERY_S = 0.5
HEALTHCHECKS: Mapping[str, tuple[str, ...]] = {
    "redis": ("/usr/local/lib/ogent/healthcheck.sh",),
    "controller": ("python", "/usr/local/lib/ogent/healthcheck.py"),
    "agent": ("python", "/usr/local/lib/ogent/healthcheck.py"),
}


class ComposeFailed(Exception):
    """A step did not work; the message says which."""


@dataclass(frozen=True, slots=True)
class Project:
    """The containers of one run of this test."""

    environment: Mapping[str, str]

    @property
    def url(self) -> str:
        """Where the controller is published."""
        return f"http://127.0.0.1:{self.environment['PUBLISHED_PORT']}"

    def compose(self, *arguments: str, timeout_s: float = START_TIMEOUT_S) -> None:
        """Run compose on the project; ComposeFailed unless it succeeds."""
        argv = ["/bin/sh", str(ROOT / "scripts" / "compose.sh"), "-p", PROJECT, *arguments]
        result = subprocess.run(  # noqa: S603 - our own script
            argv, cwd=ROOT, env={**os.environ, **self.environment}, timeout=timeout_s, check=False
        )
        if result.returncode != 0:
            raise ComposeFailed(f"compose {arguments[0]}: exit status {result.returncode}")


def main() -> int:
    """Run the test and return the exit status of the process."""
    project = Project(_environment())
    try:
        with _running(project):
            _wait_for_the_agent(project)
            for service, check in HEALTHCHECKS.items():
                project.compose("exec", "-T", service, *check)
            _run_a_command(project)
    except (ComposeFailed, RestError, subprocess.TimeoutExpired) as exc:
        print(f"compose-test: failed: {exc}", file=sys.stderr)
        return 1
    print("compose-test: passed: a command ran in the agent's container")
    return 0


@contextmanager
def _running(project: Project) -> Iterator[None]:
    try:
        project.compose("up", "-d", "--build", timeout_s=BUILD_TIMEOUT_S)
        yield
    except (ComposeFailed, RestError, subprocess.TimeoutExpired):
        with suppress(ComposeFailed):  # what the containers said is worth more than its status
            project.compose("logs", "--tail", "40")
        raise
    finally:
        project.compose("down", "-v")


def _wait_for_the_agent(project: Project) -> None:
    api = RestApi(project.url)
    deadline = monotonic() + START_TIMEOUT_S
    while not _is_online(api, project):
        if monotonic() > deadline:
            raise ComposeFailed(f"the agent is not on line after {START_TIMEOUT_S:.0f} s")
        sleep(POLL_EVERY_S)  # nothing tells from outside that the containers have become ready


def _is_online(api: RestApi, project: Project) -> bool:
    if not api.is_ready():
        return False
    api.sign_in(project.environment["ADMIN_USERNAME"], project.environment["ADMIN_PASSWORD"])
    return api.agent_is_online(AGENT_ID)


def _run_a_command(project: Project) -> None:
    with tempfile.TemporaryDirectory(prefix="ogent-cli-") as config:
        password = project.environment["ADMIN_PASSWORD"]
        _ogent(
            config, "login", project.url, "--username", "admin", "--password-stdin", said=password
        )
        said = _ogent(config, "exec", AGENT_ID, "--", "id -u; touch /read-only || echo sealed")
        _ogent(config, "logout")
    if said.split() != ["10001", "sealed"]:
        raise ComposeFailed(f"the command said {said!r}")


def _ogent(config: str, *arguments: str, said: str = "") -> str:
    result = subprocess.run(  # noqa: S603 - our own console script
        [OGENT, *arguments],
        env=clean_environment({"XDG_CONFIG_HOME": config}),
        input=said,
        stdout=subprocess.PIPE,
        text=True,
        timeout=COMMAND_TIMEOUT_S,
        check=False,
    )
    if result.returncode != 0:
        raise ComposeFailed(f"ogent {arguments[0]}: exit status {result.returncode}")
    return result.stdout


def _environment() -> dict[str, str]:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port = listener.getsockname()[1]
    return {
        "ADMIN_USERNAME": "admin",
        "ADMIN_PASSWORD": secrets.token_hex(24),
        "AGENT_ID": AGENT_ID,
        "AGENT_PASSWORD": secrets.token_hex(24),
        "REDIS_PASSWORD": secrets.token_hex(24),
        "PUBLISHED_ADDRESS": "127.0.0.1",
        "PUBLISHED_PORT": str(port),
    }


if __name__ == "__main__":
    sys.exit(main())
