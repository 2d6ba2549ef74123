"""Replaying a full tree is running the cascade, and fitting picks what its rule says."""

from __future__ import annotations

from itertools import product
from statistics import mean

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cope_train.cascade.engine import Engine
from cope_train.errors import ServerError
from cope_train.evaluation.cost import of_trace
from cope_train.evaluation.replay import NEVER, fit, replay
from cope_train.recipe.model_specs import Price
from cope_train.recipe.strategies import STRATEGIES
from cope_train.records import Completion, Failure, Problem, Trace, Verdict
from tests.evaluation.made import FAILURE, PRICES, RIGHT, WRONG, stage, trace, used
from tests.fakes import PROBLEMS, FakeModel, FakeTask

ANSWER = st.sampled_from(["=0", "=0", "=1", "=2", "=broken", "?"])
SCRIPT = st.fixed_dictionaries(
    {
        "stage1": st.lists(ANSWER, min_size=8, max_size=8),
        "stage2": st.lists(ANSWER, min_size=8, max_size=8),
        "last": ANSWER,
        "dead": st.sampled_from([None, None, None, "goal", "stage1", "guideline", "stage2", "last"]),
    }
)
THRESHOLD = st.one_of(st.sampled_from([i / 8 for i in range(9)] + [NEVER]), st.floats(0, 1.01))
# A gate without a threshold of its own keeps the strategy's.
THRESHOLDS = st.fixed_dictionaries({}, optional={"stage1": THRESHOLD, "stage2": THRESHOLD})


class BrittleTask(FakeTask):
    """A grader that breaks on one answer."""

    def judge(self, problem: Problem, answer: str | None) -> Verdict:
        return FAILURE if answer == "broken" else super().judge(problem, answer)


def run(script: list[dict], thresholds: dict[str, float], strategy: str, full_tree: bool) -> list[Trace]:
    """One run of a cascade whose models say what the script has for each problem and stage."""

    def speak(request, index):
        lines = script[int(request.problem_id[1:])]
        guided = "guideline:" in request.messages[-1].content
        place = request.role
        if request.role == "solution":
            place = (
                "last" if len(request.indices) == 1 and request.sampling.greedy else "stage2" if guided else "stage1"
            )
        if lines["dead"] == place and index in (0, 5):
            return Failure("line is dead")
        text = lines[place] if place == "last" else lines[place][index] if place in lines else f"{place} {index}"
        return Completion(text, "stop", len(request.messages[-1].content), index + 3, seconds=0.25)

    engine = Engine({name: FakeModel(name, speak) for name in ("small", "large")}, BrittleTask(), {})
    chosen = STRATEGIES[strategy].with_thresholds(thresholds)
    return engine.run(chosen, PROBLEMS[: len(script)], seed=1, name="again", full_tree=full_tree)


@settings(deadline=None, max_examples=60)
@given(st.lists(SCRIPT, min_size=1, max_size=4), THRESHOLDS, st.sampled_from(["cope", "cascade-no-plan"]))
def test_a_replay_is_the_run_it_stands_for(script: list[dict], thresholds: dict, strategy: str) -> None:
    trees = run(script, {}, strategy, full_tree=True)
    assert [replay(tree, thresholds, "again") for tree in trees] == run(script, thresholds, strategy, full_tree=False)


def test_the_property_sees_every_kind_of_end() -> None:
    def line(one: int, two: int, dead: str | None = None) -> dict:
        stages = {f"stage{n}": ["=0"] * votes + ["?"] * (8 - votes) for n, votes in ((1, one), (2, two))}
        return stages | {"last": "=0", "dead": dead}

    script = [line(6, 8, "last"), line(5, 4), line(5, 3), line(5, 3, "guideline")]
    trees = run(script, {}, "cope", full_tree=True)
    ends = [replay(tree, {}) for tree in trees]
    assert [len(end.stages) for end in ends] == [1, 2, 3, 2]
    assert [end.stages[-1].accepted for end in ends] == [True, True, True, False]
    assert [end.failure is None for end in ends] == [True, True, True, False]
    # A failure behind the gate that accepts was never met.
    assert trees[0].verdict is FAILURE
    assert ends[0].verdict is RIGHT
    assert replay(trees[0], {"stage1": NEVER}).stages[0].accepted is False


def tree(problem: str, gates: tuple, last: Verdict = RIGHT, tokens: int | None = 100, seed: int = 0) -> Trace:
    """A full tree: (consensus, verdict) for each gate, then the large model's verdict, 100 large tokens a stage."""
    stages = [
        stage(
            f"stage{number}",
            verdict,
            consensus,
            {"small": used(9)} | ({"large": used(1, tokens, 0)} if number > 1 else {}),
            threshold=0.75,
            accepted=False,
        )
        for number, (consensus, verdict) in enumerate(gates, start=1)
    ]
    end = stage(f"stage{len(gates) + 1}", last, usage={"large": used(1, tokens, 0)})
    return trace(problem, *stages, end, seed=seed)


def large(*verdicts: Verdict) -> list[Trace]:
    return [trace(f"p{i}", stage("solve", verdict), strategy="large") for i, verdict in enumerate(verdicts)]


ONE_GATE = [
    tree("p0", ((1.0, RIGHT),)),
    tree("p1", ((0.75, RIGHT),)),
    tree("p2", ((0.5, WRONG),)),
    tree("p3", ((0.25, WRONG),)),
]
DOLLAR = {"small": Price(input=0, output=0), "large": Price(input=1, output=1)}


