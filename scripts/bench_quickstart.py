"""Time the quickstart as a newcomer meets it: the whole run in a fresh folder, then the same command again.

    python scripts/bench_quickstart.py

prints the table of docs/benchmarks.md: seconds of both, peak memory, calls made by each.
"""

from __future__ import annotations

import argparse
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from page import made_by

from cope_train.models.store import Store

RECIPE = "recipes/word_problems/tiny.yaml"


def timed(out: Path) -> tuple[float, int]:
    """Seconds of one run of the recipe in `out`, and the calls in its ledger after it."""
    start = time.perf_counter()
    subprocess.run([sys.executable, "-m", "cope_train", "run", RECIPE, "--out", str(out), "--quiet"], check=True)
    seconds = time.perf_counter() - start
    store = Store(out / "store.sqlite")
    calls = store.spend().calls
    store.close()
    return seconds, calls


def main() -> None:
    """Run twice and print."""
    argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter).parse_args()
    with tempfile.TemporaryDirectory() as folder:
        first, calls = timed(Path(folder) / "run")
        second, after = timed(Path(folder) / "run")
    memory = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 2**20  # kilobytes on Linux
    print(made_by("bench_quickstart.py"))
    print("| first run, s | peak memory, GB | the same command again, s | calls made by each |")
    print("|---|---|---|---|")
    print(f"| {first:.0f} | {memory:.1f} | {second:.0f} | {calls}, {after - calls} |")


if __name__ == "__main__":
    main()
