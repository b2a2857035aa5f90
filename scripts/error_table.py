"""Write the error table of docs/http-api.md as ogent.protocol.problems has it."""

import sys

from generated_part import ROOT, run, table
from ogent.protocol.problems import CODES

DOCUMENT = ROOT / "docs" / "http-api.md"


def main() -> int:
    """Bring the document up to date, or with --check say whether it is."""
    ordered = sorted(CODES.items(), key=lambda item: item[1].status)
    rows = [[str(kind.status), f"`{code}`", kind.title] for code, kind in ordered]
    return run(__doc__ or "", DOCUMENT, {"errors": table(["status", "code", "title"], rows)})


if __name__ == "__main__":
    sys.exit(main())
