"""`ogent exec` as a real process."""

import asyncio
import json
import os
import signal

import pytest

from tests.fakes.scripted_controller import Script
from tests.integration.sdk.ogent_process import ended

BINARY = bytes(range(256)) * 100


async def readable(fd: int) -> None:
    loop, ready = asyncio.get_running_loop(), asyncio.Event()
    loop.add_reader(fd, ready.set)
    async with asyncio.timeout(40):
        await ready.wait()
    loop.remove_reader(fd)


async def test_both_streams_are_exact(ogent, controller):
    chunks = [("stdout", BINARY), ("stderr", b"\x1b]0;t\x07\xff"), ("stdout", b"no newline")]
    controller.scripts["x"] = Script(chunks)
    done = await ogent.run("exec", "web-1", "--", "x")
    assert done.out == BINARY + b"no newline"
    assert done.err == "\x1b]0;t\x07\udcff"
    assert done.code == 0


async def test_a_cut_connection_shows_nothing_twice(ogent, controller):
    chunks = [("stdout", b"%d\n" % n) for n in range(500)]
    controller.scripts["x"] = Script(chunks)
    controller.cuts = [100, 5000, 20_000]
    done = await ogent.run("exec", "web-1", "--", "x")
    assert done.out == b"".join(data for _, data in chunks)
    assert (done.code, done.err) == (0, "")


@pytest.mark.parametrize(
    ("script", "code", "said"),
    [
        (Script(exit_code=0), 0, ""),
        (Script(state="failed", exit_code=7), 7, ""),
        (Script(state="failed", exit_code=None, signal="SIGKILL"), 137, "ended by SIGKILL"),
        (Script(state="timed_out", exit_code=None), 124, "timed out after 1.5 s"),
        (Script(state="lost", exit_code=None), 125, "may have finished or not"),
        (Script(state="rejected", exit_code=None), 125, "rejected"),
        (Script(state="cancelled", exit_code=None), 130, "cancelled"),
        (
            Script(
                state="failed",
                exit_code=None,
                error={"code": "spawn_failed", "message": "no such\x1b[2J directory"},
            ),
            125,
            "did not start: no such\\x1b[2J directory (spawn_failed)",
        ),
        (Script([("stdout", b"a")], lost_bytes=2048), 0, "2.0 KiB of stdout were not stored"),
        (Script([], lost_bytes=9), 0, "output was cut: 9 B of stdout were not stored"),
    ],
)
async def test_the_end_of_a_command_becomes_the_exit_code(ogent, controller, script, code, said):
    controller.scripts["x"] = script
    done = await ogent.run("exec", "web-1", "--", "x")
    assert done.code == code
    assert said in done.err
    assert bool(said) == bool(done.err)


async def test_one_word_is_a_shell_line_and_several_are_quoted(ogent, controller):
    controller.scripts = {"ls | wc": Script(), "printf %s 'a b' '*'": Script()}
    assert (await ogent.run("exec", "web-1", "--", "ls | wc")).code == 0
    assert (await ogent.run("exec", "web-1", "--", "printf", "%s", "a b", "*")).code == 0


async def test_options_reach_the_controller(ogent, controller):
    controller.scripts["x"] = Script()
    words = ["--timeout", "5", "--env", "A=b=c", "--env", "E=", "--cwd", "/tmp", "--queue"]
    assert (await ogent.run("exec", "web-1", "--local", *words, "--", "x")).code == 0
    assert controller.commands["cmd-1"].request == {
        "command": "x",
        "execution_target": "local",
        "timeout": 5.0,
        "env": {"A": "b=c", "E": ""},
        "cwd": "/tmp",
        "wait": 0,
        "queue": True,
    }


async def test_stdin_is_sent_with_i_and_only_then(ogent, controller):
    controller.scripts["cat"] = Script()
    await ogent.run("exec", "web-1", "-i", "--", "cat", stdin="für\n".encode())
    await ogent.run("exec", "web-1", "--", "cat", stdin=b"ignored")
    sent = [command.request.get("stdin") for command in controller.commands.values()]
    assert sent == ["für\n", None]


