"""Write the state machines of docs/state-machines.md as the tables in the code have them."""

import sys
from collections.abc import Mapping, Set
from enum import StrEnum
from typing import TypeVar

from agent.domain.models import execution
from app.domain.models import states
from generated_part import ROOT, run, table
from ogent.protocol.states import STATUS
from ogent.protocol.states import State as WireState

DOCUMENT = ROOT / "docs" / "state-machines.md"

S = TypeVar("S", bound=StrEnum)


def main() -> int:
    """Bring the document up to date, or with --check say whether it is."""
    parts = {
        "command states": _diagram(states.State, states.NEXT) + "\n" + _command_table(),
        "command actions": _action_table(),
        "execution states": _diagram(execution.State, execution.NEXT) + "\n" + _execution_table(),
    }
    return run(__doc__ or "", DOCUMENT, parts)


def _diagram(words: type[S], next_states: Mapping[S, Set[S]]) -> str:
    first = next(iter(words))
    lines = ["```mermaid", "stateDiagram-v2", f"    [*] --> {first}"]
    for state in words:
        followers = _in_order(words, next_states.get(state, frozenset()))
        lines += [f"    {state} --> {follower}" for follower in followers]
    lines += [f"    {state} --> [*]" for state in words if state not in next_states]
    return "\n".join([*lines, "```", ""])


def _command_table() -> str:
    rows = [
        [
            f"`{state}`",
            f"`{STATUS[WireState(state)]}`",
            _followers(states.State, states.NEXT, state),
        ]
        for state in states.State
    ]
    return table(["state", "status", "may lead to"], rows)


def _execution_table() -> str:
    words, next_states = execution.State, execution.NEXT
    rows = [[f"`{state}`", _followers(words, next_states, state)] for state in words]
    return table(["state", "may lead to"], rows)


def _action_table() -> str:
    rows = [
        [f"`{action}`", _words(_in_order(states.State, states.ALLOWED[action]))]
        for action in states.Action
    ]
    return table(["action", "possible in"], rows)


def _followers(words: type[S], next_states: Mapping[S, Set[S]], state: S) -> str:
    if state not in next_states:
        return "nothing: final"
    return _words(_in_order(words, next_states[state]))


def _in_order(words: type[S], some: Set[S]) -> list[S]:
    """`some` in the order in which the words are declared, so that the text never jumps."""
    return [word for word in words if word in some]


def _words(some: list[S]) -> str:
    return ", ".join(f"`{word}`" for word in some)


if __name__ == "__main__":
    sys.exit(main())
