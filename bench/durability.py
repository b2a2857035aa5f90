"""What journal and runner add to a command, beside starting it directly."""

import asyncio
import statistics
import tempfile
import time
from collections.abc import Awaitable
from datetime import UTC, datetime, timedelta
from pathlib import Path

from agent.domain.ids import AgentId, CommandId
from agent.domain.models.execution import StopFailure
from agent.domain.models.executor import ExecutionType, Place
from agent.domain.models.order import Order
from agent.infrastructure.executors.accounts import own_account
from agent.infrastructure.executors.local_executor import LocalExecutor
from agent.infrastructure.runner.client import RunnerClient
from agent.infrastructure.storage.file_journal import open_file_journal


async def added_cost(pairs: int) -> dict[str, float]:
    """Milliseconds of `echo hi`: started directly, by the runner, and for the journal before."""
    direct: list[float] = []
    by_runner: list[float] = []
    journal_ms: list[float] = []
    with tempfile.TemporaryDirectory(prefix="ogent-bench-") as folder:
        data_dir = Path(folder)
        runner = RunnerClient(data_dir, spool_max_bytes=1 << 28, grown=lambda _: None)
        keeping = asyncio.create_task(runner.keep())
        await runner.ready()
        executor = LocalExecutor(own_account(), runner)
        async with open_file_journal(data_dir / "journal") as journal:
            for index in range(pairs):
                order = _order(index)
                journal_ms.append(
                    await _timed(
                        journal.accept(order, keeper=executor.keeper, now=datetime.now(UTC))
                    )
                )
                by_runner.append(await _timed(_run(executor, runner, order)))
                direct.append(await _timed(_directly()))
        keeping.cancel()
        await asyncio.wait({keeping})
    return {
        "direct_ms": statistics.median(direct),
        "by_runner_ms": statistics.median(by_runner),
        "journal_ms": statistics.median(journal_ms),
        "added_ms": statistics.median(by_runner)
        - statistics.median(direct)
        + statistics.median(journal_ms),
    }


async def _timed(doing: Awaitable[object]) -> float:
    begun = time.perf_counter()
    await doing
    return (time.perf_counter() - begun) * 1000


async def _run(executor: LocalExecutor, runner: RunnerClient, order: Order) -> None:
    process = await executor.start(order, Place(ExecutionType.LOCAL), _stop_failed)
    await process.wait()
    runner.forget(order.id)


async def _directly() -> None:
    process = await asyncio.create_subprocess_exec(
        "/bin/sh",
        "-c",
        "echo hi",
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        start_new_session=True,
    )
    await process.communicate()


def _stop_failed(failure: StopFailure) -> None:
    raise AssertionError(failure)


def _order(index: int) -> Order:
    return Order(
        id=CommandId(f"bench-{index}"),
        agent_id=AgentId("bench"),
        command="echo hi",
        target="local",
        max_output_bytes=1 << 30,
        expires_at=datetime.now(UTC) + timedelta(hours=1),
    )
