"""A controller and an agent on this machine, and a command whose lines arrive as it writes them.

`make demo` runs it: everything is fresh, in a temporary folder, and gone at the end. `make up`
runs it with `--stay`: the data is kept in ./run, and both go on until Ctrl-C.
"""

import argparse
import contextlib
import json
import os
import queue
import secrets
import shlex
import signal
import socket
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from time import monotonic
from types import FrameType

from rest import RestApi, RestError
from service_process import ServiceFailed, ServiceProcess, clean_environment, service_process

ROOT = Path(__file__).resolve().parent.parent
BIN = Path(sys.executable).parent
HOST = "127.0.0.1"
USUAL_PORT = 8001
ADMIN = "admin"
AGENT_ACCOUNT = "local-agent"
SHOWN_COMMAND = (
    'for i in 1 2 3 4 5 6 7 8 9 10; do echo "line $i of 10 from $(hostname)"; sleep 0.5; done'
)
START_TIMEOUT_S = 60.0
COMMAND_TIMEOUT_S = 60.0


class DemoFailed(Exception):
    """A step did not work; the message says which, and what to do where that is known."""


@dataclass(frozen=True, slots=True)
class Place:
    """Where one controller and one agent live: a folder, an address, a name for the agent."""

    folder: Path
    url: str
    agent_id: str

    @property
    def initial_password_file(self) -> Path:
        """Where the controller leaves the password that it generated."""
        return self.folder / "controller" / "initial-admin-password"

    @property
    def agent_password_file(self) -> Path:
        """Where this script keeps the password that it gave to the agent's account."""
        return self.folder / "agent-password"


def main() -> int:
    """Run the demo and return the exit status of the process."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--stay", action="store_true", help="keep the data, go on until Ctrl-C")
    stay = parser.parse_args().stay
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, _interrupt)
    try:
        run_persistently() if stay else run_once()
    except (DemoFailed, ServiceFailed, RestError) as exc:
        print(f"\nThis did not work: {exc}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("\nStopped.", file=sys.stderr)
        return 130
    return 0


def run_once() -> None:
    """Everything in a temporary folder, stopped and removed at the end."""
    with tempfile.TemporaryDirectory(prefix="ogent-demo-") as folder:
        place = Place(Path(folder), f"http://{HOST}:{_free_port()}", "demo")
        with running(place):
            show(place)
            say("Stopping both")
    say("Done. `make up` starts the two again and leaves them to you.")


def run_persistently() -> None:
    """The same with its data in ./run, until Ctrl-C, SIGTERM or the end of either process."""
    folder = ROOT / "run"
    folder.mkdir(mode=0o700, exist_ok=True)
    place = Place(folder, f"http://{HOST}:{_usual_port()}", "local")
    with running(place) as services:
        show(place)
        explain(place)
        try:
            service = _first_to_end(services)
        except KeyboardInterrupt:
            say("Stopping both")
            return
        raise service.failed("ended by itself")


# --- steps --------------------------------------------------------------------------------------


@contextmanager
def running(place: Place) -> Iterator[tuple[ServiceProcess, ServiceProcess]]:
    """A controller and an agent that is on line, in `place`; both are stopped at the end."""
    with ExitStack() as stack:
        say(f"Starting a controller on {place.url}")
        controller = stack.enter_context(_controller(place))
        api = RestApi(place.url)
        controller.wait_until(api.is_ready, "ready", timeout_s=START_TIMEOUT_S)
        _sign_in(api, place)
        password = _agent_password(api, place)
        say(f"Starting an agent, {place.agent_id}, with an account of role agent")
        agent = stack.enter_context(_agent(place, password))
        agent.wait_until(
            lambda: api.agent_is_online(place.agent_id), "on line", timeout_s=START_TIMEOUT_S
        )
        try:
            yield controller, agent
        except (DemoFailed, RestError) as exc:
            raise DemoFailed(f"{exc}\n{controller.tail()}{agent.tail()}") from exc


def show(place: Place) -> None:
    """Sign in with the command line, run a command, and look at what was stored of it."""
    with tempfile.TemporaryDirectory(prefix="ogent-cli-") as config:
        cli = CommandLine(place, Path(config))
        cli.run("login", place.url, "--username", ADMIN, "--password-stdin", stdin=_password(place))
        try:
            say("Running a command for five seconds: every line arrives as it is written")
            cli.run("exec", place.agent_id, "--", SHOWN_COMMAND)
            command_id = cli.newest_command()
            say("The agents, and what the controller stored of the command")
            cli.run("agents")
            cli.run("show", command_id)
            cli.run("logs", command_id, "--grep", "line (1|10) ")
        finally:
            cli.run("logout")


def explain(place: Place) -> None:
    """Tell the user how to go on by himself."""
    ogent = os.path.relpath(BIN / "ogent")
    given = "the one in ADMIN_PASSWORD" if os.environ.get("ADMIN_PASSWORD") else None
    print(f"""
