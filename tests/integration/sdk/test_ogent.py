"""The other subcommands of `ogent`, as real processes."""

import json
import re
import signal
import socket

import pytest

from tests.fakes.scripted_controller import Script, agent
from tests.integration.sdk.ogent_process import ended

PASSWORD = b"correct horse battery\n"


async def sign_in(ogent, url):
    ogent.environ.pop("OGENT_TOKEN", None)
    ogent.environ.pop("OGENT_URL", None)
    return await ogent.run("login", url, "--username", "ada", "--password-stdin", stdin=PASSWORD)


async def test_login_keeps_a_named_token_and_not_the_password(ogent, url, controller):
    done = await sign_in(ogent, url)
    assert done.code == 0, done.err
    assert ogent.login_file.stat().st_mode & 0o777 == 0o600
    stored = json.loads(ogent.login_file.read_text())
    assert (stored["url"], stored["token"]) == (url, "secret-1")
    asked = [(method, path) for method, path, *_ in controller.requests]
    assert asked == [("POST", "/token"), ("POST", "/tokens")]  # nothing this release has not
    assert str(controller.named["tok-1"]["name"]).startswith("ogent login on ")
    assert b"ada (operator) at" in (await ogent.run("whoami")).out


async def test_login_again_ends_the_former_token(ogent, url, controller):
    await sign_in(ogent, url)
    await sign_in(ogent, url)
    assert list(controller.named) == ["tok-2"]
    assert json.loads(ogent.login_file.read_text())["token_id"] == "tok-2"


async def test_logout_ends_the_token_and_forgets_it(ogent, url, controller):
    await sign_in(ogent, url)
    assert (await ogent.run("logout")).code == 0
    assert controller.named == {}
    assert not ogent.login_file.exists()
    assert (await ogent.run("logout")).code == 1


async def test_a_wrong_password_stores_nothing(ogent, url):
    done = await ogent.run("login", url, "--username", "ada", "--password-stdin", stdin=b"wrong\n")
    assert done.code == 1
    assert "wrong password" in done.err
    assert not ogent.login_file.exists()


async def test_login_asks_on_a_terminal_without_showing_the_password(ogent, url):
    terminal = await ogent.on_terminal("login", url)
    await terminal.shows(b"username: ")
    terminal.type(b"ada\n")
    await terminal.shows(b"password: ")
    terminal.type(PASSWORD)
    assert await terminal.process.wait() == 0
    await terminal.shows(b"signed in at")
    assert b"battery" not in terminal.seen


@pytest.mark.parametrize("words", [[], ["--username", "ada"]])
async def test_ctrl_c_ends_the_questions_of_login(ogent, url, words):
    terminal = await ogent.on_terminal("login", url, *words)
    await terminal.shows(b"password: " if words else b"username: ")
    terminal.type(b"\x03")
    assert await terminal.ended() == 130
    assert not ogent.login_file.exists()


async def test_a_stored_token_is_not_sent_to_another_controller(ogent, url, controller):
    await sign_in(ogent, url)
    ogent.environ["OGENT_URL"] = url.replace("127.0.0.1", "localhost")
    done = await ogent.run("whoami")
    assert done.code == 1
    assert "not signed in" in done.err
    assert len(controller.asked("/me")) == 0


async def test_a_refused_token_is_told_with_the_next_step(ogent):
    ogent.environ["OGENT_TOKEN"] = "forged"
    done = await ogent.run("agents")
    assert (done.code, done.out) == (1, b"")
    assert "no valid token" in done.err
    assert "ogent login" in done.err
    as_json = json.loads((await ogent.run("--json", "agents")).err)
    assert as_json["error"]["code"] == "unauthorized"


async def test_an_unreachable_controller_is_told_with_the_next_step(ogent):
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    ogent.environ["OGENT_URL"] = f"http://127.0.0.1:{port}"
    done = await ogent.run("agents")
    assert done.code == 1
    assert "Connection refused" in done.err
    assert "ogent doctor" in done.err


@pytest.mark.parametrize("words", [["agents"], ["exec", "web-1", "--", "x"], ["doctor"], ["login"]])
async def test_an_unusable_address_is_one_line_and_the_next_step(ogent, words):
    ogent.environ["OGENT_URL"] = "http://127.0.0.1:99999"
    done = await ogent.run(*words)
    assert (done.code, done.out) == (125 if words[0] == "exec" else 1, b"")
    said, step = done.err.splitlines()
    assert "cannot be used: " in said
    assert step.startswith("  next: set OGENT_URL")


