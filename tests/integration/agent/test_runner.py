"""The runner by itself: a real process, spoken to over its socket."""

import hashlib
import os
import resource
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from agent.infrastructure.runner.records import frame, to_json
from agent.infrastructure.runner.server import CONNECTIONS_MAX, IDLE_S
from tests.fakes.runner_process import (
    LENGTH,
    MAIN,
    RunnerProcess,
    Talk,
    check_index,
    commands_in,
    connect,
    end_everything,
    facts_of,
    is_alive,
    stored,
    wait_until,
)

MIB = 1024 * 1024
#: Children of every kind: in the session, in one of their own, orphaned, and without any mark in
#: the environment on top of that. Each prints its number.
TREE = (
    "sleep 1000 & echo $!; setsid sleep 1001 & echo $!; (setsid sh -c 'sleep 1002 & echo $!' &); "
    "(env -i setsid sh -c '(setsid sh -c \"echo \\$\\$; exec sleep 1003\" &)' &); "
)


@pytest.fixture
def data_dir(tmp_path: Path) -> Iterator[Path]:
    yield tmp_path / "data"
    end_everything(tmp_path / "data")


@pytest.fixture
def runner(data_dir: Path) -> Iterator[RunnerProcess]:
    runner = RunnerProcess(data_dir)
    yield runner
    runner.kill()


@pytest.fixture
def talk(runner: RunnerProcess) -> Iterator[Talk]:
    with runner.talk() as talk:
        yield talk


def tree(talk: Talk, data_dir: Path, script: str, lines: int, **changes: object) -> list[int]:
    """A command whose script has printed the numbers of `lines` processes."""
    assert "pid" in talk.start("c", script, **changes)
    wait_until(lambda: stored(data_dir, "c").count(b"\n") >= lines)
    pids = [int(line) for line in stored(data_dir, "c").split()]
    assert all(is_alive(pid) for pid in pids)
    return pids


def facts_file(data_dir: Path) -> Path:
    return data_dir / "spool" / "c.facts"


def written_down(data_dir: Path, command_id: str = "c") -> bool:
    return "end" in facts_of(data_dir, command_id)


def connected(data_dir: Path) -> socket.socket:
    connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    connection.settimeout(20)
    connect(connection, data_dir)
    return connection


# --- ends -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("command", "code", "name"),
    [
        ("exit 0", 0, None),
        ("exit 255", 255, None),
        ("kill -TERM $$", None, "SIGTERM"),
        ("kill -KILL $$", None, "SIGKILL"),
        ("kill -35 $$", None, "SIGRTMIN+1"),
        ("not-a-command", 127, None),
    ],
)
def test_how_a_command_ended_is_told(
    talk: Talk, command: str, code: int | None, name: str | None
) -> None:
    end = talk.run("c", command)
    assert (end["code"], end["signal"]) == (code, name)
    assert (end["ended_as"], end["failure"]) == (None, None)
    assert end["started_at"] <= end["finished_at"]


def test_the_end_is_written_down_before_it_is_told(talk: Talk, data_dir: Path) -> None:
    end = talk.run("c", "exit 7")
    assert facts_of(data_dir, "c")["end"] == end


def test_the_end_of_a_command_that_was_told_to_nobody_is_told_to_who_comes(
    runner: RunnerProcess, data_dir: Path
) -> None:
    with runner.talk() as talk:
        talk.start("c", "sleep 0.2; exit 7")
    wait_until(lambda: written_down(data_dir))
    with runner.talk() as talk:
        (job,) = talk.welcome["jobs"]
        assert (job["id"], job["state"], job["end"]["code"]) == ("c", "ended", 7)


def test_what_cannot_be_started_leaves_nothing_and_is_not_started_later(
    talk: Talk, data_dir: Path
) -> None:
    answer = talk.start("c", "true", cwd="/does/not/exist")
    assert answer["code"] == "spawn_failed"
    assert "does not exist" in answer["message"] or "No such file" in answer["message"]
    assert commands_in(data_dir) == set()
    assert talk.start("c", "true")["code"] == "started_before"


def test_a_command_is_started_once_whatever_is_left_of_it(talk: Talk) -> None:
    talk.run("c", "true")
    assert talk.start("c", "true")["code"] == "started_before"
    talk.request("forget", id="c")
    assert talk.start("c", "true")["code"] == "started_before"
    assert talk.job("c") is None