def test_the_cheapest_at_the_large_models_accuracy() -> None:
    found = fit(ONE_GATE, large(RIGHT, RIGHT, RIGHT, RIGHT), DOLLAR)
    assert found.thresholds == {"stage1": 0.75}  # p0 and p1 end early, p2 and p3 pay 100 tokens each
    assert (found.accuracy, found.large_accuracy, found.problems) == (1.0, 1.0, 4)
    assert (found.cost, found.unit) == (pytest.approx(2 * 100 / 4), "USD per million problems")
    assert found.rule.startswith("cheapest")
    # A large model that is right less often may be met more cheaply.
    assert fit(ONE_GATE, large(RIGHT, RIGHT, RIGHT, WRONG), DOLLAR).thresholds == {"stage1": 0.5}
    assert fit(ONE_GATE, large(RIGHT, RIGHT, WRONG, WRONG), DOLLAR).thresholds == {"stage1": 0.25}


def test_the_most_accurate_where_none_reaches_the_large_model() -> None:
    trees = [tree("p0", ((1.0, WRONG),), WRONG), tree("p1", ((0.5, RIGHT),), WRONG), tree("p2", ((0.25, WRONG),))]
    found = fit(trees, large(RIGHT, RIGHT, RIGHT), DOLLAR)
    assert found.rule.startswith("most accurate")
    assert (found.thresholds, found.accuracy) == ({"stage1": 0.5}, pytest.approx(2 / 3))


def test_of_equals_the_cheaper_then_the_stricter() -> None:
    trees = [tree("p0", ((1.0, WRONG),), WRONG), tree("p1", ((0.5, WRONG),), WRONG)]
    assert fit(trees, large(RIGHT, RIGHT), DOLLAR).thresholds == {"stage1": 0.5}
    free = [tree("p0", ((1.0, RIGHT),), tokens=0), tree("p1", ((0.5, RIGHT),), tokens=0)]
    assert fit(free, large(RIGHT, RIGHT), DOLLAR).thresholds == {"stage1": NEVER}
    wrong = [tree("p0", ((1.0, RIGHT),), WRONG, tokens=0), tree("p1", ((0.5, WRONG),), WRONG, tokens=0)]
    assert fit(wrong, large(RIGHT, WRONG), DOLLAR).thresholds == {"stage1": 1.0}


def test_what_failed_anywhere_is_left_out() -> None:
    dead = trace("p0", stage("stage1", FAILURE), seed=0)
    broken = tree("p1", ((1.0, FAILURE),))
    trees = [dead, broken, *(tree(f"p{i}", ((1.0, RIGHT),)) for i in (2, 3, 4))]
    found = fit(trees, large(RIGHT, RIGHT, RIGHT, RIGHT, FAILURE), DOLLAR)
    assert found.problems == 2
    assert (found.thresholds, found.accuracy, found.large_accuracy) == ({"stage1": 1.0}, 1.0, 1.0)


def test_nothing_to_fit_on_is_a_servers_failure() -> None:
    with pytest.raises(ServerError, match="every problem of the calibration split failed"):
        fit([trace("p0", stage("stage1", FAILURE))], large(RIGHT), DOLLAR)


@pytest.mark.parametrize("unknown", ["price", "tokens"])
def test_calls_stand_in_for_unknown_costs(unknown: str) -> None:
    trees = [tree(f"p{i}", ((1.0 - i / 4, RIGHT), (1.0, RIGHT)), tokens=None) for i in range(3)]
    if unknown == "price":
        trees = [tree(f"p{i}", ((1.0 - i / 4, RIGHT), (1.0, RIGHT))) for i in range(3)]
    found = fit(trees, large(RIGHT, RIGHT, RIGHT), DOLLAR | ({"large": None} if unknown == "price" else {}))
    assert found.unit == "large model's calls a problem"
    costs = {tuple(row["thresholds"]): row["cost"] for row in found.sweep}
    assert costs[0.5, NEVER] == 0
    assert costs[NEVER, NEVER] == 2  # the guideline and the answer
    assert costs[0.75, 1.0] == pytest.approx(1 / 3)


VERDICT = st.sampled_from([RIGHT, WRONG])
GATE = st.tuples(st.integers(0, 4).map(lambda votes: votes / 4), VERDICT)
TREES = st.lists(st.tuples(GATE, GATE, VERDICT, VERDICT, st.integers(0, 500)), min_size=1, max_size=6)


@settings(deadline=None, max_examples=50)
@given(TREES)
def test_fitting_agrees_with_replaying_every_choice(rows: list[tuple]) -> None:
    trees = [tree(f"p{i}", row[:2], row[2], tokens=row[4]) for i, row in enumerate(rows)]
    found = fit(trees, large(*(row[3] for row in rows)), PRICES)

    def outcome(choice: dict[str, float]) -> tuple[float, float]:
        ends = [replay(full, choice) for full in trees]
        costs = [float(of_trace(end, PRICES)) * 1e6 for end in ends]
        return mean(float(end.verdict is RIGHT) for end in ends), mean(costs)

    goal = mean(float(row[3] is RIGHT) for row in rows)
    levels = [0.25, 0.5, 0.75, 1.0, NEVER]
    all_outcomes = [outcome({"stage1": one, "stage2": two}) for one, two in product(levels, levels)]
    assert outcome(found.thresholds) == pytest.approx((found.accuracy, found.cost))
    enough = [cost for accuracy, cost in all_outcomes if accuracy >= goal - 1e-9]
    best = max(accuracy for accuracy, _ in all_outcomes)
    if enough:
        assert found.accuracy >= goal - 1e-9
        assert found.cost == pytest.approx(min(enough))
    else:
        assert found.accuracy == pytest.approx(best)
        assert found.cost == pytest.approx(min(cost for accuracy, cost in all_outcomes if accuracy > best - 1e-9))
