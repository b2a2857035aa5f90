"""Start the controller: `python run.py`, with the settings of this folder's `.env`."""

import os
from pathlib import Path

HERE = Path(__file__).resolve().parent

if __name__ == "__main__":
    os.chdir(HERE)  # DATA_DIR and other relative paths are this folder's

    from app.main import main

    main(env_file=HERE / ".env")
