"""The engine: the only code that touches llama.cpp."""

import os

# OpenMP's threads spin at barriers by default. On a machine where anything else runs, a spinning thread keeps the one
# that it waits for from the processor (measured: 16 tokens/s instead of 90, two threads beside one busy process).
# libgomp reads this once, when llama.cpp is loaded; whoever set it knows better.
os.environ.setdefault("OMP_WAIT_POLICY", "passive")