Ogent is up.  Ctrl-C stops it; its data stays in {os.path.relpath(place.folder)}.

  address    {place.url}
  user       {ADMIN}
  password   {given or _password(place)}

Three things to try, in another terminal:

  {ogent} login {place.url} --username {ADMIN}
  {ogent} exec {place.agent_id} -- 'uname -a; uptime'
  {ogent} ps --all

The REST interface explains itself at {place.url}/docs
""")
    sys.stdout.flush()


@dataclass(frozen=True, slots=True)
class CommandLine:
    """The real `ogent`, signed in to `place`, with its configuration apart from the user's."""

    place: Place
    config: Path

    def run(self, *arguments: str, stdin: str = "") -> None:
        """Show and run `ogent arguments`; what it prints goes where this script's output goes."""
        print(f"\n$ {shlex.join(['ogent', *arguments])}", flush=True)
        with self._process(arguments, capture=False) as process:
            process.communicate(stdin.encode(), timeout=COMMAND_TIMEOUT_S)
        _require_success(arguments, process)

    def newest_command(self) -> str:
        """The id of the command that was asked for last."""
        arguments = ("ps", "--all", "--json")
        with self._process(arguments, capture=True) as process:
            output, _ = process.communicate(timeout=COMMAND_TIMEOUT_S)
        _require_success(arguments, process)
        return str(json.loads(output)[0]["command_id"])

    @contextmanager
    def _process(
        self, arguments: tuple[str, ...], *, capture: bool
    ) -> Iterator[subprocess.Popen[bytes]]:
        process = subprocess.Popen(  # noqa: S603 - our own console script
            [BIN / "ogent", *arguments],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE if capture else None,
            env=clean_environment({"XDG_CONFIG_HOME": str(self.config)}),
            start_new_session=True,  # Ctrl-C ends the whole demo, not one command of it
        )
        try:
            yield process
        except subprocess.TimeoutExpired as exc:
            raise DemoFailed(f"ogent {arguments[0]}: no end after {exc.timeout:.0f} s") from exc
        finally:
            process.kill()
            process.wait()


# --- parts of the steps -------------------------------------------------------------------------


def _controller(place: Place) -> contextlib.AbstractContextManager[ServiceProcess]:
    port = place.url.rpartition(":")[2]
    settings = {
        "HOST": HOST,
        "PORT": port,
        "DATA_DIR": str(place.folder / "controller"),
        "ADMIN_USERNAME": ADMIN,
        "ADMIN_PASSWORD": os.environ.get("ADMIN_PASSWORD", ""),
    }
    return _service("controller", settings, place)


