"""`python -m naila` is `naila`."""

from __future__ import annotations

import sys

from naila.cli import main

if __name__ == "__main__":
    sys.exit(main())
