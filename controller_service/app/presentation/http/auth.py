"""Sign-in, named tokens, one's own account, accounts."""

import re
from typing import Annotated, Final

from fastapi import APIRouter, Body, Depends, Form, Path, Request

from app import wire
from app.application.use_cases import UseCases
from app.application.use_cases.manage_tokens import WantedToken
from app.application.use_cases.manage_users import NewAccount
from app.domain.errors import Invalid
from app.domain.ids import AgentId, TokenId, UserName
from app.domain.models.user import Principal, Role
from app.presentation.http.dependencies import CurrentPrincipal, client_address
from ogent.protocol import limits, resources

_AGENT_SCOPE: Final = "agent:"
_AGENT_ID: Final = re.compile(limits.AGENT_ID_PATTERN)

_TOKEN_EXAMPLE = {"ci": {"value": {"name": "ci", "role": "operator", "expires_in": 86400}}}
_PASSWORD_EXAMPLE = {
    "change": {
        "value": {"current_password": "the one until now", "new_password": "a longer and new one"}
    }
}
_USER_EXAMPLE = {
    "operator": {
        "value": {
            "username": "mara",
            "password": "at least twelve characters",
            "role": "operator",
            "selector": "env=dev",
        }
    },
    "agent": {
        "value": {"username": "web-1", "password": "generated-for-the-agent", "role": "agent"}
    },
}


def auth_router(use_cases: UseCases, current: CurrentPrincipal) -> APIRouter:
    """Routes of identity."""
    router = APIRouter()
    Current = Annotated[Principal, Depends(current)]  # noqa: N806 - a type

    @router.post("/token", tags=["identity"])
    async def sign_in(
        request: Request,
        username: Annotated[str, Form(max_length=256, examples=["admin"])],
        password: Annotated[str, Form(max_length=1024, examples=["its password"])],
        scope: Annotated[str, Form(max_length=256, examples=[""])] = "",
        grant_type: Annotated[str, Form(pattern="^password$", examples=["password"])] = "password",
    ) -> resources.AccessToken:
        """Sign in; with `scope=agent:AGENT_ID` the token is that agent's."""
        del grant_type  # OAuth 2 clients send it; its pattern is all there is to check
        token, claims = await use_cases.sign_in(
            username, password, address=client_address(request), agent_id=_agent_of(scope)
        )
        return wire.access_token(token, claims)

    @router.get("/me", tags=["identity"])
    async def me(principal: Current) -> resources.Me:
        """Who you are and what you may do."""
        return wire.me(principal)

    @router.post("/me/password", tags=["identity"], status_code=204)
    async def change_password(
        principal: Current,
        body: Annotated[resources.NewPassword, Body(openapi_examples=_PASSWORD_EXAMPLE)],
    ) -> None:
        """Change your password."""
        await use_cases.change_own_password(principal, body.current_password, body.new_password)

    @router.get("/tokens", tags=["identity"])
    async def tokens(principal: Current) -> list[resources.TokenInfo]:
        """Your named tokens, oldest first."""
        return [wire.token_info(t) for t in await use_cases.manage_tokens.all(principal)]

    @router.post("/tokens", tags=["identity"], status_code=201)
    async def create_token(
        principal: Current,
        body: Annotated[resources.NewToken, Body(openapi_examples=_TOKEN_EXAMPLE)],
    ) -> resources.CreatedToken:
        """Make a named token for a program; it is shown this once."""
        wanted = WantedToken(
            name=body.name,
            role=None if body.role is None else Role(body.role),
            selector=body.selector,
            expires_in_s=body.expires_in,
        )
        return wire.created_token(*await use_cases.manage_tokens.create(principal, wanted))

    @router.delete("/tokens/{token_id}", tags=["identity"], status_code=204)
    async def delete_token(
        principal: Current, token_id: Annotated[str, Path(max_length=64)]
    ) -> None:
        """Delete one of your named tokens; it stops working at once."""
        await use_cases.manage_tokens.delete(principal, TokenId(token_id))

    @router.get("/users", tags=["users"])
    async def users(principal: Current) -> list[resources.User]:
        """Every account, by name."""
        return [wire.user(u) for u in await use_cases.manage_users.all(principal)]

    @router.post("/users", tags=["users"], status_code=201)
    async def create_user(
        principal: Current,
        body: Annotated[resources.NewUser, Body(openapi_examples=_USER_EXAMPLE)],
    ) -> resources.User:
        """Make an account."""
        wanted = NewAccount(
            name=UserName(body.username),
            password=body.password,
            role=Role(body.role),
            selector=body.selector,
        )
        return wire.user(await use_cases.manage_users.create(principal, wanted))

    @router.delete("/users/{username}", tags=["users"], status_code=204)
    async def delete_user(
        principal: Current, username: Annotated[str, Path(max_length=64)]
    ) -> None:
        """Delete an account and its tokens."""
        await use_cases.manage_users.delete(principal, UserName(username))

    return router


def _agent_of(scope: str) -> AgentId | None:
    if not scope:
        return None
    name = scope.removeprefix(_AGENT_SCOPE)
    if name == scope or not _AGENT_ID.fullmatch(name):
        raise Invalid("scope is either empty or agent:AGENT_ID")
    return AgentId(name)
