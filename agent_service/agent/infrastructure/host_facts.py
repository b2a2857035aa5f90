"""What the agent says of its host."""

import platform
import socket

from agent.application.ports.controller_link import HostFacts
from agent.domain.models.executor import ExecutionType
from ogent.protocol.version import VERSION


def host_facts(executors: list[ExecutionType]) -> HostFacts:
    """The facts of this host now."""
    return HostFacts(
        platform=platform.system(),
        version=platform.release(),
        python=platform.python_version(),
        hostname=socket.gethostname(),
        agent_version=VERSION,
        executors=executors,
    )