@pytest.mark.parametrize("name", ["../x", "a/b", "", ".", "x" * 81])
def test_no_file_outside_the_spool_is_made(
    runner: RunnerProcess, data_dir: Path, name: str
) -> None:
    with runner.talk() as talk, pytest.raises((EOFError, ConnectionResetError)):
        talk.start("c", "true", name=name)
    assert os.listdir(data_dir / "spool") == []
    with runner.talk() as talk:
        assert talk.run("d", "exit 3")["code"] == 3


# --- what a command gets ------------------------------------------------------------------------


def test_a_command_inherits_nothing_of_the_runner(talk: Talk, data_dir: Path) -> None:
    talk.run(
        "c", "ls -l /proc/self/fd | grep -c -- '->'; env; grep -E 'Sig(Ign|Blk)' /proc/self/status"
    )
    lines = stored(data_dir, "c").decode().splitlines()
    assert lines[0] == "4"  # its three, and the folder that ls reads
    names = {line.split("=")[0] for line in lines[1:-2]}
    assert names <= {"PATH", "OGENT_COMMAND_ID", "PWD", "SHLVL", "_", "OLDPWD"}
    library = 1 << 31 | 1 << 32  # the C library's own: who started the tests may ignore them
    assert [int(line.split()[1], 16) & ~library for line in lines[-2:]] == [0, 0]


def test_a_command_ignores_no_signal_that_who_started_the_agent_ignored(data_dir: Path) -> None:
    runner = RunnerProcess(data_dir, "sh", "-c", 'trap "" HUP INT QUIT USR1; exec "$@"', "sh")
    with runner.talk() as talk:
        talk.run("c", "grep SigIgn /proc/self/status")
    library = 1 << 31 | 1 << 32
    assert int(stored(data_dir, "c").split()[1], 16) & ~library == 0
    runner.kill()


def test_descriptors_and_children_do_not_pile_up(runner: RunnerProcess, talk: Talk) -> None:
    def open_files() -> int:
        return len(os.listdir(f"/proc/{runner.pid}/fd"))

    talk.run("first", "true")
    before = open_files()
    for number in range(20):
        talk.run(f"c{number}", "(sleep 0.05 &) ; exit 1", stdin="x")
        talk.start(f"d{number}", "true", cwd="/does/not/exist")
    children = Path(f"/proc/{runner.pid}/task/{runner.pid}/children")
    wait_until(lambda: children.read_text() == "")
    assert open_files() <= before


# --- output -------------------------------------------------------------------------------------


def test_output_over_many_segments_is_as_it_was_written(
    talk: Talk, data_dir: Path, tmp_path: Path
) -> None:
    script = f"head -c 5500001 /dev/urandom | tee {tmp_path}/copy; echo no >&2"
    end = talk.run("c", script)
    written = (tmp_path / "copy").read_bytes()
    assert stored(data_dir, "c") == written
    assert end["written"] == end["kept"] == [len(written), 3]
    assert len(list((data_dir / "spool").glob("c.stdout-*"))) == 6
    check_index(data_dir, "c")


def test_both_streams_of_a_chatty_command_are_indexed_in_order(talk: Talk, data_dir: Path) -> None:
    talk.run("c", "for i in $(seq 400); do echo out $i; echo err $i >&2; done")
    check_index(data_dir, "c")
    assert stored(data_dir, "c").split() == [
        word for number in range(1, 401) for word in (b"out", b"%d" % number)
    ]


def test_beyond_its_bound_output_is_counted_and_thrown_away(talk: Talk, data_dir: Path) -> None:
    end = talk.run("c", "head -c 3000000 /dev/zero; echo no >&2", max_output_bytes=1_500_000)
    assert (end["written"], end["kept"]) == ([3_000_000, 3], [1_500_000, 0])
    assert len(stored(data_dir, "c")) == 1_500_000
    check_index(data_dir, "c")


def test_a_full_spool_makes_the_command_wait_until_something_is_released(
    runner: RunnerProcess, data_dir: Path
) -> None:
    with runner.talk(spool_max_bytes=1_000_000) as talk:
        talk.start("c", "head -c 6000000 /dev/zero; echo >&2")
        wait_until(lambda: len(stored(data_dir, "c")) >= 1_000_000)
        assert talk.run("other", "echo hi")["kept"] == [3, 0]  # it waits for nobody
        size = len(stored(data_dir, "c"))
        assert size < 1_000_000 + 2 * MIB
        assert not written_down(data_dir)
        while not written_down(data_dir):
            released = len(stored(data_dir, "c"))
            talk.request("release", id="c", stored=[released, 0], unneeded=[0, 0])
        assert talk.end_of("c")["kept"] == [6_000_000, 1]
    check_index(data_dir, "c")


