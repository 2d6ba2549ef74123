"""Pretrain the bundled pair of tiny models from nothing, with fixed steps and seeds.

    python scripts/make_lab_pair.py                   # both models, side by side, one thread each
    python scripts/make_lab_pair.py --scale 0.02      # a fiftieth of the steps, to see that it runs
    python scripts/make_lab_pair.py --model large --into /tmp/pair

A finished model is swapped into its place as a whole, so the folder never holds half a model.
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import shutil
import time
from pathlib import Path

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # two trainings share the cores; spinning would starve the other

import torch

from cope_train import lab
from cope_train.lab import pretrain

REPORT_EVERY = 100


def make(name: str, into: Path, scale: float, seed: int, threads: int) -> None:
    """Train one model and put it in place."""
    torch.set_num_threads(threads)
    began = time.monotonic()
    recent: list[float] = []

    def show(label: str, step: int, steps: int, loss: float) -> None:
        recent.append(loss)
        if step % REPORT_EVERY == 0 or step == steps:
            mean = sum(recent) / len(recent)
            recent.clear()
            print(f"{label}: step {step}/{steps}, loss {mean:.3f}, {time.monotonic() - began:.0f} s", flush=True)

    model = pretrain.pretrain(name, scale, seed, show)
    fresh, place = into / f".{name}.new", into / name
    shutil.rmtree(fresh, ignore_errors=True)
    pretrain.save(model, fresh)
    shutil.rmtree(place, ignore_errors=True)
    fresh.rename(place)
    print(f"{name}: written to {place}", flush=True)


def main() -> None:
    """Parse the command line and train."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", choices=lab.NAMES, help="only this one (both otherwise)")
    parser.add_argument("--into", type=Path, default=lab.WEIGHTS, help="where the model folders go")
    parser.add_argument("--scale", type=float, default=1.0, help="share of the steps")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=int, default=1, help="threads for each model")
    given = parser.parse_args()
    given.into.mkdir(parents=True, exist_ok=True)
    names = [given.model] if given.model else list(lab.NAMES)
    context = multiprocessing.get_context("spawn")
    settings = (given.into, given.scale, given.seed, given.threads)
    workers = [context.Process(target=make, args=(name, *settings)) for name in names]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    if any(worker.exitcode for worker in workers):
        raise SystemExit("a training failed; its traceback is above")


if __name__ == "__main__":
    main()
