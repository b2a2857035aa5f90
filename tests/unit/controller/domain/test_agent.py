"""An agent's sessions: the newest wins, and only it can end itself."""

import pytest

from app.domain.errors import AgentOffline
from app.domain.events import AgentChanged, AgentRegistered, AgentReleased
from app.domain.ids import SessionId
from app.domain.models.agent import Session
from tests.builders import NOW, WEB, an_agent, an_online_agent, later, some_facts

FACTS = some_facts(hostname="other")


def test_each_registration_opens_the_next_session() -> None:
    agent = an_agent()
    first = agent.register(SessionId("one"), FACTS, {"a": "b"}, at=later(1))
    second = agent.register(SessionId("two"), FACTS, {"c": "d"}, at=later(2))
    assert [first, second] == [Session(WEB, "one", 1), Session(WEB, "two", 2)]
    assert (agent.sid, agent.epoch, agent.labels) == ("two", 2, {"c": "d"})
    assert agent.connected_at == agent.last_seen_at == later(2)
    assert agent.pull_events() == [AgentRegistered(WEB)] * 2
    assert agent.pull_events() == []


@pytest.mark.parametrize(
    ("own", "last", "epoch"),
    [
        (7, 0, 8),
        (7, 7, 8),
        (7, 41, 42),
        (7, 2**62, 2**62 + 1),
        (7, 2**62 + 1, 8),
        (7, 2**63 - 1, 8),
    ],
)
def test_an_epoch_is_one_that_neither_side_has_seen(own: int, last: int, epoch: int) -> None:
    agent = an_agent(epoch=own)
    session = agent.register(SessionId("one"), FACTS, {}, at=NOW, last_epoch=last)
    assert session.epoch == agent.epoch == epoch


def test_a_released_agent_is_offline_and_keeps_its_epoch() -> None:
    agent = an_online_agent()
    assert agent.release(1, at=later(5))
    assert (agent.is_online, agent.epoch, agent.last_seen_at) == (False, 1, later(5))
    assert agent.pull_events() == [AgentReleased(WEB)]


@pytest.mark.parametrize("epoch", [1, 3])
def test_another_session_does_not_end_the_newest(epoch: int) -> None:
    agent = an_online_agent(epoch=2)
    assert not agent.release(epoch, at=later(5))
    assert agent.is_online
    assert agent.pull_events() == []


def test_a_session_ends_once() -> None:
    agent = an_online_agent()
    agent.release(1, at=later(5))
    agent.pull_events()
    assert not agent.release(1, at=later(6))
    assert (agent.last_seen_at, agent.pull_events()) == (later(5), [])


def test_an_agent_without_a_session_is_offline() -> None:
    an_online_agent().require_online()
    with pytest.raises(AgentOffline) as caught:
        an_agent().require_online()
    assert "queue=true" in caught.value.message


def test_changed_facts_are_taken_and_told() -> None:
    agent = an_online_agent()
    agent.describe(FACTS, at=later(7))
    assert (agent.facts, agent.last_seen_at) == (FACTS, later(7))
    assert agent.pull_events() == [AgentChanged(WEB)]


@pytest.mark.parametrize(
    ("ssh_target", "wanted", "resolved"),
    [
        (None, "auto", "local"),
        ("me@there", "auto", "ssh"),
        ("me@there", "local", "local"),
        (None, "ssh", "ssh"),
        (None, "ssh:db", "ssh:db"),
    ],
)
def test_auto_is_ssh_where_there_is_a_target(
    ssh_target: str | None, wanted: str, resolved: str
) -> None:
    agent = an_agent(facts=some_facts(ssh_target=ssh_target))
    assert agent.resolve_target(wanted) == resolved


def test_labels_are_the_agents_own_copy() -> None:
    agent, labels = an_agent(), {"env": "prod"}
    agent.register(SessionId("one"), FACTS, labels, at=NOW)
    labels["env"] = "test"
    assert agent.labels == {"env": "prod"}