def test_an_agent_with_a_larger_bound_sets_a_waiting_command_going(
    runner: RunnerProcess, data_dir: Path
) -> None:
    with runner.talk(spool_max_bytes=1000) as talk:
        talk.start("c", "head -c 6000000 /dev/zero")
        wait_until(lambda: len(stored(data_dir, "c")) >= 1000)
    with runner.talk() as talk:
        assert talk.end_of("c")["kept"] == [6_000_000, 0]


def test_segments_that_nobody_needs_are_deleted(talk: Talk, data_dir: Path) -> None:
    talk.run("c", "head -c 4000000 /dev/zero")
    talk.request("release", id="c", stored=[4_000_000, 0], unneeded=[2 * MIB + 5, 0])
    assert sorted(path.name for path in (data_dir / "spool").glob("c.stdout-*")) == [
        "c.stdout-00000002", "c.stdout-00000003",
    ]  # fmt: skip
    for _ in range(2):
        talk.request("release", id="c", stored=[4_000_000, 0], unneeded=[1 << 62, 1 << 62])
    assert talk.job("c")["released"] == [4_000_000, 0]  # type: ignore[index]
    talk.request("forget", id="c")
    assert commands_in(data_dir) == set()


def test_a_command_that_runs_is_not_forgotten(talk: Talk, data_dir: Path) -> None:
    talk.start("c", "sleep 1000")
    talk.request("forget", id="c")
    assert talk.job("c") is not None
    talk.stop("c", force=1)
    assert talk.end_of("c")["ended_as"] == "cancelled"


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A folder on a disk of 3 MiB."""
    folder = tmp_path / "small"
    folder.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=3m", "tmpfs", str(folder)], capture_output=True
    )
    if mounted.returncode != 0:
        pytest.skip("this host lets nobody mount a small tmpfs")
    yield folder
    end_everything(folder / "data")
    subprocess.run(["umount", "-l", str(folder)], check=True)


def fill(ballast: Path) -> None:
    """Leave no room on the disk of `ballast`."""
    with ballast.open("wb", buffering=0) as file, suppress(OSError):
        while file.write(bytes(4096)):
            pass


def test_a_full_disk_makes_the_command_wait_and_loses_nothing(small_disk: Path) -> None:
    data_dir, ballast = small_disk / "data", small_disk / "ballast"
    ballast.write_bytes(bytes(2 * MIB))
    runner = RunnerProcess(data_dir)
    with runner.talk() as talk:
        talk.start("c", "head -c 2000000 /dev/urandom; exit 7")
        assert "space" in talk.hear("short_of_space", "c")["reason"]
        assert not written_down(data_dir)
        ballast.unlink()
        end = talk.end_of("c")
    assert (end["code"], end["kept"]) == (7, [2_000_000, 0])
    check_index(data_dir, "c")
    runner.kill()


def test_an_end_is_noted_although_the_disk_is_full(small_disk: Path) -> None:
    data_dir = small_disk / "data"
    runner = RunnerProcess(data_dir)
    with runner.talk() as talk:
        talk.start("c", "sleep 1000")
        fill(small_disk / "ballast")
        talk.stop("c", force=1)
        assert talk.end_of("c")["ended_as"] == "cancelled"
    assert facts_of(data_dir, "c")["end"]["ended_as"] == "cancelled"
    runner.kill()


def test_a_command_that_cannot_be_noted_on_a_full_disk_is_not_started(small_disk: Path) -> None:
    data_dir, ballast = small_disk / "data", small_disk / "ballast"
    runner = RunnerProcess(data_dir)
    fill(ballast)
    with runner.talk() as talk:
        answer = talk.start("c", f"touch {small_disk.parent}/ran")
        assert (answer["code"], "space" in answer["message"]) == ("no_room", True)
        assert not (small_disk.parent / "ran").exists()
        ballast.unlink()
        assert talk.run("c", f"touch {small_disk.parent}/ran")["code"] == 0
    assert (small_disk.parent / "ran").exists()
    runner.kill()


def test_a_full_disk_is_no_reason_not_to_take_over(small_disk: Path) -> None:
    data_dir = small_disk / "data"
    runner = RunnerProcess(data_dir)
    with runner.talk() as talk:
        (pid,) = tree(talk, data_dir, "echo $$; exec sleep 1000", 1)
    runner.kill()
    fill(small_disk / "ballast")
    after = RunnerProcess(data_dir)
    with after.talk() as talk:
        wait_until(lambda: not is_alive(pid))
        assert talk.job("c")["state"] == "running"  # type: ignore[index]  # its end is not kept yet
        (small_disk / "ballast").unlink()
        assert (talk.job("c") or {})["end"] or talk.end_of("c")["ended_as"] == "lost"
    after.kill()


# --- stops --------------------------------------------------------------------------------------


@pytest.mark.parametrize("force", [0, 1])
def test_after_a_stop_nothing_of_the_tree_is_left(talk: Talk, data_dir: Path, force: int) -> None:
    pids = tree(talk, data_dir, TREE + "wait", 4)
    talk.stop("c", force)
    assert talk.end_of("c")["ended_as"] == "cancelled"
    assert not any(is_alive(pid) for pid in pids)


def test_a_tree_that_ignores_being_asked_is_gone_after_its_grace(
    talk: Talk, data_dir: Path
) -> None:
    pids = tree(
        talk, data_dir, f"trap '' TERM HUP INT; {TREE} echo $$; while :; do sleep 1; done", 5
    )
    began = time.monotonic()
    talk.stop("c")
    end = talk.end_of("c")
    assert 4.9 < time.monotonic() - began < 10
    assert (end["ended_as"], end["signal"]) == ("cancelled", "SIGKILL")
    assert not any(is_alive(pid) for pid in pids)


def test_a_tree_that_flees_from_process_to_process_is_caught(
    talk: Talk, data_dir: Path, tmp_path: Path
) -> None:
    flee = tmp_path / "flee.sh"
    flee.write_text(
        f"trap '' TERM\necho >> {tmp_path}/steps\nsleep 0.01\nsetsid env -i /bin/sh {flee} &\n"
    )
    talk.start("c", f"setsid env -i /bin/sh {flee} & sleep 1000")
    wait_until(lambda: (tmp_path / "steps").exists())
    talk.stop("c", force=1)
    assert talk.end_of("c")["ended_as"] == "cancelled"
    steps = (tmp_path / "steps").read_bytes()
    time.sleep(0.3)  # the time in which another step would have come
    assert (tmp_path / "steps").read_bytes() == steps


def test_a_deadline_holds_although_no_agent_is_there(runner: RunnerProcess, data_dir: Path) -> None:
    with runner.talk() as talk:
        pids = tree(talk, data_dir, TREE + "wait", 4, timeout_s=0.8)
    wait_until(lambda: written_down(data_dir))
    end = facts_of(data_dir, "c")["end"]
    assert (end["ended_as"], end["failure"]["code"]) == ("timed_out", "timed_out")
    assert not any(is_alive(pid) for pid in pids)


def test_a_deadline_ends_what_is_paused(talk: Talk, data_dir: Path) -> None:
    (pid,) = tree(talk, data_dir, "echo $$; exec sleep 1000", 1, timeout_s=0.8)
    assert talk.request("pause", id="c")["has_happened"] is True
    assert talk.job("c")["state"] == "paused"  # type: ignore[index]
    assert talk.end_of("c")["ended_as"] == "timed_out"
    assert not is_alive(pid)


def test_output_of_a_dying_tree_is_kept(talk: Talk, data_dir: Path) -> None:
    tree(talk, data_dir, "trap 'sleep 1.5; seq 100000 | tail -n 1; exit 3' TERM; echo $$; "
         "while :; do sleep 0.05; done", 1)  # fmt: skip
    talk.stop("c")
    end = talk.end_of("c")
    assert (end["ended_as"], end["code"]) == ("cancelled", 3)
    assert stored(data_dir, "c").endswith(b"100000\n")


def test_a_child_that_keeps_the_pipes_lives_on_and_so_does_the_runner(
    runner: RunnerProcess, data_dir: Path
) -> None:
    with runner.talk() as talk:
        talk.run("c", "(trap '' PIPE; for i in $(seq 15); do sleep 0.1; echo x || touch "
                 f"{data_dir}/broken; done; touch {data_dir}/done) & exit 0")  # fmt: skip
        runner.process.terminate()
        wait_until(lambda: (data_dir / "done").exists())
    assert not (data_dir / "broken").exists()
    assert runner.ended() == 0


# --- its own life -------------------------------------------------------------------------------


def test_it_ends_by_itself_when_nobody_is_there_and_nothing_runs(
    runner: RunnerProcess, data_dir: Path
) -> None:
    with runner.talk() as talk:
        talk.run("c", "true")
    began = time.monotonic()
    assert runner.ended() == 0
    assert time.monotonic() - began > IDLE_S / 2
    assert not (data_dir / "runner" / "runner.sock").exists()


def test_while_a_command_runs_it_stays_without_an_agent(
    runner: RunnerProcess, data_dir: Path
) -> None:
    with runner.talk() as talk:
        talk.start("c", f"sleep {IDLE_S + 2}; exit 7")
    time.sleep(IDLE_S + 1)
    with runner.talk() as talk:
        assert talk.welcome["jobs"][0]["state"] == "running"
        assert talk.end_of("c")["code"] == 7


def test_told_to_end_it_first_lets_its_commands_end(runner: RunnerProcess, data_dir: Path) -> None:
    with runner.talk() as talk:
        tree(talk, data_dir, "echo $$; sleep 0.5; exit 7", 1)
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            runner.process.send_signal(number)
        assert talk.end_of("c")["code"] == 7
    assert runner.ended() == 0


def test_who_comes_after_one_that_ended_in_order_goes_on_as_that_one(
    runner: RunnerProcess, data_dir: Path
) -> None:
    with runner.talk() as talk:
        name = talk.welcome["runner_id"]
        talk.run("c", "exit 7")
        talk.run("gone", "true")
        talk.request("forget", id="gone")
        runner.process.terminate()
    assert runner.ended() == 0
    after = RunnerProcess(data_dir)
    with after.talk() as talk:
        assert talk.welcome["runner_id"] == name
        assert talk.welcome["jobs"][0]["end"]["code"] == 7
        for command_id in ("c", "gone"):
            assert talk.start(command_id, "true")["code"] == "started_before"
    after.kill()
    third = RunnerProcess(data_dir)
    with third.talk() as talk:
        assert talk.welcome["runner_id"] != name  # nobody knows what the killed one did
    third.kill()


def test_a_second_runner_in_the_same_folder_ends_and_disturbs_nothing(
    runner: RunnerProcess, talk: Talk, data_dir: Path
) -> None:
    second = RunnerProcess(data_dir)
    assert (second.said, second.ended()) == (b"", 4)
    assert talk.run("c", "exit 7")["code"] == 7
    with runner.visit() as visitor:
        assert visitor.request("status")["pid"] == runner.pid


def test_an_idle_runner_is_small(runner: RunnerProcess, talk: Talk) -> None:
    talk.run("c", "true")
    print(f"an idle runner takes {runner.resident_kib()} KiB")
    assert runner.resident_kib() < 16 * 1024


def test_a_deep_folder_is_no_hindrance(tmp_path: Path) -> None:
    data_dir = tmp_path / ("d" * 100) / ("e" * 100)
    runner = RunnerProcess(data_dir)
    with runner.talk() as talk:
        assert talk.run("c", "exit 7")["code"] == 7
    runner.kill()


# --- its death ----------------------------------------------------------------------------------


def test_who_comes_after_one_that_was_killed_ends_what_is_left_and_says_lost(
    runner: RunnerProcess, data_dir: Path
) -> None:
    with runner.talk() as talk:
        talk.run("ended", "exit 7")
        pids = tree(talk, data_dir, f"trap '' TERM; {TREE} echo $$; wait; sleep 1000", 5)
    runner.kill()
    assert all(is_alive(pid) for pid in pids)
    after = RunnerProcess(data_dir)
    with after.talk() as talk:
        jobs = {job["id"]: job["end"] for job in talk.welcome["jobs"]}
        end = jobs["c"] or talk.end_of("c")
    assert not any(is_alive(pid) for pid in pids)
    assert (end["ended_as"], end["failure"]["code"]) == ("lost", "runner_died")
    assert end["kept"] == [len(stored(data_dir, "c")), 0]
    assert jobs["ended"]["code"] == 7
    after.kill()


def test_what_a_killed_runner_had_recorded_is_counted_although_its_files_are_gone(
    runner: RunnerProcess, data_dir: Path
) -> None:
    with runner.talk() as talk:
        talk.start("c", f"head -c {2 * MIB} /dev/zero; sleep 1000")
        wait_until(lambda: len(stored(data_dir, "c")) == 2 * MIB)
        talk.request("release", id="c", stored=[2 * MIB, 0], unneeded=[2 * MIB, 1 << 62])
    assert stored(data_dir, "c") == b""
    runner.kill()
    after = RunnerProcess(data_dir)
    with after.talk() as talk:
        end = talk.welcome["jobs"][0]["end"] or talk.end_of("c")
    assert end["kept"] == [2 * MIB, 0]
    after.kill()


def test_a_number_that_was_given_to_another_process_is_not_the_commands(
    runner: RunnerProcess, data_dir: Path
) -> None:
    with runner.talk() as talk:
        tree(talk, data_dir, "echo $$; exec sleep 1000", 1)
    runner.kill()
    end_everything(data_dir)
    bystander = subprocess.Popen(["sleep", "1000"], start_new_session=True)
    with facts_file(data_dir).open("ab") as facts:
        facts.write(frame(to_json({"pid": bystander.pid})))
    after = RunnerProcess(data_dir)
    with after.talk() as talk:
        assert (talk.welcome["jobs"][0]["end"] or talk.end_of("c"))["ended_as"] == "lost"
    assert bystander.poll() is None
    bystander.kill()
    bystander.wait()
    after.kill()


def test_a_copied_folder_kills_nothing_of_the_original(
    runner: RunnerProcess, data_dir: Path, tmp_path: Path
) -> None:
    with runner.talk() as talk:
        pids = tree(talk, data_dir, TREE + "wait", 4)
        copy = tmp_path / "copy"
        subprocess.run(["cp", "-r", str(data_dir), str(copy)], check=True)
        other = RunnerProcess(copy)
        with other.talk() as second:
            assert second.welcome["jobs"][0]["end"]["ended_as"] == "lost"
            assert second.welcome["runner_id"] != talk.welcome["runner_id"]
        assert all(is_alive(pid) for pid in pids)
        other.kill()
        talk.stop("c", force=1)
        talk.end_of("c")


def test_facts_that_cannot_be_read_are_no_reason_to_remove_what_is_there(
    runner: RunnerProcess, data_dir: Path
) -> None:
    with runner.talk() as talk:
        talk.run("c", "echo hi")
    runner.kill()
    facts = facts_file(data_dir)
    facts.unlink()
    facts.mkdir()  # reading fails
    after = RunnerProcess(data_dir)
    with after.talk() as talk:
        assert talk.run("d", "exit 3")["code"] == 3
    assert stored(data_dir, "c") == b"hi\n"
    after.kill()


@pytest.mark.parametrize("position", range(0, 600, 17))
def test_a_flipped_bit_in_the_facts_never_makes_a_command_unknown(
    runner: RunnerProcess, data_dir: Path, position: int
) -> None:
    with runner.talk() as talk:
        talk.run("c", "exit 7")
    runner.kill()
    facts = facts_file(data_dir)
    raw = bytearray(facts.read_bytes())
    raw[position % len(raw)] ^= 1 << position % 8
    facts.write_bytes(raw)
    after = RunnerProcess(data_dir)
    with after.talk() as talk:
        assert talk.start("c", "true")["code"] == "started_before"
        end = talk.welcome["jobs"][0]["end"] or talk.end_of("c")
        assert (end["ended_as"], end.get("code")) in ((None, 7), ("lost", None))
    after.kill()


def test_files_that_were_begun_and_not_written_are_cleared_away(data_dir: Path) -> None:
    (data_dir / "spool").mkdir(parents=True)
    facts_file(data_dir).touch()
    (data_dir / "spool" / "a file").touch()
    runner = RunnerProcess(data_dir)
    with runner.talk() as talk:
        assert talk.welcome["jobs"] == []
    assert not (data_dir / "spool" / "c.facts").exists()
    runner.kill()


# --- its socket ---------------------------------------------------------------------------------


def knock_as_nobody(descriptor: int) -> str:
    """What another account gets that knows the way to the runner's folder."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as stranger:
        stranger.settimeout(20)
        try:
            stranger.connect(f"/proc/self/fd/{descriptor}/runner.sock")
            stranger.sendall(LENGTH.pack(26) + b'{"do": "status", "n": "1"}')
            return f"{len(stranger.recv(4096))} bytes"
        except PermissionError:
            return "no entry"
        except ConnectionError:
            return "0 bytes"


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become somebody else")
@pytest.mark.parametrize(("mode", "said"), [(0o700, "no entry"), (0o755, "0 bytes")])
def test_another_account_gets_no_answer(
    runner: RunnerProcess, data_dir: Path, tmp_path: Path, mode: int, said: str
) -> None:
    home = data_dir / "runner"
    home.chmod(mode)
    (home / "runner.sock").chmod(0o777)
    descriptor = os.open(home, os.O_RDONLY | os.O_DIRECTORY)
    answer = os.open(tmp_path / "answer", os.O_RDWR | os.O_CREAT)
    if (child := os.fork()) == 0:
        os.setgroups([])
        os.setgid(65534)
        os.setuid(65534)
        os.write(answer, knock_as_nobody(descriptor).encode())
        os._exit(0)
    os.waitpid(child, 0)
    assert (tmp_path / "answer").read_text() == said
    os.close(descriptor)
    os.close(answer)


