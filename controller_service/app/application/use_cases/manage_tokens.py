"""Named tokens for programs."""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta

from app.application.authorization import Verb, authorize
from app.application.ports.clock import Clock
from app.application.ports.repositories import UserRepository
from app.application.tokens import new_named_token, token_digest
from app.domain.errors import Denied, Invalid
from app.domain.ids import TokenId
from app.domain.models.selector import Selector
from app.domain.models.user import NamedToken, Principal, Role, at_least


@dataclass(frozen=True, slots=True, kw_only=True)
class WantedToken:
    """A named token as its owner wants it; `role` None means the owner's own."""

    name: str
    role: Role | None = None
    selector: str | None = None
    expires_in_s: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class ManageTokens:
    """Create, list and delete one's own named tokens."""

    users: UserRepository
    clock: Clock
    new_id: Callable[[], str]

    async def create(self, principal: Principal, wanted: WantedToken) -> tuple[str, NamedToken]:
        """The token, shown this once, and what is stored of it.

        Never above the one who asks: Denied is raised for a higher role, and a selector of his
        own narrows the new token as well.
        """
        authorize(principal, Verb.MANAGE_OWN_TOKENS)
        role = wanted.role or principal.role
        if role is Role.AGENT:
            raise Invalid("a named token is for people's programs: agents sign in as agents")
        if not at_least(principal.role, role):
            raise Denied(f"a token cannot have the role {role}: {principal.name} has not")
        token = new_named_token()
        stored = self._stored(principal, wanted, role, token_digest(token))
        await self.users.add_token(stored)
        return token, stored

    async def all(self, principal: Principal) -> list[NamedToken]:
        """One's own tokens, oldest first."""
        authorize(principal, Verb.MANAGE_OWN_TOKENS)
        return await self.users.tokens(principal.name)

    async def delete(self, principal: Principal, token_id: TokenId) -> None:
        """Delete one's own token; raises TokenNotFound."""
        authorize(principal, Verb.MANAGE_OWN_TOKENS)
        await self.users.remove_token(principal.name, token_id)

    def _stored(
        self, principal: Principal, wanted: WantedToken, role: Role, digest: str
    ) -> NamedToken:
        now = self.clock.now()
        texts = [text for text in (principal.selector_text, wanted.selector) if text]
        selector = ",".join(texts) or None
        Selector.parse(selector or "")
        ends = None
        if wanted.expires_in_s is not None:
            ends = now + timedelta(seconds=wanted.expires_in_s)
        return NamedToken(
            id=TokenId(self.new_id()),
            owner=principal.name,
            name=wanted.name,
            digest=digest,
            role=role,
            selector=selector,
            created_at=now,
            expires_at=ends,
        )
