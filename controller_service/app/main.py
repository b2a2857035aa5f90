"""The command `ogent-controller`."""

import argparse
import os
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from ogent.protocol.version import VERSION

#: What the controller's libraries import where it happens to be installed, and the controller
#: never uses: clients and brokers of Socket.IO, tracebacks in colour. In an environment that
#: holds them all they are a tenth of its memory and a fifth of its start.
UNUSED: Final = (
    "aio_pika",
    "aiohttp",
    "kombu",
    "redis",
    "requests",
    "rich",
    "websocket",
)


def main(arguments: Sequence[str] | None = None, env_file: Path = Path(".env")) -> None:
    """Run the controller, or reset a password; ends the process."""
    parsed = _parser().parse_args(arguments)
    os.umask(0o077)  # whatever is written here is nobody else's
    with _as_if_not_installed(UNUSED):
        from app.process import run  # here, so that the libraries are imported as said above
    sys.exit(run(env_file, reset_password_of=parsed.user if parsed.action else None))


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="ogent-controller",
        description="Takes commands, hands them to agents, keeps and streams their output. "
        "Configured by environment variables and .env; docs/configuration.md lists them.",
    )
    parser.add_argument("--version", action="version", version=f"ogent-controller {VERSION}")
    actions = parser.add_subparsers(dest="action", metavar="ACTION")
    reset = actions.add_parser("reset-password", help="make a new password for a user")
    reset.add_argument("user", help="the user's name")
    return parser


@contextmanager
def _as_if_not_installed(names: Sequence[str]) -> Iterator[None]:
    """While it lasts, importing any of `names` that was not imported before raises ImportError."""
    hidden = [name for name in names if name not in sys.modules]
    for name in hidden:
        sys.modules[name] = None  # type: ignore[assignment]  # what import understands as absent
    try:
        yield
    finally:
        for name in hidden:
            del sys.modules[name]


if __name__ == "__main__":
    main()
