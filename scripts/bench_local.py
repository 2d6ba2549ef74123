"""Local inference against its peers, on the traffic that the small model of a cascade gets.

    python scripts/bench_local.py

COPE runs once with every stage for every problem, which records what the small model is asked; then every way of
decoding answers the same requests, each time in a process of its own, in turns. Writes docs/benchmarks.md.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Collection, Iterator, Sequence
from itertools import product
from pathlib import Path
from typing import Any

from page import fill, made_by

PEERS = {
    "ours": "ours",
    "each": "(a) `generate`, one problem at a time (8 rows)",
    "padded": "(b) `generate`, padded batches of the best size",
    "continuous": "(c) transformers' continuous batching, its own noise",
}
SIZES = (32, 64, 128, 256)  # rows of a padded batch; the fastest counts
GROWTH = (50, 100, 200, 400)


def study_of(problems: int) -> tuple[Any, Any]:
    """The quickstart's study on so many problems, and its models behind a store in memory."""
    from cope_train.models import Models
    from cope_train.models.store import Store
    from cope_train.recipe import load
    from cope_train.rundir import RunDir
    from cope_train.study import Study

    recipe = load(Path("recipes/word_problems/tiny.yaml"), [f"data.test.limit={problems}"])
    return Study(recipe, RunDir(Path())), Models(recipe.models, Store(":memory:"))


def cascade(study: Any, models: Any, full_tree: bool = True, patient: Collection[str] = ()) -> list[Any]:
    """COPE over the test problems, every stage for every one if `full_tree`."""
    from cope_train.cascade.engine import Engine
    from cope_train.recipe.strategies import STRATEGIES

    engine = Engine(models, study.task, study.recipe.sampling, patient=patient)
    return engine.run(STRATEGIES["cope"], study.problems("test"), 0, full_tree=full_tree)


def record(problems: int, path: Path) -> None:
    """Write the small model's requests, a wave a line."""
    from cope_train.records import to_json

    study, models = study_of(problems)
    waves, complete = [], models["small"].complete

    def listen(requests: Sequence[Any]) -> list:
        waves.append("[" + ",".join(map(to_json, requests)) + "]")
        return complete(requests)

    models["small"].complete = listen
    cascade(study, models)
    path.write_text("\n".join(waves), encoding="utf-8")


def decode(peer: str, rows: int, traffic: Path) -> dict[str, float]:
    """Decode the traffic one way: seconds, tokens that were said, and the process's peak memory in GB."""
    from cope_train.models.local import LocalBackend
    from cope_train.recipe.model_specs import LocalModel
    from cope_train.records import Request, from_json

    waves = [from_json(list[Request], line) for line in traffic.read_text(encoding="utf-8").splitlines()]
    backend = LocalBackend("small", LocalModel(backend="local", path="lab/small", device="cpu"))
    next(backend.generate(waves[0][:1]))  # loads the model
    answer: Callable = {"ours": ours, "continuous": continuous}.get(peer, padded)
    start = time.perf_counter()
    tokens = sum(answer(backend, wave, rows) for wave in waves)
    seconds = time.perf_counter() - start
    memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    return {"seconds": seconds, "tokens": tokens, "memory": memory}


def ours(backend: Any, wave: Sequence[Any], rows: int) -> int:
    """Tokens said by the backend itself."""
    return sum(completion.completion_tokens for _, said in backend.generate(wave) for completion in said)


def padded(backend: Any, wave: Sequence[Any], rows: int) -> int:
    """Tokens said by `generate` with our noise, so many rows at a time; 8 are one problem's."""
    import torch

    from cope_train.models.sampler import KeyedSampler

    sampling = wave[0].sampling
    samples = [row for position, request in enumerate(wave) for row in backend._rows(position, request)]
    if rows > 8:
        samples.sort(key=lambda row: -len(row.prompt))
    tokens = 0
    for first in range(0, len(samples), rows):
        part = samples[first : first + rows]
        batch = backend.tokenizer.pad({"input_ids": [list(row.prompt) for row in part]}, return_tensors="pt")
        sampler = KeyedSampler([row.key for row in part], sampling, batch["input_ids"], batch["attention_mask"])
        with torch.inference_mode():
            output = backend._model.generate(**batch, logits_processor=[sampler], max_new_tokens=sampling.max_tokens)
        tokens += _said(output[:, batch["input_ids"].shape[1] :].tolist(), backend._ends)
    return tokens


