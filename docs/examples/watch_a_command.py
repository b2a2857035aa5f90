"""Run a command on an agent and watch it live, from Python.

    python watch_a_command.py web-1 'df -h; sleep 2; uptime'

Needs OGENT_URL and OGENT_TOKEN, or an earlier `ogent login`. Exits with the command's exit code.
"""

import asyncio
import sys
from contextlib import aclosing

from ogent.client import Chunk, Client, Finished, OgentError, StateChange


async def watch(agent_id: str, line: str) -> int:
    """Start `line`, print what it writes as it is written, and return its exit code."""
    async with Client.from_environment() as client:
        started = await client.execute(agent_id, line, wait=0)
        async with aclosing(client.follow(started.command_id)) as events:
            async for event in events:
                match event:
                    case Chunk():
                        out = sys.stdout if event.stream == "stdout" else sys.stderr
                        out.buffer.write(event.data)
                        out.flush()
                    case StateChange():
                        print(f"[{event.state}]", file=sys.stderr)
                    case Finished():
                        code = event.result.exit_code
                        return 1 if code is None else code
    return 1


def main() -> int:
    """Read the two arguments; an error is one line."""
    if len(sys.argv) != 3:
        print("usage: watch_a_command.py AGENT LINE", file=sys.stderr)
        return 2
    try:
        return asyncio.run(watch(sys.argv[1], sys.argv[2]))
    except OgentError as exc:
        print(exc, file=sys.stderr)
        return 1


if __name__ == "__main__":
    sys.exit(main())
