"""Measure the bundled pair on fresh test problems: who solves how much with whose plan, and what consensus is worth.

    python scripts/measure_lab_pair.py                      # 1,000 problems, a few minutes on two cores
    python scripts/measure_lab_pair.py --problems 100 --pair /tmp/pair --json pair.json

Plans are drawn at temperature 0.8 and the solutions of the table are greedy. The cascade follows the paper: stage 1
draws a goal at 0.8 for each of 8 solutions at 0.4; stage 2 draws one guideline by the large model at 0.8 and 8
solutions at 0.8, each given a goal that voted for stage 1's winner; stage 3 is the large model, greedy, with that
guideline. Figures carry 95 % Wilson intervals. The engine is not used, so this also checks the engine.
"""

from __future__ import annotations

import argparse
import json
import math
import random
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from cope_train import lab, prompts
from cope_train.lab import world
from cope_train.records import Problem, Role, Verdict
from cope_train.tasks.word_problems import WordProblems

OFFSET = 1_000_000  # far beyond what recipes take from the test split, so that these problems are fresh
ROWS = 256
MAX_TOKENS: dict[Role, int] = {"goal": 40, "guideline": 48, "solution": 160}
TASK = WordProblems(prompts.load("word_problems"))


class Talker:
    """One model of the pair, answering many prompts in length-sorted batches."""

    def __init__(self, folder: Path) -> None:
        self.tokenizer = AutoTokenizer.from_pretrained(folder, padding_side="left")
        self.model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()

    def length(self, text: str) -> int:
        """Tokens of a text."""
        return len(self.tokenizer(text)["input_ids"])

    @torch.inference_mode()
    def say(self, role: Role, problems: Sequence[Problem], plans: Sequence[dict], temperature: float) -> list[str]:
        """One text for each problem; temperature 0 is greedy."""
        asked = [self._prompt(problem, role, plan) for problem, plan in zip(problems, plans, strict=True)]
        order = sorted(range(len(asked)), key=lambda at: len(asked[at]))
        said = [""] * len(asked)
        how = {"do_sample": True, "temperature": temperature, "top_k": 0} if temperature else {"do_sample": False}
        for first in range(0, len(order), ROWS):
            rows = order[first : first + ROWS]
            batch = self.tokenizer([asked[at] for at in rows], return_tensors="pt", padding=True)
            out = self.model.generate(**batch, max_new_tokens=MAX_TOKENS[role], **how)
            texts = self.tokenizer.batch_decode(out[:, batch["input_ids"].shape[1] :], skip_special_tokens=True)
            for at, text in zip(rows, texts, strict=True):
                said[at] = text
        return said

    def _prompt(self, problem: Problem, role: Role, plans: dict) -> str:
        chat = [{"role": message.role, "content": message.content} for message in TASK.ask(problem, role, plans)]
        return self.tokenizer.apply_chat_template(chat, tokenize=False, add_generation_prompt=True)


@dataclass
class Stage:
    """One stage's vote on every problem."""

    winners: list[str | None]
    consensus: list[float]
    right: list[bool]
    solutions: list[list[str]]

    def accepted(self, threshold: float) -> list[bool]:
        """Which problems a gate lets through."""
        return [share >= threshold for share in self.consensus]


def judged(problems: Sequence[Problem], texts: Sequence[str]) -> list[bool]:
    """Which solutions are right."""
    return [TASK.judge(p, TASK.extract(text)) is Verdict.right for p, text in zip(problems, texts, strict=True)]


def vote(problems: Sequence[Problem], texts: list[str], n: int) -> Stage:
    """Majority answers of n solutions a problem; `texts` holds a problem's solutions side by side."""
    stage = Stage([], [], [], [])
    for at, problem in enumerate(problems):
        own = texts[at * n : (at + 1) * n]
        votes = Counter(answer for text in own if (answer := TASK.extract(text)) is not None)
        winner, most = votes.most_common(1)[0] if votes else (None, 0)
        stage.winners.append(winner)
        stage.consensus.append(most / n)
        stage.right.append(TASK.judge(problem, winner) is Verdict.right)
        stage.solutions.append(own)
    return stage


