"""Passwords, tokens and attempts without cryptography."""

from datetime import timedelta

from app.application.ports.clock import Clock
from app.application.ports.security import Claims
from app.domain.errors import TokenExpired, TooManyAttempts, Unauthenticated
from app.domain.ids import AgentId, UserName


class FakeHasher:
    """A PasswordHasher whose hashes can be read; `verified` lists what it was asked."""

    def __init__(self) -> None:
        self.verified: list[str | None] = []

    async def hash(self, password: str) -> str:
        return f"hash of {password}"

    async def verify(self, password: str, password_hash: str | None) -> bool:
        self.verified.append(password_hash)
        return password_hash == f"hash of {password}"


class FakeTokens:
    """A TokenIssuer that remembers what it issued."""

    def __init__(self, clock: Clock, *, lifetime: timedelta = timedelta(minutes=30)) -> None:
        self._clock = clock
        self._lifetime = lifetime
        self._issued: dict[str, Claims] = {}

    def issue(self, subject: UserName, *, agent_id: AgentId | None = None) -> tuple[str, Claims]:
        now = self._clock.now()
        claims = Claims(
            subject=subject, agent_id=agent_id, issued_at=now, expires_at=now + self._lifetime
        )
        token = f"token {len(self._issued)}"
        self._issued[token] = claims
        return token, claims

    def read_user(self, token: str) -> Claims:
        return self._read(token, is_agents=False)

    def read_agent(self, token: str) -> Claims:
        return self._read(token, is_agents=True)

    def _read(self, token: str, *, is_agents: bool) -> Claims:
        claims = self._issued.get(token)
        if claims is None or (claims.agent_id is not None) is not is_agents:
            raise Unauthenticated("the token is not valid")
        if claims.expires_at <= self._clock.now():
            raise TokenExpired("the token has expired")
        return claims


class RecordingAttempts:
    """Attempts that refuses after `most` failures of one account."""

    def __init__(self, most: int = 3) -> None:
        self.failures: list[tuple[str, str]] = []
        self._most = most

    def check(self, username: str, address: str) -> None:
        if self.failures.count((username, address)) >= self._most:
            raise TooManyAttempts("too many", retry_after_s=60)

    def failed(self, username: str, address: str) -> None:
        self.failures.append((username, address))
