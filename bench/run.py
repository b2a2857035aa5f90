"""`make bench`: every measure in one run, printed as a table and written as JSON."""

import argparse
import asyncio
import json
import os
import platform
import sys
from collections.abc import Callable
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import aiohttp

from bench import durability, measures
from bench.peer import warm_connection
from bench.stack import ROOT, running_stack


@dataclass(frozen=True, slots=True)
class Row:
    """One line of the table; `is_met` None where there is no goal."""

    what: str
    measured: str
    peer: str
    goal: str
    is_met: bool | None


async def _measure(*, quick: bool, demo: bool) -> tuple[list[Row], dict[str, Any]]:
    figures: dict[str, Any] = {}
    if demo:
        figures["demo"] = await asyncio.to_thread(measures.demo, ROOT)
    async with running_stack() as stack, warm_connection() as (ssh, peer):
        figures["peer"] = peer
        timeout = aiohttp.ClientTimeout(total=600)
        async with aiohttp.ClientSession(
            stack.url, headers=stack.headers, timeout=timeout
        ) as session:
            figures["idle"] = measures.idle_memory(stack)
            figures["echo"] = await measures.echo_latency(session, ssh, 50 if quick else 300)
            figures["throughput"] = await measures.throughput(
                session, ssh, 200 if quick else 600, 1 if quick else 5
            )
            figures["line"] = await measures.line_latency(stack)
            figures["bulk"] = await measures.bulk(session, stack)
            figures["bulk_followed"] = await measures.bulk_followed(stack)
            figures["bulk_peer"] = await measures.bulk_by_ssh(ssh)
            figures["command_line"] = await asyncio.to_thread(
                measures.command_line, stack, 3 if quick else 10
            )
            figures["accepted"] = await measures.accepted(session, 300 if quick else 2000)
            figures["gigabyte"] = await measures.gigabyte(session, stack)
            figures["fairness"] = await measures.fairness(session, stack)
            figures["catching_up"] = await measures.catching_up(session, stack)
            figures["durability"] = await durability.added_cost(30 if quick else 300)
            figures["after"] = measures.idle_memory(stack)
    return _rows(figures), figures


def _rows(f: dict[str, Any]) -> list[Row]:
    echo, many, bulk, followed = f["echo"], f["throughput"], f["bulk"], f["bulk_followed"]
    idle, line = f["idle"], f["command_line"]
    grown = max(bulk["controller_up_mib"], followed["controller_up_mib"])
    rows = [
        Row(
            "`echo hi` by REST, p50",
            f"{echo['p50_ms']:.1f} ms = {echo['ratio']:.2f} x",
            f"{echo['peer_p50_ms']:.1f} ms",
            "<= 1.6 x",
            echo["ratio"] <= 1.6,
        ),
        Row(
            "commands/s, 16 in flight",
            f"{many['per_s']:.0f} = {many['ratio']:.2f} x",
            f"{many['peer_per_s']:.0f}",
            ">= 0.7 x",
            many["ratio"] >= 0.7,
        ),
        Row(
            "line written to client's handler, p50",
            f"{f['line']['p50_ms']:.1f} ms",
            "",
            "<= 15 ms",
            f["line"]["p50_ms"] <= 15,
        ),
        Row(
            "50 MB stored, then read over HTTP",
            f"{bulk['stored_and_read_mb_s']:.0f} MB/s "
            f"(stored {bulk['stored_mb_s']:.0f}, read {bulk['read_mb_s']:.0f})",
            f"{f['bulk_peer']['mb_s']:.0f} MB/s, not stored",
            ">= 70 MB/s",
            bulk["stored_and_read_mb_s"] >= 70,
        ),
        Row(
            "50 MB followed over Socket.IO",
            f"{followed['followed_mb_s']:.0f} MB/s",
            "",
            ">= 20 MB/s",
            followed["followed_mb_s"] >= 20,
        ),
        Row("controller's growth meanwhile", f"{grown:.0f} MiB", "", "<= 24 MiB", grown <= 24),
        Row(
            "resident, idle: controller, agent, runner",
            f"{idle['controller_mib']:.0f}, {idle['agent_mib']:.0f}, {idle['runner_mib']:.0f} MiB",
            "",
            "<= 110, <= 60 MiB",
            idle["controller_mib"] <= 110 and idle["agent_mib"] <= 60,
        ),
        Row(
            "`ogent --version`",
            f"{line['version_ms']:.0f} ms",
            f"python -c pass: {line['python_ms']:.0f} ms",
            "<= 200 ms",
            line["version_ms"] <= 200,
        ),
        Row(
            "`ogent exec ... -- true`",
            f"{line['exec_true_ms']:.0f} ms",
            "",
            "<= 800 ms",
            line["exec_true_ms"] <= 800,
        ),
    ]
    rows += _durability_rows(f)
    if "demo" in f:
        first_line_s = f["demo"]["first_line_s"]
        rows.append(
            Row(
                "`make demo`, fresh clone, to its first line",
                f"{first_line_s:.0f} s",
                "",
                "<= 60 s",
                first_line_s <= 60,
            )
        )
    return rows