def auroc(scores: Sequence[float], right: Sequence[bool]) -> float:
    """Probability that a right majority has more consensus than a wrong one; ties count half."""
    good = [score for score, ok in zip(scores, right, strict=True) if ok]
    bad = [score for score, ok in zip(scores, right, strict=True) if not ok]
    wins = sum((g > b) + 0.5 * (g == b) for g in good for b in bad)
    return wins / (len(good) * len(bad)) if good and bad else math.nan


def interval(hits: int, n: int) -> tuple[float, float]:
    """Wilson's 95 % interval, in per cent."""
    z, p = 1.96, hits / n
    middle, half = p + z * z / (2 * n), z * math.sqrt(p * (1 - p) / n + z * z / (4 * n * n))
    return tuple(round(100 * (middle + sign * half) / (1 + z * z / n), 1) for sign in (-1, 1))


def lines(small: Talker, large: Talker, problems: list[Problem]) -> tuple[dict, dict]:
    """Accuracy of every pairing of executor and plan, and the plans' and solutions' mean lengths in tokens."""
    bare = [{} for _ in problems]
    drawn = {
        f"{who}'s {kind}": [{kind: text} for text in talker.say(kind, problems, bare, 0.8)]
        for who, talker in (("small", small), ("large", large))
        for kind in ("goal", "guideline")
    }
    drawn["gold goal"] = [{"goal": problem.meta["goal"]} for problem in problems]
    drawn["gold guideline"] = [{"guideline": problem.meta["guideline"]} for problem in problems]
    right = {}
    for who, talker in (("small", small), ("large", large)):
        for label, plans in {"alone": bare, **drawn}.items():
            texts = talker.say("solution", problems, plans, 0.0)
            right[f"{who}, {label}"] = judged(problems, texts)
            if (who, label) == ("large", "alone"):
                solutions = texts
    plans = {
        label: sum(large.length(next(iter(p.values()))) for p in rows) / len(rows) for label, rows in drawn.items()
    }
    return right, {**plans, "large's solution": sum(map(large.length, solutions)) / len(solutions)}


def cascade(small: Talker, large: Talker, problems: list[Problem], n: int) -> tuple[Stage, Stage, list[bool], list]:
    """The three stages, each run on every problem, and the large model's guidelines."""
    rng = random.Random(0)
    many = [problem for problem in problems for _ in range(n)]
    goals = small.say("goal", many, [{} for _ in many], 0.8)
    first = vote(problems, small.say("solution", many, [{"goal": goal} for goal in goals], 0.4), n)
    guides = large.say("guideline", problems, [{} for _ in problems], 0.8)
    plans = []
    for at, winner in enumerate(first.winners):
        own = zip(goals[at * n : (at + 1) * n], first.solutions[at], strict=True)
        voters = [goal for goal, text in own if TASK.extract(text) == winner]
        plans += [{"goal": rng.choice(voters), "guideline": guides[at]}] * n
    second = vote(problems, small.say("solution", many, plans, 0.8), n)
    third = judged(problems, large.say("solution", problems, [{"guideline": guide} for guide in guides], 0.0))
    return first, second, third, guides


def priced(large: Talker, problems: list[Problem], texts: list[str], role: Role, plans: list[dict]) -> list[float]:
    """What each text costs from the large model, at 0.15 / 0.60 USD a million prompt / completion tokens (in USD/M)."""
    costs = []
    for problem, text, plan in zip(problems, texts, plans, strict=True):
        asked = sum(large.length(message.content) + 2 for message in TASK.ask(problem, role, plan)) + 1
        costs.append(0.15 * asked + 0.60 * (large.length(text) + 1))
    return costs