GARBAGE = [
    b"\xff\xff\xff\xff",
    b"GET / HTTP/1.1\r\n\r\n" * 10,
    LENGTH.pack(3) + b"abc",
    LENGTH.pack(2) + b"[]",
    LENGTH.pack(2) + b"{}",
    LENGTH.pack(0),
    LENGTH.pack(4) + b"\xff\xfe\0\1",
    LENGTH.pack(200_000) + b"[" * 200_000,
    LENGTH.pack(9) + b'{"do":[]}',
    LENGTH.pack(10) + b'{"do": {}}',
]


@pytest.mark.parametrize("garbage", GARBAGE, ids=range(len(GARBAGE)))
def test_garbage_ends_the_connection_and_nothing_else(
    runner: RunnerProcess, talk: Talk, data_dir: Path, garbage: bytes
) -> None:
    with connected(data_dir) as stranger:
        stranger.sendall(garbage)
        with suppress(ConnectionResetError):
            assert stranger.recv(4096) == b""
    assert talk.run("c", "exit 7")["code"] == 7
    assert "Traceback" not in runner.log


@pytest.mark.parametrize(
    ("do", "facts"),
    [
        ("start", {}),
        ("hello", {}),
        ("hello", {"v": 1, "spool_max_bytes": float("inf")}),
        ("stop", {"id": "c"}),
        ("stop", {"id": "c", "as": "cancelled", "force": 9}),
        ("stop", {"id": []}),
        ("release", {"id": "c", "stored": [], "unneeded": []}),
        ("release", {"id": "c", "stored": [1], "unneeded": [1, 2]}),
        ("release", {"id": "c", "stored": [0, 0], "unneeded": [float("inf"), 0]}),
    ],
)
def test_a_request_that_makes_no_sense_ends_its_connection_and_nothing_else(
    runner: RunnerProcess, data_dir: Path, do: str, facts: dict[str, object]
) -> None:
    with runner.talk() as talk:
        talk.start("c", "sleep 1000")
        with pytest.raises((EOFError, ConnectionResetError)):
            talk.request(do, **facts)
    with runner.talk() as talk:
        talk.stop("c", force=1)
        assert talk.end_of("c")["ended_as"] == "cancelled"
    assert "Traceback" not in runner.log


