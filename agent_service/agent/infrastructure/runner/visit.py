"""A look at a runner, beside the agent that it belongs to."""

import os
import socket
from pathlib import Path

from agent.infrastructure.runner.channel import LENGTH, Facts, packed
from agent.infrastructure.runner.records import from_json
from agent.infrastructure.runner.server import SOCKET

#: For the runner to answer.
VISIT_TIMEOUT_S = 10.0


def running_jobs(data_dir: Path) -> list[Facts]:
    """What the runner of a data folder says of the commands that run; empty without a runner."""
    home = data_dir / "runner"
    if not home.is_dir():
        return []
    descriptor = os.open(home, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as asking:
            asking.settimeout(VISIT_TIMEOUT_S)
            asking.connect(f"/proc/self/fd/{descriptor}/{SOCKET}")
            asking.sendall(packed({"do": "status", "n": 0}))
            with asking.makefile("rb") as file:
                (length,) = LENGTH.unpack(file.read(LENGTH.size))
                jobs: list[Facts] = from_json(file.read(length))["jobs"]
    except (FileNotFoundError, ConnectionRefusedError):
        return []
    finally:
        os.close(descriptor)
    return [job for job in jobs if job["end"] is None]