def continuous(backend: Any, wave: Sequence[Any], rows: int) -> int:
    """Tokens said by continuous batching: as many samples of each prompt, at the same temperature."""
    from transformers import ContinuousBatchingConfig, GenerationConfig

    sampling = wave[0].sampling
    own = backend._model.generation_config
    config = GenerationConfig(
        max_new_tokens=sampling.max_tokens,
        do_sample=not sampling.greedy,
        temperature=sampling.temperature or None,
        top_k=None,
        eos_token_id=own.eos_token_id,
        pad_token_id=own.pad_token_id,
    )
    prompts = [list(row.prompt) for position, request in enumerate(wave) for row in backend._rows(position, request)]
    found = backend._model.generate_batch(prompts, config, ContinuousBatchingConfig())
    return sum(len(output.generated_tokens) for output in found.values())


def _said(rows: Sequence[Sequence[int]], ends: set[int]) -> int:
    return sum(next((i + 1 for i, token in enumerate(row) if token in ends), len(row)) for row in rows)


def profile(problems: int) -> dict[str, float]:
    """Seconds of a whole cascade and of what is not the models in it."""
    from cope_train.models.local import LocalBackend
    from cope_train.models.store import Store

    study, models = study_of(problems)
    spent: dict[str, float] = {}

    def watch(owner: Any, name: str, label: str) -> None:
        inner = getattr(owner, name)

        def timed(*args: Any, **options: Any) -> Any:
            start = time.perf_counter()
            try:
                return inner(*args, **options)
            finally:
                spent[label] = spent.get(label, 0.0) + time.perf_counter() - start

        setattr(owner, name, timed)

    watch(LocalBackend, "_encode", "tokenising")
    watch(LocalBackend, "_completion", "detokenising")
    watch(study.task, "extract", "extraction")
    watch(study.task, "groups", "equality")
    watch(study.task, "judge", "equality")
    watch(Store, "get", "store")
    watch(Store, "put", "store")
    start = time.perf_counter()
    cascade(study, models)
    return {"whole": time.perf_counter() - start} | spent


def timings(problems: int, few: int, turns: int, folder: Path) -> Iterator[str]:
    """The table of peers, the fastest of so many turns each; continuous batching gets few problems, and one turn."""
    counts = {"continuous": few}
    for count in {problems, few}:
        record(count, folder / str(count))
    jobs = [("ours", 0), ("each", 8), *(("padded", rows) for rows in SIZES)]
    found: dict[str, list[dict]] = {}
    for turn, (peer, rows) in [(0, ("continuous", 0)), *product(range(turns), jobs)]:
        print(f"turn {turn + 1} of {turns}: {peer} {rows or ''}", flush=True)
        words = "decode", peer, str(rows), str(folder / str(counts.get(peer, problems)))
        found.setdefault(peer, []).append(_alone(*words))
    best = {peer: min(runs, key=lambda run: run["seconds"]) for peer, runs in found.items()}
    yield "| way | problems | tokens/s | problems/s | ours is faster by | peak memory, GB |"
    yield "|---|---|---|---|---|---|"
    speed = {peer: run["tokens"] / run["seconds"] for peer, run in best.items()}
    for peer, label in PEERS.items():
        run = best[peer]
        ratio = "" if peer == "ours" else f"{speed['ours'] / speed[peer]:.2f}"
        count = counts.get(peer, problems)
        pace = f"{speed[peer]:,.0f} | {count / run['seconds']:.1f}"
        yield f"| {label} | {count} | {pace} | {ratio} | {run['memory']:.2f} |"