def test_a_request_of_a_newer_agent_is_answered_as_unknown(talk: Talk) -> None:
    assert talk.request("dance", with_whom="me")["code"] == "unknown"


def test_a_newer_agent_takes_the_place_of_an_older_one(runner: RunnerProcess, talk: Talk) -> None:
    with runner.talk() as newer:
        with pytest.raises((EOFError, ConnectionResetError, BrokenPipeError)):
            talk.request("status")
        assert newer.run("c", "exit 7")["code"] == 7


def test_there_are_not_more_connections_than_allowed(
    runner: RunnerProcess, talk: Talk, data_dir: Path
) -> None:
    crowd = []
    for _ in range(CONNECTIONS_MAX):
        crowd.append(connected(data_dir))
        talk.request("status")  # by its answer, the newcomer was let in, or not
    assert crowd[-1].recv(1) == b""
    assert talk.run("c", "exit 7")["code"] == 7
    for connection in crowd:
        connection.close()
    with runner.visit() as visitor:
        assert visitor.request("status")["jobs"]


def test_an_agent_that_does_not_read_costs_little_and_delays_nothing(
    runner: RunnerProcess, talk: Talk, data_dir: Path
) -> None:
    before = runner.resident_kib()
    for number in range(20):
        talk.start(f"c{number}", "for i in $(seq 300); do echo $i; sleep 0.001; done")
    talk.connection.setblocking(False)
    with pytest.raises(BlockingIOError):
        while True:
            talk.say("status")
    wait_until(lambda: all(written_down(data_dir, f"c{number}") for number in range(20)))
    print(f"a stopped agent costs {runner.resident_kib() - before} KiB")
    assert runner.resident_kib() < before + 8 * 1024
    assert stored(data_dir, "c7").count(b"\n") == 300


