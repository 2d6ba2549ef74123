"""How fast plans are collected by API, against the bare client and distilabel, and how memory grows.

    python scripts/bench_collect.py [--rows 10000] [--many 100000] [--no-distilabel] [--page docs/benchmarks.md]

A server on the loopback, in a process of its own, answers every request after 50 ms, however many there are at once.
Against it: `Collector.write` with store, leases and ledger; a bare asyncio loop on the `openai` client with as many
connections; distilabel's `TextGeneration` with as many, in a virtual environment that this script makes. Each is a
process of its own, timed from the call that sends the first request to the last answer, with its libraries imported
before; peak memory is that process's own, less those that distilabel starts. Fills the page's figures.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import textwrap
import venv
from pathlib import Path
from statistics import median

from page import fill, made_by

ROOT = Path(__file__).parent.parent
_PROMPT = "How many apples are left in basket {i} when half of its {i} apples are sold?"

OURS = """
import json, resource, sys, time
from pathlib import Path
import openai  # the bare client has it before its clock starts, too
from cope_train.models import Models
from cope_train.models.store import Store
from cope_train.plans.collect import Collector
from cope_train.prompts import load
from cope_train.recipe.model_specs import ApiModel
from cope_train.recipe.schema import Plans
from cope_train.records import Problem
from cope_train.tasks.math import Math

url, rows, connections, folder = sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), Path(sys.argv[4])

class Problems:  # made on the way, as a file that is read line by line would
    def __len__(self):
        return rows
    def __iter__(self):
        return (Problem(f"p{i}", PROMPT.format(i=i), str(i)) for i in range(rows))

large = ApiModel(backend="api", model="large", base_url=url, api_key_env="FAKE_KEY", concurrency=connections)
store = Store(folder / "store.sqlite", "bench")
prompts = load("math", {})
collector = Collector(
    Models({"large": large}, store), Math(prompts), Plans(kinds=["goal"], samples=1), {}, prompts.hashes
)
start = time.perf_counter()
collector.write(Problems(), 0)
store.flush()
seconds = time.perf_counter() - start
assert store.spend().calls == rows
store.close()
"""
BARE = """
import asyncio, json, resource, sys, time
import openai

url, rows, connections = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])

async def main():
    slots = asyncio.Semaphore(connections)
    async with openai.AsyncOpenAI(api_key="none", base_url=url) as client:
        async def one(i):
            async with slots:
                messages = [{"role": "user", "content": PROMPT.format(i=i)}]
                reply = await client.chat.completions.create(model="large", messages=messages, max_tokens=1024)
                return reply.choices[0].message.content
        return await asyncio.gather(*(one(i) for i in range(rows)))

start = time.perf_counter()
answers = asyncio.run(main())
seconds = time.perf_counter() - start
assert len(answers) == rows
"""
DISTILABEL = """
import json, resource, sys, time
from distilabel.models import OpenAILLM
from distilabel.pipeline import Pipeline
from distilabel.steps import LoadDataFromDicts
from distilabel.steps.tasks import TextGeneration

url, rows, connections = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])

if __name__ == "__main__":
    with Pipeline(name="bench") as pipeline:
        rows_in = [{"instruction": PROMPT.format(i=i)} for i in range(rows)]
        data = LoadDataFromDicts(data=rows_in, batch_size=connections)
        llm = OpenAILLM(model="large", base_url=url, api_key="none", generation_kwargs={"max_new_tokens": 1024})
        data >> TextGeneration(llm=llm, input_batch_size=connections)
    start = time.perf_counter()
    found = pipeline.run(use_cache=False)["default"]["train"]
    seconds = time.perf_counter() - start
    assert len(found) == rows and all(found["generation"])
