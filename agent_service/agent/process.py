"""The process: settings, lock, log, and exit codes."""

import asyncio
import logging
import signal
import sys
from pathlib import Path
from typing import Final

from agent.bootstrap import run_agent
from agent.infrastructure.controller.session import GivenUp
from agent.infrastructure.logging import configure_logging, escaped
from agent.infrastructure.storage.identity import DataDirUnusable, locked_data_dir
from agent.presentation.socketio.controller_events import Superseded
from agent.settings import InvalidSettings, Settings, read_settings, unknown_names

log = logging.getLogger("agent")

EXIT_STOPPED: Final = 0
EXIT_FAILED: Final = 1
EXIT_MISCONFIGURED: Final = 2
EXIT_SUPERSEDED: Final = 3


def run(env_file: Path) -> int:
    """Run the agent with what the environment and `env_file` say; its exit status.

    0 after a stop, 1 where it gave up or failed, 2 where it cannot start as it is set up (one
    line on stderr says why), 3 where another process took its place.
    """
    # Whoever started us may have ignored it: then no child's end could be known.
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    try:
        settings = read_settings(env_file)
        configure_logging(settings.log_level, settings.log_format)
        for name in unknown_names(env_file):
            log.warning("%s in %s means nothing to the agent", name, env_file)
        return _run(settings, env_file.parent)
    except InvalidSettings as exc:
        return _misconfigured(str(exc))
    except DataDirUnusable as exc:
        return _misconfigured(f"DATA_DIR: {exc}")


def _run(settings: Settings, home: Path) -> int:
    with locked_data_dir(home / settings.data_dir) as data_dir:
        try:
            asyncio.run(run_agent(settings, data_dir))
        except Superseded as exc:
            log.error("superseded: %s; this one ends", exc)
            return EXIT_SUPERSEDED
        except GivenUp as exc:
            log.error("%s; MAX_RECONNECT_ATTEMPTS allows no more", exc)
            return EXIT_FAILED
        except (InvalidSettings, DataDirUnusable):
            raise
        except Exception:  # main: the last place that can say what happened
            log.exception("the agent failed")
            return EXIT_FAILED
    log.info("stopped")
    return EXIT_STOPPED


def _misconfigured(reason: str) -> int:
    print(f"ogent-agent: {escaped(reason)}", file=sys.stderr)
    return EXIT_MISCONFIGURED
