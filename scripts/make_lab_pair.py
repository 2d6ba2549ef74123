"""Make the bundled lab pair: pretrain both models from nothing, with fixed steps and seeds.

    python scripts/make_lab_pair.py

Both are trained at once, one thread each, so that the weights do not depend on the number of cores; the same machine
and library versions give the same bytes. Kill it whenever you like: the same command goes on from the last checkpoint.
`--scale 0.02` makes a short try of the whole way.
"""

from __future__ import annotations

import argparse
import hashlib
import shutil
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path

from cope_train import lab


def make(name: str, scale: float, seed: int, work: Path) -> Path:
    """Pretrain one model and save its folder below `work`; a finished one is left alone."""
    import torch

    from cope_train.lab.pretrain import pretrain, save

    def tell(label: str, step: int, steps: int, loss: float) -> None:
        if step % 100 == 0 or step == steps:
            print(f"{label}: step {step} of {steps}, loss {loss:.3f}", flush=True)

    done = work / name
    if not (done / "config.json").exists():
        torch.set_num_threads(1)
        save(pretrain(name, scale, seed, tell, work / f"{name}.checkpoint"), work / f"{name}.new")
        (work / f"{name}.new").rename(done)
    return done


def main() -> None:
    """Parse the command line, make the models, put them where they belong and print their checksums."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=lab.WEIGHTS, help="where the finished models go [the package]")
    parser.add_argument("--scale", type=float, default=1.0, help="share of the planned steps [1]")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--work", type=Path, default=Path("runs/lab_pair"), help="checkpoints [runs/lab_pair]")
    given = parser.parse_args()
    work = given.work / f"scale{given.scale:g}-seed{given.seed}"
    work.mkdir(parents=True, exist_ok=True)
    with ProcessPoolExecutor(len(lab.NAMES), mp_context=get_context("spawn")) as pool:
        jobs = [pool.submit(make, name, given.scale, given.seed, work) for name in lab.NAMES]
        made = [job.result() for job in jobs]
    for folder in made:
        target = given.out / folder.name
        shutil.rmtree(target, ignore_errors=True)
        shutil.copytree(folder, target)
        weights = target / "model.safetensors"
        print(f"{weights}: sha256 {hashlib.sha256(weights.read_bytes()).hexdigest()}")


if __name__ == "__main__":
    main()
