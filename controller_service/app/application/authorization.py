"""The one question that every door asks: may this principal do that to this object?"""

from collections.abc import Mapping
from enum import StrEnum
from typing import Final

from app.domain.errors import AgentNotFound, Denied
from app.domain.models.agent import Agent
from app.domain.models.user import Principal, Role, at_least


class Verb(StrEnum):
    """What may be done, each with the role that it needs in NEEDED."""

    SEE_SELF = "see_self"
    MANAGE_OWN_TOKENS = "manage_own_tokens"
    CHANGE_OWN_PASSWORD = "change_own_password"  # noqa: S105 - a verb
    SEE_AGENTS = "see_agents"
    SEE_COMMANDS = "see_commands"
    EXECUTE = "execute"
    CONTROL = "control"
    MANAGE_USERS = "manage_users"


NEEDED: Final[Mapping[Verb, Role]] = {
    Verb.SEE_SELF: Role.VIEWER,
    Verb.MANAGE_OWN_TOKENS: Role.VIEWER,
    Verb.CHANGE_OWN_PASSWORD: Role.VIEWER,
    Verb.SEE_AGENTS: Role.VIEWER,
    Verb.SEE_COMMANDS: Role.VIEWER,
    Verb.EXECUTE: Role.OPERATOR,
    Verb.CONTROL: Role.OPERATOR,
    Verb.MANAGE_USERS: Role.ADMIN,
}


def authorize(principal: Principal, verb: Verb, agent: Agent | None = None) -> None:
    """Return when it is allowed.

    Raises AgentNotFound where the principal may not see the agent, so that it looks like one
    that does not exist, and Denied where his role does not suffice.
    """
    if agent is not None and not may_see(principal, agent):
        raise AgentNotFound(f"there is no agent {agent.id}")
    if not at_least(principal.role, NEEDED[verb]):
        raise Denied(f"{verb} needs the role {NEEDED[verb]}, {principal.name} is {principal.role}")


def may_see(principal: Principal, agent: Agent) -> bool:
    """Whether every selector of the principal matches the agent's labels."""
    return all(selector.matches(agent.labels) for selector in principal.selectors)
