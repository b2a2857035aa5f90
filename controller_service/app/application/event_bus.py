"""Events to handlers: a table given at construction, nothing registers itself."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from app.domain.events import Event

Handler = Callable[[Any], None]


class EventBus:
    """Tells each event to the handlers of its type, in order, at once.

    Handlers only ring bells: they never wait and never fail for a reason of the event.
    """

    def __init__(self, handlers: Mapping[type[Event], Sequence[Handler]]) -> None:
        self._handlers = handlers

    def publish(self, events: Iterable[Event]) -> None:
        """Tell `events`, which are already stored."""
        for event in events:
            for handler in self._handlers.get(type(event), ()):
                handler(event)
