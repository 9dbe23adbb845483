"""One target under a coverage-guided fuzzer, for so long: `scripts/fuzz` calls it.

    python tests/fuzz/guided.py TARGET SECONDS CORPUS CASES

CORPUS is a folder that grows with every run. What breaks the target is put into CASES, where the tests find it; the
exit code is then not 0.
"""

from __future__ import annotations

import logging
import os
import sys
from pathlib import Path

import atheris

with atheris.instrument_imports(include=["naila", "yaml", "json", "jsonschema"]):
    from fuzz.targets import TARGETS, clean_up, folder


def main() -> None:
    """Fuzz until the time is over or something breaks."""
    name, seconds, corpus, cases = sys.argv[1], sys.argv[2], Path(sys.argv[3]), Path(sys.argv[4])
    target = TARGETS[name]
    corpus.mkdir(parents=True, exist_ok=True)
    cases.mkdir(parents=True, exist_ok=True)
    for number, seed in enumerate(target.seeds):
        (corpus / f"seed-{number}").write_bytes(seed)
    logging.disable(logging.CRITICAL)
    atheris.Setup(
        [
            sys.argv[0],
            str(corpus),
            f"-max_total_time={seconds}",
            f"-max_len={target.max_bytes}",
            # Instrumented code is several times slower.
            f"-timeout={round(10 * target.seconds)}",
            "-rss_limit_mb=3072",
            f"-artifact_prefix={cases}/",
            "-print_final_stats=1",
            "-verbosity=0",
        ],
        target.run,
    )
    atheris.Fuzz()


if __name__ == "__main__":
    folder()
    # The fuzzer ends its process without ceremony.
    if (child := os.fork()) == 0:
        main()
    _, status = os.waitpid(child, 0)
    clean_up()
    sys.exit(os.waitstatus_to_exitcode(status) != 0)