def _durability_rows(f: dict[str, Any]) -> list[Row]:
    accepted, gigabyte, added = f["accepted"], f["gigabyte"], f["durability"]
    seconds, fair = f["catching_up"]["seconds"], f["fairness"]
    return [
        Row(
            "accepted commands/s, durable; p99",
            f"{accepted['per_s']:.0f}; {accepted['p99_ms']:.0f} ms",
            "",
            ">= 300, <= 100 ms",
            accepted["per_s"] >= 300 and accepted["p99_ms"] <= 100,
        ),
        Row(
            "1 GB through one command, digest equal",
            f"{gigabyte['mb_s']:.0f} MB/s, {'equal' if gigabyte['is_equal'] else 'DIFFERENT'}",
            "",
            ">= 60 MB/s",
            gigabyte["mb_s"] >= 60 and gigabyte["is_equal"],
        ),
        Row(
            "its peaks: agent; controller's growth",
            f"{gigabyte['agent_peak_mib']:.0f}; {gigabyte['controller_up_mib']:.0f} MiB",
            "",
            "<= 120, <= 64 MiB",
            gigabyte["agent_peak_mib"] <= 120 and gigabyte["controller_up_mib"] <= 64,
        ),
        Row(
            "a line beside a command that prints without end",
            f"p50 {fair['p50_ms']:.0f}, max {fair['max_ms']:.0f} ms",
            "",
            "<= 200 ms",
            fair["max_ms"] <= 200,
        ),
        Row(
            "agent's return to last missing byte",
            f"{seconds:.1f} s",
            "",
            "<= 5 s",
            seconds <= 5,
        ),
        Row(
            "journal and runner, on `echo hi`",
            f"+{added['added_ms']:.1f} ms (journal {added['journal_ms']:.1f})",
            f"directly: {added['direct_ms']:.1f} ms",
            "<= 3 ms",
            added["added_ms"] <= 3,
        ),
    ]


def _print(rows: list[Row], peer: str) -> None:
    columns: list[tuple[str, Callable[[Row], str]]] = [
        ("what", lambda row: row.what),
        ("measured", lambda row: row.measured),
        (f"peer ({peer} + asyncssh)", lambda row: row.peer),
        ("goal", lambda row: row.goal),
        ("", lambda row: {True: "met", False: "MISSED", None: ""}[row.is_met]),
    ]
    widths = [max(len(title), *(len(cell(row)) for row in rows)) for title, cell in columns]
    for cells in (
        [title for title, _ in columns],
        ["-" * width for width in widths],
        *([cell(row) for _, cell in columns] for row in rows),
    ):
        line = "  ".join(cell.ljust(width) for cell, width in zip(cells, widths, strict=True))
        print(line.rstrip())


def main() -> None:
    """Measure, print, write."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="fewer runs: for a first look")
    parser.add_argument(
        "--demo", action="store_true", help="also time `make demo` in a fresh clone (half a minute)"
    )
    default = ROOT / "bench" / "results" / "latest.json"
    parser.add_argument("--out", type=Path, default=default, help="where the JSON goes")
    arguments = parser.parse_args()
    rows, figures = asyncio.run(_measure(quick=arguments.quick, demo=arguments.demo))
    _print(rows, figures["peer"])
    figures["machine"] = {
        "cores": os.cpu_count(),
        "python": platform.python_version(),
        "system": f"{platform.system()} {platform.machine()}",
        "at": datetime.now(UTC).isoformat(timespec="seconds"),
    }
    arguments.out.parent.mkdir(parents=True, exist_ok=True)
    arguments.out.write_text(
        json.dumps({"rows": [asdict(row) for row in rows], "figures": figures}, indent=2) + "\n"
    )
    print(f"\nwritten to {arguments.out}")


if __name__ == "__main__":
    main()
