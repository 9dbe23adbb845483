"""Runs main.py of the folder of now on Python: gives `time` what MicroPython has more, and stdin unbuffered."""

import os
import runpy
import sys
import time
from pathlib import Path

time.ticks_ms = lambda: int(time.monotonic() * 1000)
time.ticks_add = lambda at, more: at + more
time.ticks_diff = lambda later, earlier: later - earlier
time.sleep_ms = lambda duration: time.sleep(duration / 1000)
sys.stdin = os.fdopen(0, "rb", buffering=0)
read = sys.stdin.read


class Console:
    """Standard input that reads no further than it is asked, as `poll` expects."""

    def fileno(self):
        return 0

    def read(self, count):
        return read(count).decode()


sys.stdin = Console()
sys.path[:0] = [str(Path.cwd()), str(Path(__file__).parent)]
runpy.run_path("main.py", run_name="__main__")