def summary(small: Talker, large: Talker, problems: list[Problem], n: int) -> dict:
    """Every figure, ready for JSON."""
    right, lengths = lines(small, large, problems)
    first, second, third, guides = cascade(small, large, problems, n)
    one, two = first.accepted(0.75), second.accepted(0.5)
    final = [first.right[at] if one[at] else second.right[at] if two[at] else third[at] for at in range(len(problems))]
    bare = [{} for _ in problems]
    gold = [problem.meta["solution"] for problem in problems]  # a price needs lengths only, and these are the lengths
    whole = priced(large, problems, gold, "solution", bare)
    plan = priced(large, problems, guides, "guideline", bare)
    last = priced(large, problems, gold, "solution", [{"guideline": guide} for guide in guides])
    paid = [0 if one[at] else plan[at] if two[at] else plan[at] + last[at] for at in range(len(problems))]
    passed = [at for at, ok in enumerate(one) if ok]
    second_at = [at for at, ok in enumerate(one) if not ok]
    accepted_two = [at for at in second_at if two[at]]
    return {
        "problems": len(problems),
        "accuracy": {k: [round(100 * sum(v) / len(v), 1), *interval(sum(v), len(v))] for k, v in right.items()},
        "by level": _by_level(problems, right),
        "tokens": {label: round(mean, 1) for label, mean in lengths.items()},
        "stage 1 majority": _percent(first.right, range(len(problems))),
        "stage 1 AUROC": round(auroc(first.consensus, first.right), 3),
        "stage 2 AUROC, where stage 1 escalates": round(
            auroc([second.consensus[at] for at in second_at], [second.right[at] for at in second_at]), 3
        ),
        "share accepted at stages 1, 2, 3": [
            round(100 * share / len(problems), 1)
            for share in (len(passed), len(accepted_two), len(second_at) - len(accepted_two))
        ],
        "accuracy of what stages 1, 2, 3 accept": [
            _percent(first.right, passed),
            _percent(second.right, accepted_two),
            _percent(third, [at for at in second_at if not two[at]]),
        ],
        "stage 1 by votes of 8 (share, accuracy)": _by_votes(first, n),
        "cascade": [_percent(final, range(len(final))), *interval(sum(final), len(final))],
        "cascade's cost, % of large alone": round(100 * sum(paid) / sum(whole), 1),
    }


def _percent(right: Sequence[bool], where: Sequence[int]) -> float | None:
    return round(100 * sum(right[at] for at in where) / len(where), 1) if where else None


def _by_level(problems: list[Problem], right: dict[str, list[bool]]) -> dict:
    levels = sorted({problem.level for problem in problems})
    where = {level: [at for at, problem in enumerate(problems) if problem.level == level] for level in levels}
    shown = ("small, alone", "large, alone")
    return {level: {"n": len(rows), **{k: _percent(right[k], rows) for k in shown}} for level, rows in where.items()}


def _by_votes(stage: Stage, n: int) -> dict:
    rows = {k: [at for at, share in enumerate(stage.consensus) if round(share * n) == k] for k in range(n, 0, -1)}
    return {k: [round(100 * len(at) / len(stage.right), 1), _percent(stage.right, at)] for k, at in rows.items() if at}


def main() -> None:
    """Parse the command line, measure, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--problems", type=int, default=1000)
    parser.add_argument("--samples", type=int, default=8, help="solutions a stage")
    parser.add_argument("--pair", type=Path, default=lab.WEIGHTS, help="folder that holds small and large")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--json", type=Path, help="write the figures here, too")
    given = parser.parse_args()
    torch.manual_seed(given.seed)
    small, large = Talker(given.pair / "small"), Talker(given.pair / "large")
    found = summary(small, large, world.problems("test", given.problems, OFFSET), given.samples)
    print("\n".join(f"{label}: {json.dumps(value)}" for label, value in found.items()))
    if given.json:
        given.json.write_text(json.dumps(found, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