def test_what_a_stopped_agent_missed_it_hears_once_it_reads(
    runner: RunnerProcess, talk: Talk, data_dir: Path
) -> None:
    for number in range(5):
        talk.start(f"c{number}", "for i in $(seq 300); do echo $i; done; sleep 0.2")
    wait_until(lambda: all(written_down(data_dir, f"c{number}") for number in range(5)))
    ends = [talk.end_of(f"c{number}") for number in range(5)]
    assert [end["code"] for end in ends] == [0] * 5


def test_a_host_that_bounds_the_limit_keeps_its_bound(data_dir: Path) -> None:
    limit = f'ulimit -HR 5000000; exec {sys.executable} -I -S "$@"'
    runner = RunnerProcess(data_dir, "/bin/sh", "-c", limit.replace('"$@"', f"{MAIN} {data_dir}"))
    with runner.talk() as talk:
        pids = tree(talk, data_dir, "setsid sleep 1000 & echo $!; sleep 1000", 1)
        talk.stop("c", force=1)
        assert talk.end_of("c")["ended_as"] == "cancelled"
    assert not any(is_alive(pid) for pid in pids)
    assert resource.getrlimit(resource.RLIMIT_RTTIME)[1] == resource.RLIM_INFINITY
    runner.kill()


def test_a_digest_of_what_is_stored_is_that_of_what_was_written(talk: Talk, data_dir: Path) -> None:
    talk.run("c", "seq 300000 | tee /dev/stderr | sha256sum")
    said = stored(data_dir, "c").split()[0].decode()
    assert hashlib.sha256(stored(data_dir, "c", "stderr")).hexdigest() == said


