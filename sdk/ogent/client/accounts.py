"""Calls about the signed-in account, its tokens, and other accounts."""

from ogent.client.answers import parse, parse_list
from ogent.client.api import Api, segment
from ogent.protocol.resources import (
    CreatedToken,
    Me,
    NewPassword,
    NewToken,
    NewUser,
    TokenInfo,
    User,
)
from ogent.protocol.states import Role


class Accounts:
    """The part of a Client that is about accounts and tokens."""

    def __init__(self, api: Api) -> None:
        self._api = api

    async def me(self) -> Me:
        """Whose token this is, and what it may do; raises Unauthorized, TokenExpired."""
        return parse(Me, await self._api.get("/me"))

    async def change_password(self, current_password: str, new_password: str) -> None:
        """Set the account's password (12 to 1024 characters); every other token of it ends."""
        body = NewPassword(current_password=current_password, new_password=new_password)
        await self._api.post("/me/password", body)

    async def tokens(self) -> list[TokenInfo]:
        """The account's named tokens, without the tokens themselves."""
        return parse_list(TokenInfo, await self._api.get("/tokens"))

    async def create_token(
        self,
        name: str,
        *,
        role: Role | None = None,
        selector: str | None = None,
        expires_in: float | None = None,
    ) -> CreatedToken:
        """A named token for a program; its `token` is shown this one time.

        Its rights are at most the account's; `expires_in` in seconds, None for no end.
        """
        body = NewToken(name=name, role=role, selector=selector, expires_in=expires_in)
        return parse(CreatedToken, await self._api.post("/tokens", body))

    async def delete_token(self, token_id: str) -> None:
        """End a named token; raises TokenNotFound."""
        await self._api.delete(f"/tokens/{segment(token_id)}")

    async def users(self) -> list[User]:
        """Every account; raises Forbidden for anyone but administrators."""
        return parse_list(User, await self._api.get("/users"))

    async def create_user(
        self, username: str, password: str, role: Role, *, selector: str | None = None
    ) -> User:
        """A new account; `selector` limits it to agents whose labels match.

        Raises UserExists, Forbidden.
        """
        body = NewUser(username=username, password=password, role=role, selector=selector)
        return parse(User, await self._api.post("/users", body))

    async def delete_user(self, username: str) -> None:
        """Delete an account; raises UserNotFound, LastAdministrator, Forbidden."""
        await self._api.delete(f"/users/{segment(username)}")