"""
_TOLD = """
peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
print(json.dumps({"seconds": seconds, "rows_per_s": rows / seconds, "peak_mb": peak}))
"""


def main() -> None:
    """Measure, print the table and put it into the page."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=10_000)
    parser.add_argument("--many", type=int, default=100_000, help="rows for the second look at memory; 0: none")
    parser.add_argument("--connections", type=int, default=64)
    parser.add_argument("--repeats", type=int, default=3, help="the median counts")
    parser.add_argument("--no-distilabel", action="store_true")
    parser.add_argument("--page", type=Path)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        body = _measured(options, Path(folder))
    print(body)
    if options.page:
        fill(options.page, f"{made_by('bench_collect.py')}\n\n{body}", "collecting")


def _measured(options: argparse.Namespace, folder: Path) -> str:
    command = [sys.executable, str(ROOT / "scripts" / "fake_server.py"), "--delay", "0.05"]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as server:
        url = server.stdout.readline().strip()
        programs = {
            "`Collector.write`, store and ledger": (sys.executable, OURS),
            "bare `openai` client": (sys.executable, BARE),
        }
        if not options.no_distilabel:
            programs["distilabel `TextGeneration`"] = (_distilabel(folder / "venv"), DISTILABEL)
        # By turns, so that a machine that slows down slows them all.
        runs = [
            {name: _run(*program, url, options.rows, options.connections, folder) for name, program in programs.items()}
            for _ in range(options.repeats)
        ]
        many = _run(sys.executable, OURS, url, options.many, options.connections, folder) if options.many else None
        server.stdin.close()
    return _table(runs, many, options)


def _table(runs: list[dict[str, dict]], many: dict | None, options: argparse.Namespace) -> str:
    ours = next(iter(runs[0]))
    lines = ["| | rows/s | ours against it | peak memory, MB |", "|---|---|---|---|"]
    for name in runs[0]:
        rate = median(run[name]["rows_per_s"] for run in runs)
        ratio = median(run[ours]["rows_per_s"] / run[name]["rows_per_s"] for run in runs)
        peak = median(run[name]["peak_mb"] for run in runs)
        lines.append(f"| {name} | {rate:,.0f} | {'' if name == ours else f'{ratio:.2f}'} | {peak:,.0f} |")
    text = [
        f"{options.rows:,} plan requests, {options.connections} connections, replies after 50 ms; medians of "
        f"{options.repeats} runs by turns.",
        "",
        *lines,
    ]
    if many:
        peak = median(run[ours]["peak_mb"] for run in runs)
        text += [
            "",
            f"Peak memory at {options.many:,} rows: {many['peak_mb']:,.0f} MB, {many['peak_mb'] / peak:.2f} of that at "
            f"{options.rows:,} ({many['rows_per_s']:,.0f} rows/s).",
        ]
    return "\n".join(text)


def _run(python: str, program: str, url: str, rows: int, connections: int, folder: Path) -> dict:
    with tempfile.TemporaryDirectory(dir=folder) as own:
        script = Path(own) / "program.py"
        script.write_text(f"PROMPT = {_PROMPT!r}\n{textwrap.dedent(program)}{_place(_TOLD, program)}")
        environment = {"FAKE_KEY": "none", "PYTHONPATH": str(ROOT) if program == OURS else "", "HOME": own}
        command = [python, str(script), url, str(rows), str(connections), own]
        done = subprocess.run(command, capture_output=True, text=True, env=environment, cwd=own)
    if done.returncode:
        raise SystemExit(done.stderr)
    return json.loads(done.stdout.strip().splitlines()[-1])


def _place(told: str, program: str) -> str:
    """The last lines, inside the main block where the program has one."""
    return textwrap.indent(told, "    ") if program.rstrip().splitlines()[-1].startswith("    ") else told


def _distilabel(folder: Path) -> str:
    """An environment with distilabel in it; the Python to run there."""
    venv.create(folder, with_pip=True)
    python = str(folder / "bin" / "python")
    subprocess.run([python, "-m", "pip", "install", "-q", "distilabel[openai]==1.5.3", "requests"], check=True)
    return python


if __name__ == "__main__":
    main()
