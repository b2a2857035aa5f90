"""Label selectors in the grammar of Kubernetes: `env=prod,role!=db,zone in (a,b),gpu,!old`."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from app.domain.errors import InvalidSelector

SELECTOR_MAX_CHARS: Final = 1024
_NAME = r"[A-Za-z0-9](?:[A-Za-z0-9._/-]*[A-Za-z0-9])?"
_VALUE = r"(?:[A-Za-z0-9](?:[A-Za-z0-9._-]*[A-Za-z0-9])?)?"
_SET: Final = re.compile(rf"\s*({_NAME})\s+(in|notin)\s*\(([^()]*)\)\s*")
_EQUALITY: Final = re.compile(rf"\s*({_NAME})\s*(==|=|!=)\s*({_VALUE})\s*")
_EXISTS: Final = re.compile(rf"\s*(!?)\s*({_NAME})\s*")
_ONE_VALUE: Final = re.compile(rf"\s*({_VALUE})\s*")


@dataclass(frozen=True, slots=True)
class Requirement:
    """One condition: the label's value is, or is not, among `values`; None asks for presence."""

    name: str
    values: frozenset[str] | None
    is_negated: bool

    def matches(self, labels: Mapping[str, str]) -> bool:
        """Whether `labels` meet it; a label that is absent is unequal to every value."""
        if self.values is None:
            found = self.name in labels
        else:
            found = self.name in labels and labels[self.name] in self.values
        return found is not self.is_negated


@dataclass(frozen=True, slots=True)
class Selector:
    """All of its requirements together; without any it selects everything."""

    requirements: tuple[Requirement, ...] = ()

    @classmethod
    def parse(cls, text: str) -> "Selector":
        """Read a selector; raises InvalidSelector, which names the part that is wrong."""
        if len(text) > SELECTOR_MAX_CHARS:
            raise InvalidSelector(f"a selector has at most {SELECTOR_MAX_CHARS} characters")
        if not text.strip():
            return cls()
        found: list[Requirement] = []
        place = 0
        while True:
            requirement, place = _requirement(text, place)
            found.append(requirement)
            if place == len(text):
                return cls(tuple(found))
            if text[place] != ",":
                raise _bad(text, place)
            place += 1

    def matches(self, labels: Mapping[str, str]) -> bool:
        """Whether `labels` meet every requirement."""
        return all(requirement.matches(labels) for requirement in self.requirements)


def _requirement(text: str, place: int) -> tuple[Requirement, int]:
    if match := _SET.match(text, place):
        name, operator, inner = match.groups()
        values = frozenset(_value(text, part) for part in inner.split(","))
        return Requirement(name, values, operator == "notin"), match.end()
    if match := _EQUALITY.match(text, place):
        name, operator, value = match.groups()
        return Requirement(name, frozenset({value}), operator == "!="), match.end()
    if match := _EXISTS.match(text, place):
        return Requirement(match[2], None, match[1] == "!"), match.end()
    raise _bad(text, place)


def _value(text: str, part: str) -> str:
    match = _ONE_VALUE.fullmatch(part)
    if match is None:
        raise InvalidSelector(f"{part.strip()[:64]!r} in {text[:64]!r} is no label value")
    return match[1]


def _bad(text: str, place: int) -> InvalidSelector:
    return InvalidSelector(
        f"cannot read the selector at character {place}: {text[place : place + 32]!r}; "
        "it looks like env=prod,role!=db,zone in (a,b),gpu,!old"
    )
