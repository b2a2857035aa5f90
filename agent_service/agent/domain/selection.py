"""Which executor runs an order."""

from collections.abc import Set
from typing import Final

from agent.domain.errors import NoExecutor
from agent.domain.models.executor import ExecutionType, Place

_SSH_PREFIX: Final = "ssh:"


def select_place(target: str, available: Set[ExecutionType]) -> Place:
    """Where an order for `target` runs; raises NoExecutor. Never another place than asked for."""
    place = _wanted(target, available)
    if place is None or place.execution_type not in available:
        raise NoExecutor(f"this agent has no executor for the target {target!r}")
    return place


def _wanted(target: str, available: Set[ExecutionType]) -> Place | None:
    if target == "auto":
        is_remote = ExecutionType.SSH in available
        return Place(ExecutionType.SSH if is_remote else ExecutionType.LOCAL)
    if target.startswith(_SSH_PREFIX):
        return Place(ExecutionType.SSH, target.removeprefix(_SSH_PREFIX))
    return Place(ExecutionType(target)) if target in set(ExecutionType) else None