#: A process that is gone before anybody has looked at it, and has left another one.
CHAIN = """
import os, signal, sys
signal.signal(signal.SIGTERM, signal.SIG_IGN)
os.setsid() if os.getpid() != os.getsid(0) else None
with open(sys.argv[1], "a") as steps:
    while True:
        steps.write("x")
        steps.flush()
        if os.fork():
            os._exit(0)
"""


@pytest.mark.parametrize("force", [0, 1])
def test_a_chain_of_processes_that_forks_and_ends_is_ended(
    talk: Talk, data_dir: Path, tmp_path: Path, force: int
) -> None:
    program, steps = tmp_path / "chain.py", tmp_path / "steps"
    program.write_text(CHAIN)
    talk.start("c", f"exec {sys.executable} {program} {steps} & sleep 1000")
    wait_until(lambda: steps.exists() and steps.stat().st_size > 10)
    talk.stop("c", force=force)
    assert talk.end_of("c")["ended_as"] == "cancelled"
    size = steps.stat().st_size
    time.sleep(0.3)  # the time in which hundreds would have come
    assert steps.stat().st_size == size


def test_many_commands_run_beside_each_other_and_start_with_the_usual_limit(
    data_dir: Path,
) -> None:
    runner = RunnerProcess(data_dir, "sh", "-c", 'ulimit -Sn 1024; exec "$@"', "sh")
    with runner.talk() as talk:
        for number in range(250):
            answer = talk.start(f"c{number}", "ulimit -n; echo no >&2; sleep 1000")
            assert "pid" in answer, answer
        wait_until(lambda: stored(data_dir, "c249") == b"1024\n")
        for number in range(250):
            talk.stop(f"c{number}", force=1)
        for number in range(250):
            talk.end_of(f"c{number}")
    assert "Traceback" not in runner.log
    runner.kill()
