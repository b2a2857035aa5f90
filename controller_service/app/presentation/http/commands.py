"""Commands and what can be done with them."""

from typing import Annotated

from fastapi import APIRouter, Body, Depends, Path, Query

from app import wire
from app.application.ports.repositories import CommandFilter
from app.application.use_cases import UseCases
from app.domain.ids import AgentId, CommandId, UserName
from app.domain.models.states import Action, State
from app.domain.models.user import Principal
from app.presentation.http.dependencies import CurrentPrincipal
from ogent.protocol import limits, resources
from ogent.protocol.states import State as WireState

_CONTROL_EXAMPLES = {
    "cancel": {"value": {"action": "cancel"}},
    "kill": {"value": {"action": "kill"}},
}

CommandPath = Annotated[str, Path(max_length=64)]


def commands_router(use_cases: UseCases, current: CurrentPrincipal) -> APIRouter:
    """Routes of commands."""
    router = APIRouter(tags=["commands"])
    Current = Annotated[Principal, Depends(current)]  # noqa: N806 - a type

    @router.get("/commands")
    async def commands(
        principal: Current,
        agent_id: Annotated[str | None, Query(pattern=limits.AGENT_ID_PATTERN)] = None,
        state: WireState | None = None,
        requester: Annotated[str | None, Query(max_length=64)] = None,
        limit: Annotated[int, Query(ge=1, le=limits.PAGE_MAX_ITEMS)] = limits.PAGE_DEFAULT_ITEMS,
        cursor: Annotated[str | None, Query(max_length=64)] = None,
    ) -> resources.CommandPage:
        """Commands, newest first."""
        wanted = CommandFilter(
            agent_ids=None if agent_id is None else [AgentId(agent_id)],
            states=None if state is None else [State(state)],
            requester=None if requester is None else UserName(requester),
        )
        before = None if cursor is None else CommandId(cursor)
        page = await use_cases.queries.see_commands(principal, wanted, before=before, limit=limit)
        return wire.command_page(page)

    @router.get("/commands/{command_id}")
    async def command(principal: Current, command_id: CommandPath) -> resources.Command:
        """One command."""
        return wire.command(await use_cases.queries.see_command(principal, CommandId(command_id)))

    @router.post("/commands/{command_id}/control", status_code=202)
    async def control(
        principal: Current,
        command_id: CommandPath,
        body: Annotated[resources.ControlRequest, Body(openapi_examples=_CONTROL_EXAMPLES)],
    ) -> resources.Command:
        """Cancel, kill, pause or resume; done when the command's state says so."""
        changed = await use_cases.control_command(
            principal, CommandId(command_id), Action(body.action)
        )
        return wire.command(changed)

    return router
