"""The engine on fakes: who is asked what, what is handed over, when it escalates, what it charges."""

from __future__ import annotations

import random

import pytest

from cope_train.cascade import engine
from cope_train.cascade.engine import Engine
from cope_train.recipe.strategies import STRATEGIES
from cope_train.records import Failure, Usage, Verdict
from tests.fakes import PROBLEMS, FakeModel, FakeTask

COPE = STRATEGIES["cope"]


def run(small, large, strategy=COPE, adapters="none", full_tree=False, problems=PROBLEMS[:1], patient=()):
    models = {"small": FakeModel("small", small), "large": FakeModel("large", large)}
    made = Engine(models, FakeTask(), {}, patient=patient)
    return made.run(strategy, problems, seed=3, adapters=adapters, full_tree=full_tree), models


def user(request) -> str:
    return request.messages[-1].content


def test_consensus_at_stage_one_asks_no_large_model() -> None:
    (trace,), models = run(lambda r, i: f"goal {i}" if r.role == "goal" else "=0", lambda r, i: "never")
    assert trace.verdict is Verdict.right
    assert [stage.accepted for stage in trace.stages] == [True]
    assert models["large"].asked == []
    goals, *solutions = models["small"].asked
    assert (goals.sampling.temperature, goals.indices, goals.seed) == (0.8, tuple(range(8)), 3)
    assert [user(r) for r in solutions] == [f"question 0 <goal: goal {i}>" for i in range(8)]
    assert {r.sampling.temperature for r in solutions} == {0.4}
    assert trace.stages[0].usage == {"small": Usage(9, 90, 80, 0.0)}


def test_the_goal_of_the_first_voter_for_the_winner_is_handed_over() -> None:
    def small(request, index):
        if request.role == "goal":
            return f"goal {index}"
        if "guideline" in user(request):
            return f"={index // 3}"  # 3, 3 and 2 votes: below one half
        return "=7" if index in (2, 5, 6) else f"={index}0"

    def large(request, index):
        return "do it" if request.role == "guideline" else "=0"

    (trace,), models = run(small, large)
    stage2 = next(r for r in models["small"].asked if "guideline" in user(r))
    assert user(stage2) == "question 0 <goal: goal 2> <guideline: do it>"
    assert stage2.indices == tuple(range(8))
    guideline, answer = models["large"].asked
    assert (guideline.role, guideline.sampling.temperature) == ("guideline", 0.8)
    assert user(answer) == "question 0 <guideline: do it>"
    assert answer.sampling.greedy
    assert [(s.stage, s.accepted, s.consensus) for s in trace.stages] == [
        ("stage1", False, 3 / 8),
        ("stage2", False, 3 / 8),
        ("stage3", True, None),
    ]
    assert trace.verdict is Verdict.right


def test_an_empty_vote_hands_over_the_first_goal_and_escalates() -> None:
    (trace,), models = run(
        lambda r, i: f"goal {i}" if r.role == "goal" else "no answer",
        lambda r, i: "x" if r.role == "guideline" else "?",
    )
    assert [stage.consensus for stage in trace.stages] == [0.0, 0.0, None]
    assert any("goal 0> <guideline" in user(r) for r in models["small"].asked)
    assert (trace.answer, trace.verdict) == (None, Verdict.unparseable)


def test_a_silent_planner_gives_no_plan() -> None:
    _, models = run(lambda r, i: " " if r.role == "goal" else "=0", lambda r, i: "")
    solve = [r for r in models["small"].asked if r.role == "solution"]
    assert [user(r) for r in solve] == ["question 0"]  # eight samples, one shared prompt
    assert solve[0].indices == tuple(range(8))


def test_adapters_are_active_for_their_own_role_only() -> None:
    def said(adapters):
        _, models = run(lambda r, i: "g" if r.role == "goal" else f"={i}", lambda r, i: "=0", adapters=adapters)
        return {(m, r.role, r.adapter) for m in models for r in models[m].asked}

    large = {("large", "guideline", None), ("large", "solution", None)}
    assert said("none") == {("small", "goal", None), ("small", "solution", None)} | large
    assert said("planner") == {("small", "goal", "planner"), ("small", "solution", None)} | large
    assert said("executor") == {("small", "goal", None), ("small", "solution", "executor")} | large
    assert said("both") == {("small", "goal", "planner"), ("small", "solution", "executor")} | large


