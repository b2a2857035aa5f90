"""From the bytes of an answer to a typed result or a typed error."""

from contextlib import suppress
from typing import TypeVar

from pydantic import BaseModel, TypeAdapter, ValidationError

from ogent.client.errors import UnexpectedAnswer, error_for
from ogent.client.transport import HttpAnswer
from ogent.protocol.problems import Problem

_Model = TypeVar("_Model", bound=BaseModel)


def parse(model: type[_Model], answer: HttpAnswer) -> _Model:
    """`answer` as `model`; raises UnexpectedAnswer where it is something else."""
    try:
        return model.model_validate_json(answer.body)
    except ValidationError as exc:
        raise UnexpectedAnswer(answer.status, f"the body is no {model.__name__}") from exc


def parse_list(model: type[_Model], answer: HttpAnswer) -> list[_Model]:
    """`answer` as a list of `model`; raises UnexpectedAnswer where it is something else."""
    try:
        return TypeAdapter(list[model]).validate_json(answer.body)  # type: ignore[valid-type]
    except ValidationError as exc:
        raise UnexpectedAnswer(answer.status, f"the body is no list of {model.__name__}") from exc


def raise_for_problem(answer: HttpAnswer) -> None:
    """Raise the error that `answer` carries; return where it carries none."""
    if 200 <= answer.status < 300:
        return
    if 300 <= answer.status < 400:
        where = answer.headers.get("location", "elsewhere")
        raise UnexpectedAnswer(answer.status, f"it sends us to {where}; use that address")
    try:
        problem = Problem.model_validate_json(answer.body)
    except ValidationError as exc:
        raise UnexpectedAnswer(
            answer.status, "the answer is not a controller's; is the address right?"
        ) from exc
    raise error_for(problem, retry_after_s=_seconds(answer.headers.get("retry-after")))


def _seconds(text: str | None) -> float | None:
    with suppress(TypeError, ValueError):
        return float(text)  # type: ignore[arg-type]
    return None
