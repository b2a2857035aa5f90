"""The process: settings, lock, log, and exit codes."""

import asyncio
import json
import logging
import signal
import sys
from pathlib import Path
from typing import Any, Final

from agent.application.ports.journal import Unfinished
from agent.bootstrap import run_agent, stop_all_commands
from agent.infrastructure.controller.session import GivenUp
from agent.infrastructure.logging import configure_logging, escaped
from agent.infrastructure.runner.client import RunnerGone
from agent.infrastructure.runner.visit import running_jobs
from agent.infrastructure.storage.file_journal import read_journal
from agent.infrastructure.storage.identity import DataDirUnusable, locked_data_dir
from agent.infrastructure.storage.journal_records import from_micros
from agent.presentation.host.door import ask
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


def status(env_file: Path, *, as_json: bool) -> int:
    """Print what runs and what waits in the folder of the agent; 0, or 2 as in `run`."""
    try:
        data_dir = env_file.parent / read_settings(env_file).data_dir
        facts = _status_in(data_dir)
    except InvalidSettings as exc:
        return _misconfigured(str(exc))
    except OSError as exc:
        return _misconfigured(f"DATA_DIR: {exc.strerror}: {exc.filename}")
    print(json.dumps(facts) if as_json else "\n".join(status_lines(facts)))
    return EXIT_STOPPED


def stop_commands(env_file: Path) -> int:
    """End every command of the agent, and return when nothing of them is left; as `run`."""
    try:
        settings = read_settings(env_file)
        configure_logging("ERROR", settings.log_format)
        data_dir = env_file.parent / settings.data_dir
        answer = ask(data_dir, "stop-commands") if data_dir.is_dir() else None
        if answer is not None:
            if answer.get("stopped"):
                return EXIT_STOPPED
            raise RunnerGone(f"the agent that runs here did not stop them: {answer}")
        with locked_data_dir(data_dir):
            asyncio.run(stop_all_commands(settings, data_dir))
    except InvalidSettings as exc:
        return _misconfigured(str(exc))
    except DataDirUnusable as exc:
        return _misconfigured(f"DATA_DIR: {exc}")
    except RunnerGone as exc:
        print(f"ogent-agent: {escaped(str(exc))}", file=sys.stderr)
        return EXIT_FAILED
    return EXIT_STOPPED


def _status_in(data_dir: Path) -> dict[str, Any]:
    """What the agent there says; without one, what its runner and its journal say."""
    answer = ask(data_dir, "status") if data_dir.is_dir() else None
    if answer is not None:
        return answer
    unfinished = read_journal(data_dir / "journal", is_kept_aside=False).unfinished()
    jobs = {job["id"]: job for job in running_jobs(data_dir)}
    return {
        "agent_id": None,
        "pid": None,
        "connected": False,
        "commands": [_command_facts(entry, jobs.get(entry.order.id)) for entry in unfinished],
    }


def _command_facts(entry: Unfinished, job: dict[str, Any] | None) -> dict[str, Any]:
    """`ended`: it waits to be told to the controller, or nobody here knows how it ended."""
    started = from_micros(job["started_at"]).isoformat() if job else None
    was_started = entry.keeper is not None or entry.outcome is not None
    state = job["state"] if job else "ended" if was_started else "waiting"
    return {"command_id": entry.order.id, "state": state, "started_at": started}


def status_lines(facts: dict[str, Any]) -> list[str]:
    """A status for people."""
    if facts["pid"] is None:
        lines = ["no agent runs here; what it has left:"]
    else:
        link = "connected" if facts["connected"] else "not connected"
        lines = [f"agent {facts['agent_id']} runs (pid {facts['pid']}), {link}"]
    rows = [
        (escaped(command["command_id"]), command["state"], command["started_at"] or "-")
        for command in facts["commands"]
    ]
    if not rows:
        return [*lines, "no command runs or waits"]
    table = [("COMMAND", "STATE", "SINCE"), *rows]
    widths = [max(len(row[column]) for row in table) for column in range(2)]
    return [*lines, *(f"{a:<{widths[0]}}  {b:<{widths[1]}}  {c}" for a, b, c in table)]


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
        except RunnerGone as exc:
            log.error("%s", exc)
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
