"""The engine: the only code that touches llama.cpp."""

import os

# OpenMP's threads spin at barriers for a long time by default: beside anything else that runs, a spinning thread keeps
# the one that it waits for from the processor. A short spin is nearly as fast alone and gives way soon: decision 0015.
# libgomp reads this once, when llama.cpp is loaded; whoever set it knows better.
os.environ.setdefault("GOMP_SPINCOUNT", "300")
