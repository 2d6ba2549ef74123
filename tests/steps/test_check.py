"""check's upper bounds: by hand, reached by a cascade in which nobody agrees, and never exceeded by a real run."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import closing
from decimal import Decimal
from itertools import count
from pathlib import Path
from typing import Any

import pytest

import cope_train.models
from cope_train.errors import UserError
from cope_train.models.store import Store
from cope_train.models.stored import StoredModel
from cope_train.recipe import Recipe, load
from cope_train.recipe.model_specs import Price
from cope_train.recipe.options import narrowed
from cope_train.records import Completion, Message, Request, Sampling
from cope_train.steps.bounds import Bound
from cope_train.steps.check import check
from cope_train.steps.collect import collect
from cope_train.steps.evaluate import evaluate
from cope_train.study import opened
from tests.fakes import FakeModel

TINY = Path(__file__).parent.parent.parent / "recipes/word_problems/tiny.yaml"
# A prompt is its 5-byte question and 100 tokens of template; a plan of n tokens may be 3n in another vocabulary.
BARE, GOAL, GUIDELINE = 105, 3 * 2, 3 * 3
RECIPE = """\
schema: 1
name: by-hand
task: math
seeds: [0]
data:
  train: {{source: {folder}/train.jsonl}}
  calibration: {{source: {folder}/calibration.jsonl}}
  test: {{source: {folder}/test.jsonl}}
models:
  small: {{backend: recorded, path: {folder}/test.jsonl, fields: &answer {{completion: answer}}}}
  large: {{backend: recorded, path: {folder}/test.jsonl, fields: *answer, price: {{input: 2, output: 10}}}}
