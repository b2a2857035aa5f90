"""What every subcommand shares: the client, the way out, and the one place that shows errors."""

import asyncio
import os
import sys
import traceback
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from typing import Final

from ogent.cli import exit_codes
from ogent.client.client import Client
from ogent.client.errors import NotSignedIn, OgentError
from ogent.client.login import LoginFile, find_access

#: A person waits in front of it: give up on an unreachable controller soon …
RETRY_FOR_S: Final = 2.0
#: … but hold on to a command that runs.
RESUME_FOR_S: Final = 3600.0


@asynccontextmanager
async def open_client() -> AsyncIterator[Client]:
    """A client for the controller that the user means; raises NotSignedIn, DamagedLogin."""
    access = find_access(os.environ, LoginFile.of(os.environ))
    if access.token is None:
        raise NotSignedIn(f"not signed in at {access.url}")
    async with Client(
        access.url, token=access.token, retry_for=RETRY_FOR_S, resume_for=RESUME_FOR_S
    ) as client:
        yield client


def run(
    work: Callable[[], Coroutine[None, None, int]],
    *,
    as_json: bool = False,
    failure: int = exit_codes.FAILURE,
) -> int:
    """Run a subcommand and return its exit code; an error is shown and becomes `failure`."""
    try:
        return asyncio.run(work())
    except OgentError as exc:
        show_error(exc, as_json=as_json)
    except BrokenPipeError:
        return closed_output()
    except KeyboardInterrupt:
        return exit_codes.INTERRUPTED
    except Exception:  # the handler boundary: whatever it is, exec's exit code is not the command's
        traceback.print_exc()
    return failure


def show_error(error: OgentError, *, as_json: bool) -> None:
    """Print `error` and its next step to stderr."""
    from ogent.cli.hints import error_json, error_text

    print(error_json(error) if as_json else error_text(error), file=sys.stderr)


def say(text: str) -> None:
    """Print a line for the user to stderr, where it mixes with no result."""
    print(f"ogent: {text}", file=sys.stderr)


def closed_output() -> int:
    """The exit code when nobody reads stdout any more, which then swallows the rest quietly."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
    return exit_codes.OUTPUT_CLOSED
