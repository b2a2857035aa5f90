"""Signed tokens by python-jose: the one module that imports it.

The algorithm is fixed here and never read from a token; every claim is required; a user's token
and an agent's differ in `aud` and `typ`, so that neither is taken for the other.
"""

import secrets
from datetime import timedelta
from typing import Any, Final, Literal

from cachetools import LRUCache
from jose import ExpiredSignatureError, JWTError, jwt

from app.application.ports.clock import Clock
from app.application.ports.security import Claims
from app.domain.errors import TokenExpired, Unauthenticated
from app.domain.ids import AgentId, UserName
from app.infrastructure.repositories.rows import from_micros

ALGORITHM: Final = "HS256"
KEY_MIN_CHARS: Final = 32
TOKEN_MAX_CHARS: Final = 4096
#: Tokens whose signature was checked and is not checked again.
READ_BEFORE_MAX: Final = 1024
_AUDIENCE: Final = {"user": "ogent", "agent": "ogent-agent"}
_REQUIRED: Final = {f"require_{claim}": True for claim in ("exp", "iat", "aud", "sub", "jti")}

Kind = Literal["user", "agent"]


class JoseTokens:
    """A TokenIssuer over HS256."""

    def __init__(self, secret_key: str, *, lifetime: timedelta, clock: Clock) -> None:
        if len(secret_key) < KEY_MIN_CHARS:
            raise ValueError(f"the key has fewer than {KEY_MIN_CHARS} characters")
        self._key = secret_key
        self._lifetime = lifetime
        self._clock = clock
        self._read_before: LRUCache[tuple[Kind, str], Claims] = LRUCache(READ_BEFORE_MAX)

    def issue(self, subject: UserName, *, agent_id: AgentId | None = None) -> tuple[str, Claims]:
        """A user's token, or with `agent_id` an agent's."""
        now = self._clock.now().replace(microsecond=0)
        claims = Claims(
            subject=subject, agent_id=agent_id, issued_at=now, expires_at=now + self._lifetime
        )
        kind: Kind = "user" if agent_id is None else "agent"
        body: dict[str, Any] = {
            "sub": subject,
            "iat": int(now.timestamp()),
            "exp": int(claims.expires_at.timestamp()),
            "aud": _AUDIENCE[kind],
            "jti": secrets.token_urlsafe(12),
            "typ": kind,
        }
        if agent_id is not None:
            body["agent_id"] = agent_id
        return jwt.encode(body, self._key, algorithm=ALGORITHM), claims

    def read_user(self, token: str) -> Claims:
        """Claims of a user's token."""
        return self._read(token, "user")

    def read_agent(self, token: str) -> Claims:
        """Claims of an agent's token."""
        claims = self._read(token, "agent")
        if claims.agent_id is None:
            raise Unauthenticated("the token names no agent")
        return claims

    def _read(self, token: str, kind: Kind) -> Claims:
        """Claims of a token; one that was good once only has to be looked at for its age."""
        known = self._read_before.get((kind, token))
        if known is None:
            known = self._read_before[kind, token] = self._verify(token, kind)
        elif known.expires_at <= self._clock.now():
            raise TokenExpired("the token has expired: sign in again")
        return known

    def _verify(self, token: str, kind: Kind) -> Claims:
        if len(token) > TOKEN_MAX_CHARS:
            raise Unauthenticated("the token is not valid: it is too long")
        try:
            body = jwt.decode(
                token,
                self._key,
                algorithms=[ALGORITHM],
                audience=_AUDIENCE[kind],
                options=_REQUIRED,
            )
        except ExpiredSignatureError as exc:
            raise TokenExpired("the token has expired: sign in again") from exc
        except JWTError as exc:
            raise Unauthenticated("the token is not valid: sign in again") from exc
        if body.get("typ") != kind:
            raise Unauthenticated("the token is of another kind")
        return _claims(body)


def _claims(body: dict[str, Any]) -> Claims:
    agent_id = body.get("agent_id")
    return Claims(
        subject=UserName(str(body["sub"])),
        agent_id=None if agent_id is None else AgentId(str(agent_id)),
        issued_at=from_micros(int(body["iat"]) * 1_000_000),
        expires_at=from_micros(int(body["exp"]) * 1_000_000),
    )