prompts: {{goal: {folder}/plan.txt, guideline: {folder}/plan.txt, solution: {folder}/solution.txt}}
sampling: {{goal: {{max_tokens: 2}}, guideline: {{max_tokens: 3}}, solution: {{max_tokens: 5}}}}
cascade: {{calibrate: false}}
evaluate: {{strategies: [cope], adapters: [none]}}
"""


@pytest.fixture
def by_hand(tmp_path: Path) -> Callable[..., dict[str, Bound]]:
    """Bounds of a recipe with 3 problems to train on, 2 to calibrate on and 1 to test on."""
    for split, size in (("train", 3), ("calibration", 2), ("test", 1)):
        rows = [json.dumps({"question": f"{split[:3]} {i}", "answer": "\\boxed{1}"}) + "\n" for i in range(size)]
        (tmp_path / f"{split}.jsonl").write_text("".join(rows))
    (tmp_path / "plan.txt").write_text("{{ question }}")
    (tmp_path / "solution.txt").write_text("{{ question }}{{ goal }}{{ guideline }}")
    (tmp_path / "recipe.yaml").write_text(RECIPE.format(folder=tmp_path))

    def bounds(*changes: str) -> dict[str, Bound]:
        return check(load(tmp_path / "recipe.yaml", changes)).bounds

    return bounds


# For one problem: goals, eight solutions with one goal each, eight with goal and guideline; guideline and answer.
COPE_SMALL = (1 + 8 + 1, BARE + 8 * (BARE + GOAL) + BARE + GOAL + GUIDELINE, 8 * 2 + 8 * 5 + 8 * 5)
COPE_LARGE = (2, BARE + BARE + GUIDELINE, 3 + 5)
LARGE = (1, BARE, 5)


def total(*parts: tuple[int, ...]) -> Bound:
    return Bound(*map(sum, zip(*parts, strict=True)))


def test_one_call_by_hand(by_hand: Callable) -> None:
    found = by_hand("evaluate.strategies=[large]")
    assert found == {"small": Bound(), "large": Bound(*LARGE)}
    assert found["large"].usd(Price(input=2, output=10)) == Decimal("0.00026")  # 105 x 2 + 5 x 10, per million


def test_the_cascade_by_hand(by_hand: Callable) -> None:
    assert by_hand() == {"small": total(COPE_SMALL), "large": total(COPE_LARGE)}


def test_calibration_runs_full_trees_and_the_large_model(by_hand: Callable) -> None:
    found = by_hand("cascade.calibrate=true")
    assert found == {"small": total(*[COPE_SMALL] * 3), "large": total(*[COPE_LARGE] * 3, LARGE, LARGE)}
    no_cascade = by_hand("cascade.calibrate=true", "evaluate.strategies=[large]")
    assert no_cascade["large"] == total(LARGE)


def test_collecting_by_hand(by_hand: Callable) -> None:
    found = by_hand("evaluate.strategies=[large]", "plans.kinds=[goal]", "plans.samples=2", "plans.keep.samples=4")
    written, tried = (1, BARE, 2 * 2), (1, BARE + GOAL, 4 * 5)
    assert found == {"small": total(*[tried] * 6), "large": total(*[written] * 3, LARGE)}


def test_adapters_count_where_they_are_active(by_hand: Callable) -> None:
    local = "models.small={backend: local, path: lab/small}"  # only such a model can be trained
    changes = (
        local,
        "train.base=small",
        "train.planner.epochs=1",
        "train.executor.epochs=1",
        "cascade.early_stop=false",
    )
    one, two = by_hand("evaluate.adapters=[none, planner]", *changes), by_hand(*changes, "evaluate.adapters=[none]")
    assert two == by_hand()
    assert one == {"small": total(COPE_SMALL, COPE_SMALL), "large": total(COPE_LARGE)}  # the guideline is the same
    # With executors, goals are shared by none and executor, and by planner and both.
    all_four = by_hand("evaluate.adapters=[none, planner, executor, both]", *changes)
    assert all_four["small"].calls == 4 * 10 - 2
    # Named adapters are no more than those that are meant anyway.
    assert by_hand("evaluate.adapters=[none]", "evaluate.strategies=[cope, cope@planner]", *changes) == one
    # An adapter that nobody trains is not evaluated.
    assert by_hand("evaluate.adapters=[none, planner]") == two


def test_a_vote_in_turns_sends_its_prompts_again(by_hand: Callable) -> None:
    """Goals, and solutions under one guideline, one sample a call at worst; each goal makes a prompt of its own."""
    found = by_hand("models.small={backend: local, path: lab/small}")["small"]
    assert found.calls == 8 + 8 + 8
    assert found.prompt_tokens == 8 * BARE + 8 * (BARE + GOAL) + 8 * (BARE + GOAL + GUIDELINE)
    assert found.completion_tokens == COPE_SMALL[2]


def test_what_strategies_share_is_counted_once(by_hand: Callable) -> None:
    assert by_hand("evaluate.strategies=[cope, large-plan]") == by_hand()
    found = by_hand("evaluate.strategies=[cascade-no-plan, large, small-majority]")
    assert found == {"small": Bound(1, BARE, 8 * 5), "large": Bound(*LARGE)}
    # One goal and eight goals are two calls, whichever comes first.
    assert by_hand("evaluate.strategies=[cope, small-goal]")["small"].calls == 10 + 2


def test_seeds_count_for_what_is_sampled(by_hand: Callable) -> None:
    found = by_hand("seeds=[0, 1, 2]", "evaluate.strategies=[cope, large]")
    assert found == {"small": total(*[COPE_SMALL] * 3), "large": total(*[COPE_LARGE] * 3, LARGE)}
    one = by_hand("plans.kinds=[goal]", "evaluate.strategies=[large]")
    assert (
        by_hand("plans.kinds=[goal]", "evaluate.strategies=[large]", "seeds=[0, 1]") == one
    )  # collects with the first


def test_what_is_told(by_hand: Callable, tmp_path: Path) -> None:
    by_hand()
    found = check(load(tmp_path / "recipe.yaml", ["evaluate.strategies=[large]"]))
    assert found.missing == []
    # The question is five bytes, which is a token; of five tokens a quarter is taken to be said.
    assert found.plan[-1] == (
        "evaluate, large: 1 calls, 1 to 105 prompt tokens and 1 to 5 completion tokens: 0.00 to 0.00 USD"
    )
    assert "test: 1 problems of" in "\n".join(found.plan)


def test_the_low_estimate_by_hand(by_hand: Callable, tmp_path: Path) -> None:
    by_hand()
    longer = [f"sampling.{role}.max_tokens={tokens}" for role, tokens in (("goal", 40), ("solution", 80))]
    recipe = load(tmp_path / "recipe.yaml", [*longer, "evaluate.strategies=[cope]"])
    found = check(recipe, tmp_path / "run").estimates["evaluate"]
    # The first gate accepts: eight goals of 10 tokens for one prompt of 5 bytes, eight solutions with one goal each.
    assert found["small"].low == Bound(9, 5 // 4 + 8 * ((5 + 4 * 10) // 4), 8 * 10 + 8 * 20)
    assert found["large"].low == Bound()
    with closing(Store(tmp_path / "run" / "store.sqlite", "some run")) as store:
        StoredModel(FakeModel("small", lambda r, i: Completion("x", "stop", 9, 30 + i)), store, None, True).complete(
            [Request("p", "goal", (Message("user", "q"),), Sampling(temperature=1.0), (0, 2))]
        )
    known = check(recipe, tmp_path / "run").estimates["evaluate"]  # goals are of 31 tokens, it now says
    assert known["small"].low == Bound(9, 5 // 4 + 8 * ((5 + 4 * 31) // 4), 8 * 31 + 8 * 20)
    assert known["small"].high == found["small"].high
    assert (
        check(recipe.model_copy(update={"store": str(tmp_path / "run" / "store.sqlite")})).estimates["evaluate"]
        == known
    )


def test_estimates_are_of_each_verb(by_hand: Callable, tmp_path: Path) -> None:
    by_hand()
    found = check(load(tmp_path / "recipe.yaml", ["plans.kinds=[goal]", "cascade.calibrate=true"])).estimates
    assert {verb: models["large"].high.calls for verb, models in found.items()} == {"collect": 3, "evaluate": 2 * 3 + 2}
    assert {verb: models["large"].low.calls for verb, models in found.items()} == {"collect": 3, "evaluate": 2 * 2 + 2}


def test_a_budget_in_usd_needs_every_price(by_hand: Callable, tmp_path: Path) -> None:
    by_hand()
    bought = "models.large={backend: api, model: own-model, base_url: http://127.0.0.1:9/v1, api_key_env: HOME}"
    found = check(load(tmp_path / "recipe.yaml", [bought, "budget.calls=10", "budget.collect.calls=3"]))
    assert found.plan[-2:] == ["budget of the run: 10 calls", "budget of collect: 3 calls"]
    assert "models.large.price: genai-prices does not know own-model" in "\n".join(found.plan)
    for budget in ("budget.usd=1", "budget.evaluate.usd=0.5"):
        with pytest.raises(UserError, match=r"models\.large\.price: .*a budget in USD needs it"):
            check(load(tmp_path / "recipe.yaml", [bought, budget]))
    assert check(load(tmp_path / "recipe.yaml", [bought, "budget.usd=1", "models.large.price={input: 1, output: 2}"]))


def test_a_split_of_unknown_size_is_said_to_be_left_out(by_hand: Callable) -> None:
    away = ("data.test.source=nobody/nothing", "data.calibration.source=nobody/nothing", "data.calibration.limit=7")
    found = by_hand("cascade.calibrate=true", *away)
    assert found["large"].calls == 7 * 3  # calibration has a limit, the test split has none


def test_what_is_wrong_wherever_it_runs(by_hand: Callable, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="cope@planner needs adapters"):
        by_hand("evaluate.strategies=[cope@planner]")
    with pytest.raises(UserError, match=r"prompt for goal: cannot read .*nowhere\.txt"):
        by_hand(f"prompts.goal={tmp_path}/nowhere.txt")


class Contrary(FakeModel):
    """Never says the same twice, and can tell its adapters apart."""

    def identity(self, request: Request) -> dict[str, Any]:
        return super().identity(request) | {"adapter": request.adapter}


def contrary(name: str) -> Contrary:
    numbers = count(1000)
    return Contrary(
        name, lambda r, i: f"\\boxed{{{next(numbers)}}}" if r.role == "solution" else f"plan_{next(numbers)}"
    )


def spent(path: Path) -> dict[str, dict[str, Any]]:
    """The ledger's totals by model."""
    store = Store(path / "store.sqlite")
    calls = list(store.calls())
    store.close()
    assert not any(call.error for call in calls)
    rows = {name: [call for call in calls if call.model == name] for name in ("small", "large")}
    return {
        name: {
            "calls": len(row),
            "prompt_tokens": sum(call.prompt_tokens for call in row),
            "completion_tokens": sum(call.completion_tokens for call in row),
            "usd": sum((call.usd for call in row), Decimal(0)),
        }
        for name, row in rows.items()
    }