@pytest.mark.parametrize(
    ("stdin", "said"), [(b"x" * (256 * 1024 + 1), "over 256.0 KiB"), (b"\xff", "not UTF-8")]
)
async def test_unusable_stdin_runs_nothing(ogent, controller, stdin, said):
    done = await ogent.run("exec", "web-1", "-i", "--", "cat", stdin=stdin)
    assert done.code == 125
    assert said in done.err
    assert controller.commands == {}


async def test_ctrl_c_ends_the_wait_for_stdin_at_a_keyboard(ogent, controller):
    terminal = await ogent.on_terminal("exec", "web-1", "-i", "--", "cat")
    await terminal.shows(b"Ctrl-D")
    terminal.type(b"some text\n\x03")
    assert await terminal.ended() == 130
    assert controller.commands == {}


async def test_ctrl_d_at_a_keyboard_sends_what_was_typed(ogent, controller):
    controller.scripts["cat"] = Script()
    terminal = await ogent.on_terminal("exec", "web-1", "-i", "--", "cat")
    await terminal.shows(b"Ctrl-D")
    terminal.type(b"some text\n\x04")
    assert await terminal.ended() == 0
    assert controller.commands["cmd-1"].request["stdin"] == "some text\n"


async def test_detach_prints_the_id_and_leaves(ogent, controller):
    done = await ogent.run("exec", "web-1", "--detach", "--", "sleep 100")
    assert (done.code, done.out, done.err) == (0, b"cmd-1\n", "")
    assert controller.commands["cmd-1"].state == "running"


async def test_json_prints_the_result_alone(ogent, controller):
    controller.scripts["x"] = Script([("stdout", b"out")], state="failed", exit_code=4)
    done = await ogent.run("exec", "web-1", "--json", "--", "x")
    printed = json.loads(done.out)
    assert (printed["state"], printed["result"]["stdout"], done.code) == ("failed", "out", 4)


async def test_refusals_are_ogents_own_failure_with_the_next_step(ogent):
    done = await ogent.run("exec", "away-1", "--", "x")
    assert done.code == 125
    assert "away-1 is not connected" in done.err
    assert "--queue" in done.err
    assert (await ogent.run("exec", "nobody", "--", "x")).code == 125


@pytest.mark.parametrize(
    "words",
    [
        ["exec"],
        ["exec", "web-1"],
        ["exec", "web-1", "--timeout", "-1", "--", "x"],
        ["exec", "web-1", "--env", "=v", "--", "x"],
        ["exec", "web-1", "ls", "-l"],
        ["nonsense"],
    ],
)
async def test_wrong_usage_is_2(ogent, controller, words):
    done = await ogent.run(*words)
    assert done.code == 2
    assert controller.commands == {}


async def test_ctrl_c_once_detaches_and_says_how_to_come_back(ogent, controller):
    process = await ogent.start("exec", "web-1", "--", "sleep 100")
    await controller.streaming.wait()
    process.send_signal(signal.SIGINT)
    done = await ended(process)
    assert done.code == 3
    assert "ogent logs -f cmd-1" in done.err
    assert "ogent cancel cmd-1" in done.err
    assert controller.commands["cmd-1"].state == "running"


async def test_ctrl_c_twice_cancels(ogent, controller):
    process = await ogent.start("exec", "web-1", "--", "sleep 100")
    await controller.streaming.wait()
    process.send_signal(signal.SIGINT)
    assert process.stderr is not None
    assert b"again within 2 s" in await process.stderr.readline()
    process.send_signal(signal.SIGINT)
    done = await ended(process)
    assert done.code == 130
    assert controller.commands["cmd-1"].state == "cancelled"


async def test_a_command_that_ends_while_ctrl_c_asks_keeps_its_code(ogent, controller):
    process = await ogent.start("exec", "web-1", "--", "sleep 100")
    await controller.streaming.wait()
    process.send_signal(signal.SIGINT)
    assert process.stderr is not None
    await process.stderr.readline()
    controller.commands["cmd-1"].end("failed", 9)
    assert (await ended(process)).code == 9