def growth(sizes: Sequence[int], folder: Path) -> Iterator[str]:
    """Seconds and memory against the number of problems."""
    yield "| problems | s | ms a problem | peak memory, GB |"
    yield "|---|---|---|---|"
    for size in sizes:
        record(size, folder / f"{size}")
        run = _alone("decode", "ours", "0", str(folder / f"{size}"))
        yield f"| {size} | {run['seconds']:.1f} | {1000 * run['seconds'] / size:.0f} | {run['memory']:.2f} |"


def shares(problems: int) -> Iterator[str]:
    """Where the time of a whole cascade goes."""
    spent = _alone("profile", str(problems))
    whole = spent.pop("whole")
    yield "| part | share of the time, % |"
    yield "|---|---|"
    for label, seconds in spent.items():
        yield f"| {label} | {100 * seconds / whole:.1f} |"
    yield f"| models, and all else | {100 * (1 - sum(spent.values()) / whole):.1f} |"


def saved(problems: int) -> Iterator[str]:
    """What stopping at a decided vote saves of the small model's tokens, and what of the solutions' could be saved."""
    from cope_train.cascade.decided import decided

    study, models = study_of(problems)
    whole, short = cascade(study, models, full_tree=False), cascade(study, models, full_tree=False, patient={"small"})
    same = sum(_decision(one) == _decision(other) for one, other in zip(whole, short, strict=True))
    yield f"Decisions and answers that are the same: {same} of {len(whole)}."
    yield ""
    yield "| stage | small model's tokens, all samples | until decided | saved, % | of what replay shows possible, % |"
    yield "|---|---|---|---|---|"
    for stage, hands_over in (("stage1", True), ("stage2", False)):
        full, part = ([s for t in traces for s in t.stages if s.stage == stage] for traces in (whole, short))
        tokens = [sum(s.usage["small"].completion_tokens for s in stages) for stages in (full, part)]
        said = [sum(sample.completion_tokens for s in stages for sample in s.samples) for stages in (full, part)]
        least = 0
        for s in full:
            groups, n = [sample.group for sample in s.samples], len(s.samples)
            count = next(k for k in range(1, n + 1) if decided(groups[:k], n, s.threshold, hands_over))
            least += sum(sample.completion_tokens for sample in s.samples[:count])
        share, reached = 1 - tokens[1] / tokens[0], (said[0] - said[1]) / (said[0] - least)
        yield f"| {stage} | {tokens[0]:,} | {tokens[1]:,} | {100 * share:.1f} | {100 * reached:.1f} |"


def _decision(trace: Any) -> tuple:
    return trace.answer, trace.verdict, [(stage.stage, stage.accepted) for stage in trace.stages]


def _alone(*words: str) -> dict[str, float]:
    """What one job of this script prints, in a process of its own."""
    done = subprocess.run([sys.executable, __file__, "--job", *words], check=True, stdout=subprocess.PIPE, text=True)
    return json.loads(done.stdout.splitlines()[-1])


def main() -> None:
    """Run everything and write the page, or do one job and print its figures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--problems", type=int, default=200)
    parser.add_argument("--few", type=int, default=10, help="problems for continuous batching, which is slow here")
    parser.add_argument("--turns", type=int, default=3)
    parser.add_argument("--growth", type=int, nargs="*", default=list(GROWTH), help="numbers of problems")
    parser.add_argument("--page", type=Path, default=Path("docs/benchmarks.md"))
    parser.add_argument("--job", nargs="+", help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.job:
        name, *words = given.job
        found = profile(int(words[0])) if name == "profile" else decode(words[0], int(words[1]), Path(words[2]))
        print(json.dumps(found))
        return
    with tempfile.TemporaryDirectory() as folder:
        tables = [timings(given.problems, given.few, given.turns, Path(folder)), growth(given.growth, Path(folder))]
        body = "\n\n".join("\n".join(table) for table in [*tables, shares(given.problems), saved(given.problems)])
    options = f"bench_local.py --problems {given.problems} --turns {given.turns}"
    fill(given.page, f"{made_by(options)}\n\n{body}", "local")
    print(body)


if __name__ == "__main__":
    main()
