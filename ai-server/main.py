"""`python ai-server/main.py` is `naila run`; any other command may follow."""

from __future__ import annotations

import sys

from naila.cli import main

if __name__ == "__main__":
    sys.exit(main(sys.argv[1:] or ["run"]))