async def test_a_reader_that_leaves_ends_it_quietly(ogent, controller):
    reading, writing = os.pipe()
    process = await ogent.start("exec", "web-1", "--", "yes", stdout=writing)
    os.close(writing)
    await controller.started.wait()
    os.close(reading)
    controller.commands["cmd-1"].write("stdout", b"y\n" * 100_000)
    done = await ended(process)
    assert (done.code, done.err) == (141, "")


async def test_a_slow_reader_gets_everything(ogent, controller):
    data = os.urandom(1_000_000)
    controller.scripts["x"] = Script(
        [("stdout", data[n : n + 250_000]) for n in range(0, 10**6, 250_000)]
    )
    process = await ogent.start("exec", "web-1", "--", "x")
    await controller.streaming.wait()
    assert (await ended(process)).out == data


async def test_a_terminal_gets_colours_and_no_other_sequences(ogent, controller):
    controller.scripts["x"] = Script(
        [("stdout", b"\x1b[31mred\x1b]0;title\x07\x1b[2J"), ("stdout", "ä\n".encode())]
    )
    terminal = await ogent.on_terminal("exec", "web-1", "--", "x")
    assert await terminal.process.wait() == 0
    await terminal.shows(b"\x1b[31mred\xc3\xa4\r\n\x1b[0m")
    assert b"title" not in terminal.seen


async def test_raw_leaves_a_terminal_to_the_command(ogent, controller):
    controller.scripts["x"] = Script([("stdout", b"\x1b]0;title\x07\x1b[2J")])
    terminal = await ogent.on_terminal("exec", "web-1", "--raw", "--", "x")
    await terminal.shows(b"\x1b]0;title\x07\x1b[2J")


async def test_a_silent_command_shows_a_progress_line_that_goes_away(ogent, controller):
    terminal = await ogent.on_terminal("exec", "web-1", "--", "sleep 100")
    # A busy machine may draw its first line later than after one second.
    await terminal.shows("running · ".encode())
    await terminal.shows(" s · 0 B · no output yet".encode())
    controller.commands["cmd-1"].write("stdout", b"line\n")
    await terminal.shows(b"\r\x1b[Kline\r\n")
    await terminal.shows(" s · 5 B · last output ".encode())
    controller.commands["cmd-1"].end("succeeded", 0)
    assert await terminal.process.wait() == 0
    await terminal.shows(b"\r\x1b[K")
    assert terminal.seen.endswith(b"\r\x1b[K")


async def test_a_prompt_is_not_drawn_over(ogent, controller):
    terminal = await ogent.on_terminal("exec", "web-1", "--", "sleep 100")
    await controller.started.wait()
    controller.commands["cmd-1"].write("stdout", b"name? ")
    await terminal.shows(b"name? ")
    shown = len(terminal.seen)
    controller.commands["cmd-1"].write("stdout", b"still? ")
    controller.commands["cmd-1"].end("succeeded", 0)
    assert await terminal.process.wait() == 0
    assert b"\r" not in terminal.seen[shown:]


async def test_a_lost_connection_is_said_on_a_terminal(ogent, controller):
    controller.scripts["x"] = Script([("stdout", b"one\n"), ("stdout", b"two\n")])
    controller.cuts = [400]
    terminal = await ogent.on_terminal("exec", "web-1", "--", "x")
    await terminal.shows(b"resuming\r\n")
    await terminal.shows(b"connected again\r\n")
    await terminal.shows(b"two\r\n")
    assert await terminal.process.wait() == 0


async def test_ctrl_c_works_while_nobody_reads_stdout(ogent, controller):
    reading, writing = os.pipe()
    process = await ogent.start("exec", "web-1", "--", "yes", stdout=writing)
    os.close(writing)
    await controller.started.wait()
    controller.commands["cmd-1"].write("stdout", b"y\n" * 100_000)
    await readable(reading)  # and nobody reads it: the pipe fills up
    process.send_signal(signal.SIGINT)
    assert (await ended(process)).code == 3
    os.close(reading)
