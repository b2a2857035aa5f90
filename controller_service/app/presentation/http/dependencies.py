"""Who asks."""

from collections.abc import Awaitable, Callable
from typing import Annotated, Final

from fastapi import Depends, Request
from fastapi.security import OAuth2PasswordBearer

from app.application.use_cases.sign_in import Authenticate
from app.domain.errors import Unauthenticated
from app.domain.models.user import Principal

_SCHEME: Final = OAuth2PasswordBearer(
    tokenUrl="token", auto_error=False, description="`POST /token`, or a named token"
)

CurrentPrincipal = Callable[..., Awaitable[Principal]]


def current_principal(authenticate: Authenticate) -> CurrentPrincipal:
    """A dependency that gives the principal behind `Authorization: Bearer`."""

    async def principal(token: Annotated[str | None, Depends(_SCHEME)]) -> Principal:
        if not token:
            raise Unauthenticated("sign in: send Authorization: Bearer with a token of POST /token")
        return await authenticate(token)

    return principal


def client_address(request: Request) -> str:
    """The address that the connection comes from."""
    return request.client.host if request.client is not None else "unknown"
