"""Entry point of `ogent`; imports next to nothing, so that `--version` is instant."""

import sys
from collections.abc import Sequence


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line and return its exit code; see docs/cli.md for the codes."""
    words = list(sys.argv[1:] if argv is None else argv)
    if words == ["--version"]:
        from ogent.protocol.version import VERSION

        print(f"ogent {VERSION}")
        return 0
    from ogent.cli.app import run_app

    return run_app(words)
