"""`ogent tokens`: named tokens for programs."""

from ogent.cli import exit_codes
from ogent.cli.render import as_json
from ogent.cli.session import open_client, say
from ogent.cli.tables import moment, show_rows
from ogent.protocol.states import Role


async def list_tokens(*, machine: bool) -> int:
    """Show the account's named tokens."""
    async with open_client() as client:
        tokens = await client.tokens()
    if machine:
        print(as_json([token.model_dump(mode="json") for token in tokens]))
    elif tokens:
        show_rows(
            ("token id", "name", "role", "selector", "created", "expires"),
            [
                (
                    token.token_id,
                    token.name,
                    token.role.value,
                    token.selector or "",
                    moment(token.created_at),
                    moment(token.expires_at) or "never",
                )
                for token in tokens
            ],
            flexible="name",
        )
    else:
        say("no named tokens")
    return exit_codes.OK


async def create_token(
    name: str, *, role: Role | None, selector: str | None, expires_in: float | None, machine: bool
) -> int:
    """Make a named token and print it, this one time."""
    async with open_client() as client:
        token = await client.create_token(name, role=role, selector=selector, expires_in=expires_in)
    if machine:
        print(as_json(token.model_dump(mode="json")))
    else:
        print(token.token)
        say(f"it is shown this one time; `ogent tokens delete {token.token_id}` ends it")
    return exit_codes.OK


async def delete_token(token_id: str, *, machine: bool) -> int:
    """End a named token."""
    async with open_client() as client:
        await client.delete_token(token_id)
    if machine:
        print(as_json({"token_id": token_id}))
    else:
        say(f"{token_id} is refused from now on")
    return exit_codes.OK
