"""Commands whose every effect is known: the same line, run locally, is the truth."""

import asyncio
import os
import shlex
import sys
from dataclasses import dataclass
from pathlib import Path
from random import Random

from ogent.client import State
from tests.faults.processes import sleep_of

LOCAL_DEADLINE_S = 60.0
_NOISE = (
    "import random,sys,time\n"
    "r=random.Random({seed})\n"
    "for _ in range({bursts}):\n"
    "    for s in (sys.stdout,sys.stderr):\n"
    "        s.buffer.write(r.randbytes(r.randrange({size})));s.flush()\n"
    "    time.sleep({pause})\n"
)


@dataclass(frozen=True)
class Plan:
    """A command that leaves `key` in a ledger when it starts.

    `head` is what it does in any case and what a local run does as well; `tail` is the part that
    only a fault or a stop ends, and then it ends as `ends_as`. `$PAUSE` in the line is 0 in a
    local run.
    """

    key: str
    head: str
    tail: str = ""
    ends_as: State | None = None
    timeout_s: float | None = None
    pause_s: float = 0.02

    @property
    def line(self) -> str:
        return f'echo "$KEY" >> "$LEDGER"; {self.head}; {self.tail}'.rstrip("; ")

    def environment(self, ledger: Path) -> dict[str, str]:
        return {"KEY": self.key, "LEDGER": str(ledger), "PAUSE": str(self.pause_s)}

    async def run_locally(self) -> "Truth":
        """What a shell here says of the same line."""
        environ = {"KEY": self.key, "LEDGER": "/dev/null", "PAUSE": "0", "LANG": "C.UTF-8"}
        process = await asyncio.create_subprocess_exec(
            *("sh", "-c", f"echo $KEY >> $LEDGER; {self.head}"),
            env={**environ, "PATH": os.environ["PATH"]},
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
        )
        async with asyncio.timeout(LOCAL_DEADLINE_S):
            out, err = await process.communicate()
        code = process.returncode
        assert code is not None
        if self.ends_as is not None:
            return Truth(self.ends_as, None, out, err)
        return Truth(State.FAILED if code else State.SUCCEEDED, code, out, err)


@dataclass(frozen=True)
class Truth:
    """What must be so in the end; `code` is None where a stop ends the command."""

    state: State
    code: int | None
    stdout: bytes
    stderr: bytes

    def of(self, stream: str) -> bytes:
        return self.stdout if stream == "stdout" else self.stderr


def quick(key: str) -> Plan:
    """A line to each stream."""
    return Plan(key, 'echo "out $KEY"; echo "err $KEY" >&2')


def counting(key: str, *, bursts: int, lines: int, code: int = 0, pause_s: float = 0.02) -> Plan:
    """`bursts` times `lines` lines on stdout and one on stderr."""
    loop = (
        f"for i in $(seq {bursts}); do seq $((i*{lines})) $((i*{lines}+{lines - 1}));"
        ' echo "burst $i of $KEY" >&2; sleep $PAUSE; done'
    )
    return Plan(key, f"{loop}; (exit {code})", pause_s=pause_s)


def noise(key: str, seed: int, *, bursts: int, size: int, code: int = 0) -> Plan:
    """Bytes of no encoding on both streams; `size` bounds one write of them."""
    program = _NOISE.format(
        seed=seed, bursts=bursts, size=size, pause='float(__import__("os").environ["PAUSE"])'
    )
    python = shlex.join([sys.executable, "-I", "-S", "-c", program])
    return Plan(key, f"{python}; (exit {code})")


def streaming(key: str, random: Random) -> Plan:
    """A command that writes for about a second or two, to be met in the middle."""
    code = random.choice([0, 0, 3, 77])
    if random.random() < 0.3:
        return noise(key, random.randrange(1 << 30), bursts=40, size=9000, code=code)
    return counting(key, bursts=40, lines=random.randrange(20, 600), code=code, pause_s=0.03)


def short(key: str, random: Random) -> Plan:
    """A command that is over at once, or nearly so."""
    code = random.choice([0, 0, 0, 5])
    return Plan(key, f'echo "out $KEY"; sleep {random.choice([0, 0, 0.05])}; (exit {code})')


def endless(key: str, tail: str, *, timeout_s: float | None = None) -> Plan:
    """A command that only a stop or its deadline ends."""
    state = State.CANCELLED if timeout_s is None else State.TIMED_OUT
    return Plan(key, 'echo "begun $KEY"', tail, ends_as=state, timeout_s=timeout_s)


def deaf_tree(key: str, *, timeout_s: float | None = None) -> Plan:
    """Five sleepers that ignore being asked: a child, one in the background, one in a session of
    its own, one whose environment is cleared, and an orphan of two forks with all of that."""
    sleep = sleep_of(key)
    orphan = f"env -i PATH=$PATH setsid sh -c '{sleep} & exit'"
    cleared = f"env -i PATH=$PATH {sleep}"
    tail = (
        f"trap '' TERM HUP INT; {sleep} & setsid {sleep} & {cleared} & ({orphan} &) ; {sleep}; true"
    )
    return endless(key, tail, timeout_s=timeout_s)


DEAF_SLEEPERS = 5
