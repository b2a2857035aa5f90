"""The command `ogent-agent`."""

import argparse
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from ogent.protocol.version import VERSION

#: What the libraries of the agent import where it happens to be installed, and the agent never
#: uses: brokers of Socket.IO servers, its synchronous client, tracebacks in colour. Together
#: they are a fifth of the agent's memory and a third of its start.
UNUSED: Final = ("aio_pika", "kombu", "redis", "requests", "rich", "websocket")


def main(env_file: Path = Path(".env")) -> int:
    """Run the agent with what the environment and `env_file` say; its exit status."""
    arguments = _parse_arguments()
    with _as_if_not_installed(UNUSED):  # here, so that the libraries are imported as said above
        from agent.process import run, status, stop_commands
    if arguments.status:
        return status(env_file, as_json=arguments.json)
    return stop_commands(env_file) if arguments.stop_commands else run(env_file)


@contextmanager
def _as_if_not_installed(names: tuple[str, ...]) -> Iterator[None]:
    """While it lasts, importing any of `names` that was not imported before raises ImportError."""
    hidden = [name for name in names if name not in sys.modules]
    for name in hidden:
        sys.modules[name] = None  # type: ignore[assignment]  # what import understands as absent
    try:
        yield
    finally:
        for name in hidden:
            del sys.modules[name]


def _parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="ogent-agent",
        description="Runs commands on this machine for an Ogent controller. Everything is set by "
        "the environment or .env; .env.example names every variable.",
    )
    parser.add_argument("--version", action="version", version=f"ogent-agent {VERSION}")
    asked = parser.add_mutually_exclusive_group()
    asked.add_argument(
        "--status", action="store_true", help="print what runs and what waits here, and end"
    )
    asked.add_argument(
        "--stop-commands",
        action="store_true",
        help="end every command of this agent, and return when nothing of them is left; "
        "stopping the agent itself leaves them running",
    )
    parser.add_argument("--json", action="store_true", help="with --status: machine-readable")
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
