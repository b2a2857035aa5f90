"""Digests are the same however the bytes came, and whether or not they were made again."""

import hashlib
from copy import deepcopy

import pytest

from app.domain.models.digests import DIGEST_BLOCK_BYTES, DigestBlock, OutputDigests, StreamDigest
from app.domain.models.output import Stream
from tests.builders import chunks_of

SIZES = (0, 1, DIGEST_BLOCK_BYTES - 1, DIGEST_BLOCK_BYTES, DIGEST_BLOCK_BYTES * 2 + 1)


def stream_of(size: int) -> bytes:
    return bytes(range(251)) * (size // 251 + 1)


def expected(data: bytes) -> str:
    """As the protocol describes it."""
    blocks = [data[at : at + 1024 * 1024] for at in range(0, len(data), 1024 * 1024)]
    whole = b"".join(hashlib.sha256(block).digest() for block in blocks)
    return hashlib.sha256(whole).hexdigest()


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("piece", [100_000, 256 * 1024, 3 * 1024 * 1024])
def test_a_digest_is_the_protocols_however_the_bytes_came(size: int, piece: int) -> None:
    data, digest = stream_of(size)[:size], StreamDigest()
    for start in range(0, size, piece):
        digest, _ = digest.after(data[start : start + piece])
    assert digest.hexdigest() == expected(data)
    assert digest.covered == size


@pytest.mark.parametrize("size", SIZES)
def test_a_digest_goes_on_from_its_full_blocks(size: int) -> None:
    data = stream_of(size)[:size]
    _, full = StreamDigest().after(data)
    again = StreamDigest(full)
    assert again.covered == size - size % DIGEST_BLOCK_BYTES
    rest, _ = again.after(data[again.covered :])
    assert rest.hexdigest() == expected(data)


def test_a_digest_never_changes() -> None:
    before, _ = StreamDigest().after(b"one")
    said = before.hexdigest()
    after, _ = before.after(b"two")
    assert (before.hexdigest(), before.covered) == (said, 3)
    assert deepcopy(before) is before
    assert after.hexdigest() != said


def test_blocks_are_numbered_within_their_stream() -> None:
    block = b"x" * DIGEST_BLOCK_BYTES
    digests, found = OutputDigests(), []
    for chunk in chunks_of(block, (Stream.STDERR, block * 2), b"y", block):
        digests, full = digests.after(chunk)
        found += full
    assert [(full.stream, full.number) for full in found] == [
        (Stream.STDOUT, 0),
        (Stream.STDERR, 0),
        (Stream.STDERR, 1),
        (Stream.STDOUT, 1),
    ]
    assert found[0] == DigestBlock(Stream.STDOUT, 0, hashlib.sha256(block).digest())
    assert digests.of(Stream.STDOUT).covered == 2 * DIGEST_BLOCK_BYTES + 1
    assert digests.of(Stream.STDERR).hexdigest() == expected(block * 2)