def test_a_run_in_which_nobody_agrees_reaches_the_bound(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    strategies = "evaluate.strategies=[small-goal, cope, cascade-no-plan, large, large-plan]"
    recipe = narrowed(load(TINY, [strategies, "cascade.early_stop=false"]), 3)
    recipe = Recipe.model_validate(recipe.model_dump(by_alias=True) | {"seeds": [0, 1]})
    monkeypatch.setattr(cope_train.models, "backend", lambda name, spec, adapters=None: contrary(name))
    with opened(recipe, tmp_path) as study:
        collect(study)
        for role in ("planner", "executor"):
            study.run.adapter(role).mkdir(parents=True)
            (study.run.adapter(role) / "adapter_config.json").write_text("{}")
            (study.run.adapter(role) / "adapter_model.safetensors").write_bytes(role.encode())
        evaluate(study)
    monkeypatch.undo()
    bounds = check(recipe).bounds
    assert {name: row["calls"] for name, row in spent(tmp_path).items()} == {
        name: bound.calls for name, bound in bounds.items()
    }


@pytest.fixture
def one_thread() -> Iterator[None]:
    """Threads that wait for each other make tiny models slow on a busy machine."""
    import torch

    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.mark.usefixtures("one_thread")
def test_a_run_of_the_lab_stays_within_the_bound(tmp_path: Path) -> None:
    short = [
        f"sampling.{role}.max_tokens={tokens}" for role, tokens in (("goal", 32), ("guideline", 40), ("solution", 16))
    ]
    recipe = narrowed(load(TINY, [*short, "cascade.thresholds={stage1: 0.9, stage2: 0.9}"]), 4)
    assert recipe.cascade.calibrate
    recipe = recipe.model_copy(update={"train": None})
    with opened(recipe, tmp_path) as study:
        collect(study)
        evaluate(study)
    bounds = check(recipe).bounds
    for name, row in spent(tmp_path).items():
        bound = bounds[name]
        assert 0 < row["calls"] <= bound.calls
        assert 0 < row["prompt_tokens"] <= bound.prompt_tokens
        assert 0 < row["completion_tokens"] <= bound.completion_tokens
    assert 0 < spent(tmp_path)["large"]["usd"] <= bounds["large"].usd(recipe.models["large"].price)
