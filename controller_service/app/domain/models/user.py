"""Accounts, their roles, and what somebody who signed in may do."""

from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Final

from app.domain.ids import TokenId, UserName
from app.domain.models.selector import Selector


class Role(StrEnum):
    """What an account may do; `agent` stands apart from the other three."""

    VIEWER = "viewer"
    OPERATOR = "operator"
    ADMIN = "admin"
    AGENT = "agent"


_RANK: Final = {Role.AGENT: 0, Role.VIEWER: 1, Role.OPERATOR: 2, Role.ADMIN: 3}


def at_least(role: Role, needed: Role) -> bool:
    """Whether `role` includes `needed`: viewer < operator < admin; `agent` includes nothing."""
    return role is not Role.AGENT and _RANK[role] >= _RANK[needed]


@dataclass(frozen=True, slots=True, kw_only=True)
class User:
    """An account. `selector` limits it to agents whose labels match; None is no limit."""

    name: UserName
    password_hash: str
    role: Role
    selector: str | None = None
    is_disabled: bool = False
    created_at: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class NamedToken:
    """A token for a program: its digest, whose it is, and what it is limited to."""

    id: TokenId
    owner: UserName
    name: str
    digest: str
    role: Role
    selector: str | None
    created_at: datetime
    expires_at: datetime | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Principal:
    """Somebody who has shown who he is. Every selector has to match: his own and his token's."""

    name: UserName
    role: Role
    selectors: tuple[Selector, ...] = ()
    selector_text: str | None = None
    expires_at: datetime | None = None
