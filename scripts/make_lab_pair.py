"""Make the bundled lab models: pretrain all from nothing with fixed steps and seeds, then measure them.

    python scripts/make_lab_pair.py

Two are trained at a time, one thread each, so that the weights do not depend on the number of cores; the same machine
and library versions give the same bytes. Kill it whenever you like: the same command goes on from the last checkpoint.
`--scale 0.02 --problems 0` makes a short try of the whole way and measures nothing.
"""

from __future__ import annotations

import argparse
import hashlib
import shutil
import subprocess
import sys
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from string import Template

from cope_train import lab

CARD = Path(__file__).with_name("lab_card.md")
AT_ONCE = 2
ORDER = ("large", "small", "middle")  # longest first, so that both processes end at about the same time


def make(name: str, scale: float, seed: int, work: Path, device: str) -> Path:
    """Pretrain one model and save its folder below `work`; a finished one is left alone."""
    import torch

    from cope_train.lab.pretrain import pretrain, save

    def tell(label: str, step: int, steps: int, loss: float) -> None:
        if step % 100 == 0 or step == steps:
            print(f"{label}: step {step} of {steps}, loss {loss:.3f}", flush=True)

    done = work / name
    if not (done / "config.json").exists():
        torch.set_num_threads(1)
        save(pretrain(name, scale, seed, tell, work / f"{name}.checkpoint", device), work / f"{name}.new")
        (work / f"{name}.new").rename(done)
    return done


def card(folders: Sequence[Path], options: str) -> str:
    """The models' card: what they are and their weights' checksums, with room for the figures."""
    import torch
    import transformers

    models = "\n".join(_table(folders))
    versions = {"torch": torch.__version__.split("+")[0], "transformers": transformers.__version__}
    return Template(CARD.read_text(encoding="utf-8")).substitute(models=models, options=options, **versions)


def _table(folders: Sequence[Path]) -> Iterator[str]:
    from transformers import AutoModelForCausalLM

    from cope_train.lab.pretrain import PLANS

    yield "| model | layers x width | parameters | pretraining | weights, sha256 |"
    yield "|---|---|---|---|---|"
    for folder in folders:
        plan = PLANS[folder.name]
        size = AutoModelForCausalLM.from_pretrained(folder).num_parameters() / 1e6
        digest = hashlib.sha256((folder / "model.safetensors").read_bytes()).hexdigest()
        shape = f"{plan.layers} x {plan.width} | {size:.2f} M | {plan.steps:,} steps of {plan.rows} chats"
        yield f"| {folder.name} | {shape} | `{digest}` |"


def main() -> None:
    """Parse the command line, make the models, put them and their card where they belong, measure them."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=lab.WEIGHTS, help="where the finished models go [the package]")
    parser.add_argument("--scale", type=float, default=1.0, help="share of the planned steps [1]")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--device", default="cpu", help="cpu or cuda [cpu]")
    parser.add_argument("--work", type=Path, default=Path("runs/lab_pair"), help="checkpoints [runs/lab_pair]")
    parser.add_argument("--problems", type=int, default=4000, help="problems to measure on, 0 for no measuring [4000]")
    given = parser.parse_args()
    work = given.work / f"scale{given.scale:g}-seed{given.seed}-{given.device}"
    work.mkdir(parents=True, exist_ok=True)
    with ProcessPoolExecutor(AT_ONCE, mp_context=get_context("spawn")) as pool:
        jobs = {name: pool.submit(make, name, given.scale, given.seed, work, given.device) for name in ORDER}
        made = {name: job.result() for name, job in jobs.items()}
    for name, folder in made.items():
        shutil.rmtree(given.out / name, ignore_errors=True)
        shutil.copytree(folder, given.out / name)
    options = "".join(
        f" --{name} {getattr(given, name)}" for name in ("scale", "seed", "device") if _changed(parser, given, name)
    )
    text = card([given.out / name for name in lab.NAMES], options)
    (given.out / "README.md").write_text(text, encoding="utf-8")
    print(text)
    if given.problems:
        pages = ["docs/lab.md"] if given.out == lab.WEIGHTS else []
        measured = ["--pair", given.out, "--out", work / "measured", "--pages", given.out / "README.md", *pages]
        script = Path(__file__).with_name("measure_lab_pair.py")
        subprocess.run([sys.executable, script, "--problems", str(given.problems), *measured], check=True)


def _changed(parser: argparse.ArgumentParser, given: argparse.Namespace, name: str) -> bool:
    return getattr(given, name) != parser.get_default(name)


if __name__ == "__main__":
    main()
