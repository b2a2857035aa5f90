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
    _parse_arguments()
    with _as_if_not_installed(UNUSED):
        from agent.process import run  # here, so that the libraries are imported as said above
    return run(env_file)


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


def _parse_arguments() -> None:
    parser = argparse.ArgumentParser(
        prog="ogent-agent",
        description="Runs commands on this machine for an Ogent controller. Everything is set by "
        "the environment or .env; .env.example names every variable.",
    )
    parser.add_argument("--version", action="version", version=f"ogent-agent {VERSION}")
    parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