@pytest.mark.parametrize("token", ["sécret", "secret\nX-Other: 1"])
async def test_an_unusable_token_is_told_and_not_shown(ogent, controller, token):
    ogent.environ["OGENT_TOKEN"] = token
    done = await ogent.run("agents")
    assert done.code == 1
    said, step = done.err.splitlines()
    assert said.startswith("ogent: OGENT_TOKEN cannot be sent: its character ")
    assert step.startswith("  next: set OGENT_TOKEN")
    assert "cret" not in done.err
    assert controller.requests == []


async def test_agents_are_rows_in_a_pipe_and_json_on_demand(ogent):
    rows = (await ogent.run("agents")).out.decode().splitlines()
    assert [row.split("\t")[:2] for row in rows] == [
        ["AGENT", "STATUS"],
        ["web-1", "online"],
        ["away-1", "offline"],
    ]
    for words in (["agents", "--json"], ["--json", "agents"]):
        printed = json.loads((await ogent.run(*words)).out)
        assert [found["agent_id"] for found in printed] == ["web-1", "away-1"]


async def test_hostile_text_cannot_drive_the_terminal(ogent, controller):
    controller.agents = [agent("web-1", hostname="\x1b]0;owned\x07[bold]\u202e\n")]
    terminal = await ogent.on_terminal("agents")
    await terminal.shows(b"\\x1b]0;owned\\x07[bold]\\u202e\\n")
    assert await terminal.process.wait() == 0
    assert b"\x1b]0" not in terminal.seen


async def test_ps_lists_what_runs_and_all_what_ended(ogent, controller):
    controller.scripts["true"] = Script()
    controller.start("sleep 100")
    controller.start("true")
    running = (await ogent.run("ps")).out.decode()
    assert "cmd-1" in running
    assert "cmd-2" not in running
    everything = json.loads((await ogent.run("ps", "--all", "--json")).out)
    assert [command["command_id"] for command in everything] == ["cmd-2", "cmd-1"]


async def test_ps_on_80_columns_breaks_no_word_but_the_commands(ogent, controller):
    for number in range(3):
        command = controller.start("for n in 1 2 3; do echo line $n; done", "web-prod-1")
        command.command_id = f"01m7ybreg99p6ngr0mhzxh0cq{number}"
        command.end("cancelled", signal="SIGTERM")
    terminal = await ogent.on_terminal("ps", "--all", columns=80)
    assert await terminal.ended() == 0
    await terminal.shows(b"h0cq0")
    text = re.sub(r"\x1b\[[0-9;]*m", "", terminal.seen.decode())
    lines = [line for line in text.splitlines() if line.startswith("01m7")]
    found = [line.split()[:4] for line in lines]
    ids = [f"01m7ybreg99p6ngr0mhzxh0cq{number}" for number in (2, 1, 0)]
    assert found == [[each, "web-prod-1", "cancelled", "SIGTERM"] for each in ids]
    assert all(len(line) <= 80 for line in text.splitlines())
    assert "OUTPUT" not in text
    assert "SIGTERM" in text


async def test_show_tells_where_a_command_stands(ogent, controller):
    controller.start("x").end("failed", 3)
    shown = (await ogent.run("show", "cmd-1")).out.decode()
    assert "state        failed\nexit         3\n" in shown
    done = await ogent.run("show", "cmd-9")
    assert (done.code, "ogent ps --all" in done.err) == (1, True)


@pytest.mark.parametrize("words", [[], ["-f"], ["--grep", "kept"], ["--json"]])
async def test_logs_say_how_much_of_the_output_is_not_stored(ogent, controller, words):
    controller.scripts["x"] = Script([("stdout", b"kept\n")], lost_bytes=3 * 1024 * 1024)
    controller.start("x")
    done = await ogent.run("logs", "cmd-1", *words)
    assert (done.code, b"kept" in done.out) == (0, True)
    assert done.err == "ogent: output was cut: 3.0 MiB of stdout were not stored\n"
    assert (await ogent.run("logs", "cmd-1", "--stream", "stderr", *words)).err == ""