@pytest.mark.parametrize("role", ["goal", "solution", "guideline"])
def test_a_failed_sample_fails_the_decision_and_nothing_else(role: str) -> None:
    def speak(request, index):
        if request.role == role and request.problem_id == "p1":
            return Failure("line is dead")
        return f"={index}" if request.role == "solution" else "plan"

    traces, _ = run(speak, speak, problems=PROBLEMS)
    assert [trace.verdict is Verdict.failure for trace in traces] == [False, True, False, False]
    assert "line is dead" in traces[1].failure
    assert traces[1].answer is None


def test_the_full_tree_runs_every_stage_and_accepts_the_last() -> None:
    (trace,), _ = run(lambda r, i: "g" if r.role == "goal" else "=0", lambda r, i: "=0", full_tree=True)
    assert [stage.accepted for stage in trace.stages] == [False, False, True]
    assert [stage.consensus for stage in trace.stages] == [1.0, 1.0, None]


def test_waves_keep_the_order_of_problems() -> None:
    traces, _ = run(
        lambda r, i: "g" if r.role == "goal" else ("=1" if r.problem_id == "p1" else f"={i}"),
        lambda r, i: "=" + r.problem_id[1:],
        problems=PROBLEMS,
    )
    assert [trace.problem_id for trace in traces] == ["p0", "p1", "p2", "p3"]
    assert [len(trace.stages) for trace in traces] == [3, 1, 3, 3]
    assert all(trace.verdict is Verdict.right for trace in traces)


def test_every_strategy_of_the_table_runs() -> None:
    for strategy in STRATEGIES.values():
        (trace,), _ = run(lambda r, i: "=0", lambda r, i: "=0", strategy)
        assert trace.verdict is Verdict.right
        assert trace.stages[-1].accepted


def draws(seed: int, spread: int):
    """A model whose answers are drawn, the same ones for the same prompt and index."""

    def speak(request, index):
        said = random.Random(f"{seed} {user(request)} {request.role} {index}")
        return f"plan {said.randrange(3)}" if request.role != "solution" else f"={said.choice([0] + [*range(spread)])}"

    return speak


@pytest.mark.parametrize("few", [0, 100])
@pytest.mark.parametrize("seed", range(25))
def test_a_decided_vote_that_stops_changes_no_decision(seed: int, few: int, monkeypatch) -> None:
    def decisions(patient, few=few):
        monkeypatch.setattr(engine, "_FEW", few)
        traces, models = run(draws(seed, 2 + seed % 4), draws(seed, 3), problems=PROBLEMS, patient=patient)
        rows = [(t.answer, t.verdict, [(s.stage, s.accepted) for s in t.stages]) for t in traces]
        asked = sum(len(request.indices) for request in models["small"].asked)
        return rows, [user(request) for request in models["large"].asked], asked, traces

    whole, stopped = decisions(()), decisions({"small", "large"})
    assert stopped[:2] == whole[:2]
    assert stopped[2] <= whole[2]
    assert decisions({"small", "large"}, 0)[2] < whole[2]
    assert stopped[3] == decisions({"small", "large"}, 3)[3]  # whatever the turns
    for one, other in zip(stopped[3], whole[3], strict=True):
        for short, full in zip(one.stages, other.stages, strict=True):
            assert short.samples == full.samples[: len(short.samples)]
            assert short.plans == full.plans[: len(short.plans)]
            assert short.usage["small" if short.stage != "stage3" else "large"].prompt_tokens > 0


def test_a_stopped_stage_is_charged_for_what_index_order_needs() -> None:
    (trace,), models = run(lambda r, i: "a goal" if r.role == "goal" else "=0", lambda r, i: "x", patient={"small"})
    assert [request.indices for request in models["small"].asked] == [tuple(range(6))] * 2
    assert trace.stages[0].consensus == 6 / 8
    assert trace.stages[0].usage == {"small": Usage(2, 20, 60, 0.0)}


def test_a_full_tree_and_an_impatient_executor_ask_for_all_samples() -> None:
    def small(request, index):
        return "=0"

    for options in ({"full_tree": True, "patient": {"small"}}, {"patient": {"large"}}):
        traces, _ = run(small, small, **options)
        assert len(traces[0].stages[0].samples) == 8
