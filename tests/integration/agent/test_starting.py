"""Starting the agent: settings, sign-in, identity, exit codes."""

import stat
import sys
from pathlib import Path

import pytest

from tests.fakes.recording_controller import PASSWORD, USERNAME, RecordingController
from tests.integration.agent.agent_process import AgentProcess, agent_process, settings_for

NOWHERE = "http://127.0.0.1:9"
AGENT_PY = Path(__file__).resolve().parents[3] / "agent_service" / "agent.py"


@pytest.mark.parametrize(
    ("changes", "name"),
    [
        ({"AGENT_USERNAME": ""}, "AGENT_USERNAME"),
        ({"AGENT_PASSWORD": ""}, "AGENT_PASSWORD"),
        ({"AGENT_PASSWORD": "changeme"}, "AGENT_PASSWORD"),
        ({"CONTROLLER_URL": "ftp://x"}, "CONTROLLER_URL"),
        ({"AGENT_ID": "-no"}, "AGENT_ID"),
        ({"AGENT_LABELS": "a b"}, "AGENT_LABELS"),
        ({"MAX_CONCURRENT_COMMANDS": "many"}, "MAX_CONCURRENT_COMMANDS"),
        ({"RECONNECT_DELAY": "-1"}, "RECONNECT_DELAY"),
        ({"SSH_ENABLED": "true"}, "SSH_ENABLED"),
        ({"AGENT_ENROLLMENT_TOKEN": "x"}, "AGENT_ENROLLMENT_TOKEN"),
        ({"COMMAND_USER": "no-such-account"}, "COMMAND_USER"),
        ({"TLS_CA_FILE": "/does/not/exist"}, "TLS_CA_FILE"),
        ({"DATA_DIR": "/proc/nowhere"}, "DATA_DIR"),
        ({"LOG_FORMAT": "xml"}, "LOG_FORMAT"),
    ],
)
async def test_a_setting_that_is_wrong_ends_the_start_and_is_named(
    tmp_path: Path, changes: dict[str, str], name: str
) -> None:
    async with agent_process(tmp_path, settings_for(NOWHERE, **changes)) as agent:
        assert await agent.exit_code() == 2
    last = agent.log.splitlines()[-1]
    assert last.startswith(f"ogent-agent: {name}: ")
    assert "Traceback" not in agent.log
    assert PASSWORD not in agent.log


async def test_an_unknown_name_in_the_file_is_a_warning(
    controller: RecordingController, tmp_path: Path
) -> None:
    (tmp_path / ".env").write_text("AGENT_LABLES=a=b\nAGENT_LABELS=role=web,env=prod\nDATA_DIR=\n")
    async with agent_process(tmp_path, settings_for(controller.url)) as agent:
        await controller.registered.wait()
        assert "AGENT_LABLES" in agent.log
    assert controller.registrations[0]["labels"] == {"role": "web", "env": "prod"}


async def test_the_script_beside_the_package_starts_the_agent(
    controller: RecordingController, tmp_path: Path
) -> None:
    settings = settings_for(controller.url, DATA_DIR=str(tmp_path / "data"))
    async with agent_process(tmp_path, settings, sys.executable, str(AGENT_PY)) as agent:
        await controller.registered.wait()
        assert await agent.stop() == 0


async def test_the_agent_signs_in_for_its_own_name_and_shows_the_token_only_as_a_header(
    controller: RecordingController, agent: AgentProcess
) -> None:
    agent_id = controller.registrations[0]["agent_id"]
    assert controller.sign_ins[0] == {
        "username": USERNAME, "password": PASSWORD, "scope": f"agent:{agent_id}",
    }  # fmt: skip
    assert controller.connections[0]["authorization"] == "Bearer t1"
    assert set(controller.connections[0]["auth"]) == {"instance_id", "boot_id", "protocol"}
    assert PASSWORD not in agent.log
    assert "t1" not in agent.log.split()


async def test_the_agents_name_is_made_once_and_kept(tmp_path: Path) -> None:
    names = []
    for _ in range(2):
        controller = RecordingController()
        async with controller.serving():
            settings = settings_for(controller.url)
            async with agent_process(tmp_path, settings) as agent:
                await controller.registered.wait()
                assert await agent.stop() == 0
        names.append(controller.registrations[0]["agent_id"])
    assert names[0] == names[1]
    assert stat.S_IMODE((tmp_path / "data").stat().st_mode) == 0o700


async def test_a_second_agent_with_the_same_folder_does_not_start(
    controller: RecordingController, agent: AgentProcess, tmp_path: Path
) -> None:
    other = tmp_path / "other"
    other.mkdir()
    settings = settings_for(controller.url, DATA_DIR=str(tmp_path / "data"))
    async with agent_process(other, settings) as second:
        assert await second.exit_code() == 2
    assert "DATA_DIR: another agent is running" in second.log


async def test_a_wrong_password_is_said_and_tried_again(
    controller: RecordingController, tmp_path: Path
) -> None:
    settings = settings_for(controller.url, AGENT_PASSWORD="wrong but long")
    async with agent_process(tmp_path, settings) as agent:
        await controller.until(lambda: len(controller.sign_ins) >= 3)
        await agent.logged("wrong user name or password")
        assert await agent.stop() == 0
    assert "wrong but long" not in agent.log


async def test_the_pause_that_the_controller_asks_for_is_kept(
    controller: RecordingController, tmp_path: Path
) -> None:
    controller.token_answer = lambda: (429, {"Retry-After": "3000"})
    async with agent_process(tmp_path, settings_for(controller.url)) as agent:
        await agent.logged("next try in 3000.0 s")
        assert await agent.stop() == 0
    assert len(controller.sign_ins) == 1


async def test_an_agent_with_a_limit_gives_up(tmp_path: Path) -> None:
    settings = settings_for(NOWHERE, MAX_RECONNECT_ATTEMPTS="2")
    async with agent_process(tmp_path, settings) as agent:
        assert await agent.exit_code() == 1
    assert "MAX_RECONNECT_ATTEMPTS" in agent.log


async def test_text_of_the_controller_cannot_steer_the_terminal_of_the_log(
    controller: RecordingController, agent: AgentProcess
) -> None:
    refusal = {"ok": False, "error": {"code": "command_not_found", "message": "\x1b[31ma\nb"}}
    controller.outcome_answers = [refusal]
    await controller.execute("c", "true")
    await agent.logged("was refused")
    assert "\x1b" not in agent.log
    assert "a\\nb" in agent.log