@contextmanager
def _agent(place: Place, password: str) -> Iterator[ServiceProcess]:
    """An agent; at the end its commands and its runner, which outlive it, are ended, too."""
    settings = {
        "CONTROLLER_URL": place.url,
        "DATA_DIR": str(place.folder / "agent"),
        "AGENT_ID": place.agent_id,
        "AGENT_USERNAME": AGENT_ACCOUNT,
        "AGENT_PASSWORD": password,
    }
    try:
        with _service("agent", settings, place) as service:
            yield service
    finally:
        subprocess.run(  # noqa: S603 - our own console script
            [BIN / "ogent-agent", "--stop-commands"],
            env=clean_environment(settings),
            cwd=place.folder,
            timeout=COMMAND_TIMEOUT_S,
            check=False,
        )


def _service(
    name: str, settings: Mapping[str, str], place: Place
) -> contextlib.AbstractContextManager[ServiceProcess]:
    return service_process(name, [str(BIN / f"ogent-{name}")], settings, place.folder)


def _password(place: Place) -> str:
    """The administrator's password: from ADMIN_PASSWORD, else the one that was generated."""
    given = os.environ.get("ADMIN_PASSWORD")
    if given:
        return given
    try:
        return place.initial_password_file.read_text().strip()
    except OSError as exc:
        raise DemoFailed(
            f"no generated password ({exc}); give the administrator's as ADMIN_PASSWORD"
        ) from exc


def _sign_in(api: RestApi, place: Place) -> None:
    try:
        api.sign_in(ADMIN, _password(place))
    except RestError as exc:
        if exc.status != 401:
            raise
        raise DemoFailed(
            f"{ADMIN}'s password has been changed since it was generated.\n"
            "Start with the one of today, ADMIN_PASSWORD=... make up, or afresh without "
            f"{os.path.relpath(place.folder)}."
        ) from exc


def _agent_password(api: RestApi, place: Place) -> str:
    """The password of the agent's account, which exists afterwards, whatever was there before."""
    path = place.agent_password_file
    if path.exists():
        return path.read_text()
    password = secrets.token_urlsafe(24)
    try:
        api.create_user(AGENT_ACCOUNT, password, "agent")
    except RestError as exc:
        if exc.code != "user_exists":
            raise
        api.delete_user(AGENT_ACCOUNT)  # of an earlier start that ended before the next lines
        api.create_user(AGENT_ACCOUNT, password, "agent")
    path.touch(mode=0o600, exist_ok=False)
    path.write_text(password)
    return password


def _first_to_end(services: tuple[ServiceProcess, ...]) -> ServiceProcess:
    """Wait, without a deadline, until one of the processes has ended, and return it."""
    ended: queue.SimpleQueue[ServiceProcess] = queue.SimpleQueue()

    def watch(service: ServiceProcess) -> None:
        service.wait()
        ended.put(service)

    for service in services:
        threading.Thread(target=watch, args=(service,), daemon=True).start()
    return ended.get()


def _require_success(arguments: tuple[str, ...], process: subprocess.Popen[bytes]) -> None:
    if process.returncode != 0:
        raise DemoFailed(f"ogent {arguments[0]}: exit status {process.returncode}")


def _free_port() -> int:
    with socket.socket() as listener:
        listener.bind((HOST, 0))
        return int(listener.getsockname()[1])


def _usual_port() -> int:
    """PORT, or 8001; where that is taken a free one, which is said."""
    wanted = int(os.environ.get("PORT", USUAL_PORT))
    with socket.socket() as listener:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listener.bind((HOST, wanted))
        except OSError:
            port = _free_port()
            say(f"Port {wanted} is taken on {HOST}: taking {port} instead")
            return port
    return wanted


def _interrupt(_number: int, _frame: FrameType | None) -> None:
    raise KeyboardInterrupt


_STARTED_AT = monotonic()


def say(what: str) -> None:
    """Print a step with the seconds since the start."""
    print(f"\n[{monotonic() - _STARTED_AT:4.1f} s] {what}", flush=True)


if __name__ == "__main__":
    sys.exit(main())
