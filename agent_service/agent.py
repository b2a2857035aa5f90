"""Starts the agent with the settings in the `.env` beside this file."""

import sys
from pathlib import Path

# This file has the name of the package that it starts, and its folder comes first in sys.path:
# a folder with __init__.py wins over a file of the same name, so that `agent` is the package.
from agent.__main__ import main

if __name__ == "__main__":
    sys.exit(main(Path(__file__).resolve().parent / ".env"))
