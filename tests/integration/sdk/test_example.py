"""The example in the documents is a program that works."""

import asyncio
import sys
from pathlib import Path

from tests.fakes.scripted_controller import GOOD_TOKEN, Script
from tests.integration.sdk.ogent_process import ended

EXAMPLE = Path(__file__).parents[3] / "docs" / "examples" / "watch_a_command.py"


async def test_the_example_prints_output_and_exits_with_the_code(url, controller, tmp_path):
    script = Script([("stdout", b"out\n"), ("stderr", b"err\n")], state="failed", exit_code=6)
    controller.scripts["x"] = script
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        EXAMPLE,
        "web-1",
        "x",
        env={"OGENT_URL": url, "OGENT_TOKEN": GOOD_TOKEN, "HOME": str(tmp_path)},
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    done = await ended(process)
    assert (done.code, done.out) == (6, b"out\n")
    assert done.err == "[dispatched]\n[running]\nerr\n[failed]\n"