async def test_show_says_how_much_of_the_output_is_not_stored(ogent, controller):
    controller.scripts["x"] = Script([("stdout", b"kept\n")], lost_bytes=2048)
    controller.start("x")
    assert b"not stored   2.0 KiB of stdout\n" in (await ogent.run("show", "cmd-1")).out
    controller.scripts["x"] = Script([("stdout", b"kept\n")])
    controller.start("x")
    assert b"not stored" not in (await ogent.run("show", "cmd-2")).out


async def test_cancel_stops_a_command(ogent, controller):
    command = controller.start("sleep 100")
    assert (await ogent.run("cancel", "cmd-1")).code == 0
    assert command.state == "cancelled"
    assert (await ogent.run("cancel", "--kill", "cmd-1")).code == 1


async def test_logs_of_an_ended_command_are_exact(ogent, controller):
    controller.scripts["x"] = Script([("stdout", b"\xff\n"), ("stderr", b"e\n")])
    controller.start("x")
    done = await ogent.run("logs", "cmd-1")
    assert (done.code, done.out, done.err) == (0, b"\xff\n", "e\n")
    only = await ogent.run("logs", "cmd-1", "--stream", "stderr")
    assert (only.out, only.err) == (b"", "e\n")


async def test_logs_of_a_running_command_end_with_what_is_stored(ogent, controller):
    controller.start("x").write("stdout", b"apple\npear\n")
    assert (await ogent.run("logs", "cmd-1")).out == b"apple\npear\n"
    assert (await ogent.run("logs", "cmd-1", "--grep", "pear")).out == b"pear\n"
    assert (await ogent.run("logs", "cmd-1", "--grep", "(")).code == 1
    assert (await ogent.run("logs", "cmd-1", "-f", "--grep", "x")).code == 2


async def test_logs_follow_to_the_end(ogent, controller):
    command = controller.start("x")
    process = await ogent.start("logs", "-f", "cmd-1")
    await controller.streaming.wait()
    command.write("stdout", b"late\n")
    command.end("failed", 5)
    done = await ended(process)
    assert (done.code, done.out) == (0, b"late\n")


async def test_following_logs_may_be_left(ogent, controller):
    command = controller.start("x")
    process = await ogent.start("logs", "-f", "cmd-1")
    await controller.streaming.wait()
    process.send_signal(signal.SIGINT)
    assert (await ended(process)).code == 130
    assert command.state == "running"


async def test_logs_as_json_keep_exact_bytes(ogent, controller):
    controller.scripts["x"] = Script([("stdout", b"\xff"), ("stderr", b"e")])
    controller.start("x")
    lines = (await ogent.run("logs", "cmd-1", "--json")).out.splitlines()
    printed = [json.loads(line) for line in lines]
    assert [line["stream"] for line in printed] == ["stdout", "stderr"]
    assert printed[0]["data_base64"] == "/w=="
    assert "data_base64" not in printed[1]


async def test_tokens_are_made_listed_and_ended(ogent):
    made = await ogent.run("tokens", "create", "ci", "--role", "viewer")
    assert (made.code, made.out) == (0, b"secret-1\n")
    assert "tok-1\tci\tviewer" in (await ogent.run("tokens", "list")).out.decode()
    assert (await ogent.run("tokens", "delete", "tok-1")).code == 0
    assert (await ogent.run("tokens", "delete", "tok-1")).code == 1


async def test_doctor_finds_everything_on(ogent):
    done = await ogent.run("doctor")
    assert done.code == 0, done.out
    text = done.out.decode()
    for line in ("[on ] controller", "[on ] ready", "[on ] signed in: ada, operator", "1 of 2"):
        assert line in text


async def test_doctor_says_what_is_off_and_how_to_turn_it_on(ogent, controller):
    controller.agents = []
    done = await ogent.run("doctor", "--json")
    findings = {finding["name"]: finding for finding in json.loads(done.out)}
    assert done.code == 1
    assert not findings["agents"]["on"]
    assert "ogent-agent" in findings["agents"]["fix"]
    ogent.environ["OGENT_TOKEN"] = "forged"
    assert "[OFF] signed in" in (await ogent.run("doctor")).out.decode()


@pytest.mark.parametrize("words", [["--version"], ["--json", "--version"]])
async def test_the_version_needs_no_controller(ogent, words):
    ogent.environ["OGENT_URL"] = "http://127.0.0.1:1"
    done = await ogent.run(*words)
    assert (done.code, done.out) == (0, b"ogent 0.1.0\n")
