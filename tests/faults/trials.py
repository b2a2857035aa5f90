"""How often a fault is tried, and where its moment comes from."""

import asyncio
import os
import secrets
from random import Random

import pytest

#: Printed at the start of a run; the same seed and test give the same moments and commands.
SEED = int(os.environ.get("SEED") or secrets.randbelow(10**6))


def trials(default: int) -> pytest.MarkDecorator:
    """Run the test `default` times, or `TRIALS` times where the environment says so."""
    return pytest.mark.parametrize("trial", range(int(os.environ.get("TRIALS") or default)))


def random_for(name: str) -> Random:
    """The same numbers for the same test, trial and seed."""
    return Random(f"{SEED} {name}")


async def some_moment(random: Random, longest_s: float) -> None:
    """Let a random part of `longest_s` pass: when a fault comes is what is tried."""
    await asyncio.sleep(random.uniform(0, longest_s))
