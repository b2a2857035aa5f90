"""Every message has a golden sample: what was written once is read for ever, and written the same.

`samples/NAME.json` is a JSON body, `samples/NAME.hex` a MessagePack frame of the agents' door. A
sample that does not fit any more is a change of the published language, not of the sample.
"""

import inspect
import json
from itertools import chain
from pathlib import Path
from typing import Any

import pytest
from pydantic import BaseModel, ValidationError

from ogent.protocol import messages, resources
from ogent.protocol.codec import MalformedFrame, pack, unpack
from ogent.protocol.limits import FRAME_MAX_BYTES
from ogent.protocol.messages import Frame
from ogent.protocol.resources import Answer, Request

SAMPLES = Path(__file__).parent / "samples"
BASES = {Request, Answer, Frame}


def models() -> dict[str, type[BaseModel]]:
    """Every model of the wire by its name."""
    members = chain(
        inspect.getmembers(messages, inspect.isclass),
        inspect.getmembers(resources, inspect.isclass),
    )
    return {
        name: kind
        for name, kind in members
        if issubclass(kind, BaseModel) and kind not in BASES and kind is not BaseModel
    }


MODELS = models()
IN_JSON = sorted(path.stem for path in SAMPLES.glob("*.json"))
PACKED = sorted(path.stem for path in SAMPLES.glob("*.hex"))


def json_of(name: str) -> str:
    return (SAMPLES / f"{name}.json").read_text()


def bytes_of(name: str) -> bytes:
    return bytes.fromhex((SAMPLES / f"{name}.hex").read_text())


def value_of(name: str) -> dict[str, Any]:
    return json.loads(json_of(name)) if name in IN_JSON else unpack(bytes_of(name))


def test_every_message_has_exactly_one_sample() -> None:
    assert sorted(IN_JSON + PACKED) == sorted(MODELS)


@pytest.mark.parametrize("name", IN_JSON)
def test_a_body_is_read_and_written_the_same(name: str) -> None:
    found = MODELS[name].model_validate_json(json_of(name))
    written = json.dumps(found.model_dump(mode="json"), indent=2, ensure_ascii=False) + "\n"
    assert written == json_of(name)


@pytest.mark.parametrize("name", PACKED)
def test_a_frame_is_read_and_written_the_same(name: str) -> None:
    found = MODELS[name].model_validate(unpack(bytes_of(name)))
    assert pack(found.model_dump()) == bytes_of(name)


@pytest.mark.parametrize("name", sorted(MODELS))
def test_a_sample_has_every_field(name: str) -> None:
    value = value_of(name)
    assert set(value) == set(MODELS[name].model_fields)
    assert None not in value.values()


@pytest.mark.parametrize("name", sorted(MODELS))
def test_requests_refuse_what_they_do_not_know_and_the_rest_ignores_it(name: str) -> None:
    value = {**value_of(name), "from_a_newer_version": 1}
    if issubclass(MODELS[name], Request):
        with pytest.raises(ValidationError):
            MODELS[name].model_validate(value)
    else:
        assert MODELS[name].model_validate(value) == MODELS[name].model_validate(value_of(name))


@pytest.mark.parametrize("name", sorted(MODELS))
def test_a_message_never_changes(name: str) -> None:
    found = MODELS[name].model_validate(value_of(name))
    with pytest.raises(ValidationError):
        setattr(found, next(iter(MODELS[name].model_fields)), "other")


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\xc1",
        b"\x93\x01\x02\x03",
        pack({"a": 1})[:-1],
        pack({"a": 1}) + b"\0",
        b"\x81\x01\x02",
        b"\x81\xa1\xff\x01",
        b"\xdf\xff\xff\xff\xff",
        b"\x81\xa1a" + b"\x91" * 100_000,
    ],
)
def test_bytes_that_are_no_frame_are_refused(data: bytes) -> None:
    with pytest.raises(MalformedFrame):
        unpack(data)


def test_a_frame_over_its_bound_is_refused_before_it_is_parsed() -> None:
    with pytest.raises(MalformedFrame):
        unpack(b"\0" * (FRAME_MAX_BYTES + 1))


@pytest.mark.parametrize("text", ["2026-11-21T05:44:00", "yesterday", ""])
def test_a_time_needs_its_zone(text: str) -> None:
    value = {**value_of("ClientState"), "timestamp": text}
    with pytest.raises(ValidationError):
        messages.ClientState.model_validate(value)


def test_a_time_is_written_in_utc_whatever_zone_it_came_in() -> None:
    value = {**value_of("ClientState"), "timestamp": "2026-11-21T07:44:00.5+02:00"}
    found = messages.ClientState.model_validate(value)
    assert found.model_dump()["timestamp"] == "2026-11-21T05:44:00.500000Z"
