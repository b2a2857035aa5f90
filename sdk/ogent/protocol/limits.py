"""Bounds that both ends of a wire know. Sizes are bytes, durations seconds."""

from typing import Final

KIB: Final = 1024
MIB: Final = 1024 * KIB

#: A command line, in UTF-8.
COMMAND_MAX_BYTES: Final = 64 * KIB
#: Names in `env`, and all its names and values together.
ENV_MAX_NAMES: Final = 128
ENV_MAX_BYTES: Final = 64 * KIB
#: `stdin` of a command, in UTF-8.
STDIN_MAX_BYTES: Final = 256 * KIB
#: One chunk of output; one frame on the agents' door.
CHUNK_MAX_BYTES: Final = 256 * KIB
FRAME_MAX_BYTES: Final = 1 * MIB
#: The end of each stream that an execute response carries.
RESULT_TAIL_BYTES: Final = 1 * MIB
#: A line of `GET /commands/{command_id}/output`; a longer one is cut there and marked.
LINE_MAX_BYTES: Final = 64 * KIB
OUTPUT_MAX_LINES: Final = 10_000
FILTER_MAX_CHARS: Final = 512
#: `wait` of an execute request.
WAIT_MAX_S: Final = 300.0
WAIT_DEFAULT_S: Final = 30.0
#: `expires_in` of an execute request: bounds the start.
EXPIRES_MAX_S: Final = 29 * 24 * 3600.0
EXPIRES_DEFAULT_S: Final = 60.0
EXPIRES_QUEUED_DEFAULT_S: Final = 24 * 3600.0
IDEMPOTENCY_KEY_MAX_CHARS: Final = 128
#: A page of a list.
PAGE_MAX_ITEMS: Final = 200
PAGE_DEFAULT_ITEMS: Final = 50
#: A digest covers the SHA-256 digests of a stream's consecutive blocks of this size.
DIGEST_BLOCK_BYTES: Final = 1 * MIB
#: Labels of an agent.
LABELS_MAX: Final = 64
LABEL_MAX_CHARS: Final = 63
SELECTOR_MAX_CHARS: Final = 1024
#: What `agent_id` looks like.
AGENT_ID_PATTERN: Final = r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$"
