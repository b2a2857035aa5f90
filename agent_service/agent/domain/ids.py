"""Identifiers, each of its own type. All are opaque text made by somebody else."""

from typing import NewType

AgentId = NewType("AgentId", str)
CommandId = NewType("CommandId", str)
ControlId = NewType("ControlId", str)
