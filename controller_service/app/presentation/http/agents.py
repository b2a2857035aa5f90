"""Agents, and running commands on them."""

from typing import Annotated, Literal

from fastapi import APIRouter, Body, Depends, Header, Path, Query
from starlette.responses import Response

from app import wire
from app.application.use_cases import UseCases
from app.domain.ids import AgentId, CommandId
from app.domain.models.command import Command
from app.domain.models.selector import Selector
from app.domain.models.user import Principal
from app.presentation.http.dependencies import CurrentPrincipal
from ogent.protocol import limits, resources

_EXECUTE_EXAMPLES = {
    "line": {"summary": "One line of shell", "value": {"command": "uname -a && uptime"}},
    "careful": {
        "summary": "With surroundings and a deadline",
        "value": {
            "command": "./deploy.sh",
            "cwd": "/srv/app",
            "env": {"STAGE": "test"},
            "timeout": 600,
            "wait": 0,
        },
    },
}


def agents_router(use_cases: UseCases, current: CurrentPrincipal) -> APIRouter:
    """Routes of agents."""
    router = APIRouter(tags=["agents"])
    Current = Annotated[Principal, Depends(current)]  # noqa: N806 - a type
    AgentPath = Annotated[str, Path(pattern=limits.AGENT_ID_PATTERN)]  # noqa: N806 - a type

    @router.get("/agents")
    async def agents(
        principal: Current,
        status: Literal["online", "offline"] | None = None,
        selector: Annotated[str, Query(max_length=limits.SELECTOR_MAX_CHARS)] = "",
    ) -> list[resources.Agent]:
        """Agents, by id; `selector` is a label selector such as `env=prod,role!=db`."""
        seen = await use_cases.queries.see_agents(
            principal,
            selector=Selector.parse(selector),
            is_online=None if status is None else status == "online",
        )
        return [wire.agent(agent) for agent in seen]

    @router.get("/agents/{agent_id}")
    async def agent(principal: Current, agent_id: AgentPath) -> resources.Agent:
        """One agent."""
        return wire.agent(await use_cases.queries.see_agent(principal, AgentId(agent_id)))

    @router.post(
        "/agents/{agent_id}/execute",
        response_model=resources.Finished,
        responses={202: {"model": resources.Unfinished, "description": "Not finished yet"}},
    )
    async def execute(
        principal: Current,
        agent_id: AgentPath,
        body: Annotated[resources.ExecuteRequest, Body(openapi_examples=_EXECUTE_EXAMPLES)],
        idempotency_key: Annotated[
            str | None, Header(min_length=1, max_length=limits.IDEMPOTENCY_KEY_MAX_CHARS)
        ] = None,
    ) -> Response:
        """Run a command; answers when it has ended, or after `wait` seconds while it goes on."""
        use_cases.lifecycle.require_ready()
        submission = wire.submission(body, principal, agent_id, idempotency_key)
        command_id = await use_cases.submit_command(submission)
        is_away = body.queue and not await use_cases.queries.is_online(AgentId(agent_id))
        command = await _wait(use_cases, command_id, 0 if is_away else body.wait)
        if command.is_final:
            tails = await use_cases.queries.tails(command)
            return _json(wire.finished(command, tails), 200)
        headers = {"Location": f"/commands/{command.id}"}
        return _json(wire.unfinished(command), 202, headers)

    return router


async def _wait(use_cases: UseCases, command_id: CommandId, wait_s: float) -> Command:
    """The command once it is final, or as it is after `wait_s` or when the controller stops."""
    try:
        async with use_cases.lifecycle.deadline(wait_s):
            return await use_cases.follower.wait(command_id)
    except TimeoutError:
        return await use_cases.follower.commands.get(command_id)


def _json(
    body: resources.Finished | resources.Unfinished,
    status: int,
    headers: dict[str, str] | None = None,
) -> Response:
    """`body` as it is: validating megabytes of output a second time would find nothing."""
    return Response(body.model_dump_json(), status, headers=headers, media_type="application/json")
