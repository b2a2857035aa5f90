"""`python -m ogent.cli`."""

import sys

from ogent.cli.main import main

sys.exit(main())
