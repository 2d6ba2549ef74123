"""The loader: every error at once, each with its place in the user's words; what loads is what was written."""

from __future__ import annotations

from decimal import Decimal
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cope_train.errors import UserError
from cope_train.recipe import RecipeError, dump, load, shipped, yaml_text
from cope_train.recipe.options import narrowed

ROOT = Path(__file__).parent.parent.parent
RECIPES = sorted((ROOT / "recipes").rglob("*.yaml"))
TINY = ROOT / "recipes/word_problems/tiny.yaml"


def errors(path: Path, *overrides: str) -> list[str]:
    with pytest.raises(RecipeError) as caught:
        load(path, overrides)
    return str(caught.value).splitlines()


def changed(tmp_path: Path, *changes: tuple[str, str]) -> Path:
    text = TINY.read_text()
    for old, new in changes:
        assert old in text
        text = text.replace(old, new, 1)
    path = tmp_path / "r.yaml"
    path.write_text(text)
    return path


def line_of(path: Path, text: str) -> int:
    return next(i for i, line in enumerate(path.read_text().splitlines(), start=1) if text in line)


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: path.stem)
def test_every_shipped_recipe_loads_and_dumps_to_itself(path: Path, tmp_path: Path) -> None:
    recipe = load(path)
    (tmp_path / "again.yaml").write_text(dump(recipe))
    assert load(tmp_path / "again.yaml") == recipe


def test_every_shipped_recipe_has_a_header() -> None:
    found = shipped()
    assert len(found) == len(RECIPES)
    for recipe in found:
        assert recipe.shows and recipe.needs and recipe.cost
        assert recipe.run.startswith("cope-train ")


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("epochs: 4", "epoch: 4", "train.planner.epoch: unknown key; did you mean epochs?"),
        ("name: word", "nam: word", "nam: unknown key; did you mean name?"),
        ("path: lab/small", "pth: lab/small", "models.small.pth: unknown key; did you mean path?"),
        ("rank: 16", "rank: sixteen", "train.planner.lora.rank: must be a whole number, not 'sixteen'"),
        ("rank: 16", "rank: 0", "train.planner.lora.rank: must be at least 1, is 0"),
        ("rank: 16", "rank: true", "train.planner.lora.rank: must be a whole number, not True"),
        (
            "learning_rate: 1.0e-3",
            "learning_rate: -1e-3",
            "train.planner.learning_rate: must be more than 0.0, is -0.001",
        ),
        ("backend: local", "backend: locl", "models.small: must be one of local, api, recorded, not 'locl'"),
        ("backend: local, ", "", "models.small: missing key `backend`: one of local, api, recorded"),
        ("strategy: cope", "strategy: coep", "cascade.strategy: unknown name 'coep'; did you mean cope?"),
        ("thresholds: paper", "thresholds: {stage1: -0.1}", "cascade.thresholds.stage1: must be at least 0.0, is -0.1"),
        ("thresholds: paper", "thresholds: {stage3: 0.1}", "cascade.thresholds.stage3: unknown name 'stage3'"),
        ("executor: small", "executor: smal", "plans.keep.executor: unknown name 'smal'; did you mean small?"),
        ("kinds: [goal, guideline]", "kinds: [goal, gideline]", "plans.kinds.1: must be one of goal, guideline"),
        ("task: word_problems", "task: wordproblems", "task: must be one of word_problems, math, not 'wordproblems'"),
        ("margin: 0.02", "margin: 0.02\n  margin: 0.03", "evaluate.margin: key stands twice, first on line"),
        ("both]", "all]", "evaluate.adapters.3: must be one of none, planner, executor, both, not 'all'"),
    ],
)
def test_an_error_names_file_line_and_key(tmp_path: Path, old: str, new: str, message: str) -> None:
    path = changed(tmp_path, (old, new))
    line = line_of(path, new.splitlines()[-1] if new else "small: {")
    found = [error for error in errors(path) if "missing: this key is required" not in error]  # the key so misspelt
    assert len(found) == 1
    assert found[0].startswith(f"{path}:{line}: {message}")


def test_a_missing_key_is_said_at_its_section(tmp_path: Path) -> None:
    assert errors(changed(tmp_path, ("name: word-problems-tiny\n", "")))[0].endswith(
        "name: missing: this key is required"
    )


def test_all_errors_come_together_from_file_and_command_line(tmp_path: Path) -> None:
    path = changed(
        tmp_path, ("epochs: 4", "epoch: 4"), ("margin: 0.02", "margin: x"), ("seeds: [0]", "seeds: [0]\nseeds: [1]")
    )
    found = errors(path, "plans.samples=none", "oops", "train.planner.lora.rnk=3", "cascade.strategy=cop")
    assert len(found) == 7
    assert sum(line.startswith(f"{path}:") for line in found) == 3
    assert "override train.planner.lora.rnk=3: train.planner.lora.rnk: unknown key; did you mean rank?" in found


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a: [1, 2", "not valid YAML"),
        ("", "a recipe is a mapping"),
        ("- 1\n- 2", "a recipe is a mapping"),
        ("a: b: c", ":1: not valid YAML"),
        ("a: *nobody", "not valid YAML"),
    ],
)
def test_what_is_no_recipe_at_all(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "r.yaml"
    path.write_text(text)
    assert message in errors(path)[0]


def test_a_missing_file_names_its_neighbours(tmp_path: Path) -> None:
    (tmp_path / "near.yaml").touch()
    assert "near.yaml" in errors(tmp_path / "far.yaml")[0]
    (tmp_path / "bytes.yaml").write_bytes(b"\xff\xfe\x00")
    assert "cannot be read" in errors(tmp_path / "bytes.yaml")[0]


def test_overrides_reach_every_depth() -> None:
    words = ["train.planner.learning_rate=1e-4", "seeds=[0, 1]", "data.test.limit=7", "cascade.thresholds.stage1=0.5"]
    recipe = load(
        TINY, [*words, "evaluate.strategies.3=cope@both", "tracking.wandb=offline", "models.large.price.input=0.2"]
    )
    assert recipe.train.planner.learning_rate == 1e-4
    assert recipe.seeds == [0, 1]
    assert recipe.data.test.limit == 7
    assert recipe.cascade.thresholds == {"stage1": 0.5}
    assert recipe.evaluate.strategies[3] == "cope@both"
    assert recipe.tracking.wandb == "offline"
    assert recipe.models["large"].price.input == Decimal("0.2")


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("data.train=null", "data.train: missing: plans are collected on it"),
        ("train={base: large}", "train: trains nothing"),
        ("models.small={backend: recorded, path: x}", "train.base: small is recorded; only a local model can be"),
        ("models={small: {backend: local, path: lab/small}}", "large needs a model called large"),
        ("evaluate.strategies=[large, random-escalation]", "small-single is missing"),
        ("evaluate.strategies=[large, random-escalation]", "needs cope for its share"),
        ("seeds=[0, 0]", "seeds: must differ from each other, are [0, 0]"),
        ("data.test=null", "data.test: must be a section with keys"),
    ],
)
def test_parts_that_do_not_fit_together(override: str, message: str) -> None:
    assert any(message in line for line in errors(TINY, override)), errors(TINY, override)


@pytest.mark.parametrize("override", ["word", "=3", "name.first=x", "seeds.9=1", "seeds=[", "seeds.x=1"])
def test_overrides_that_make_no_sense(override: str) -> None:
    assert override in errors(TINY, override)[0]


def test_options_narrow_a_recipe() -> None:
    recipe = narrowed(load(TINY), limit=50, seed=3, only="planner")
    assert {split.limit for split in (recipe.data.train, recipe.data.calibration, recipe.data.test)} == {50}
    assert recipe.seeds == [3]
    assert (recipe.train.planner.seed, recipe.train.executor) == (3, None)
    assert recipe.evaluate.adapters == ["none", "planner"]
    with pytest.raises(UserError, match="does not train one"):
        narrowed(load(ROOT / "recipes/gsm8k/recorded.yaml"), only="executor")


@given(st.floats(allow_nan=False, allow_infinity=False))
def test_every_way_to_write_a_number_is_read_as_one(number: float) -> None:
    for text in (repr(number), f"{number:e}"):
        assert yaml_text.scalar(text) == float(text)


@pytest.mark.parametrize(
    ("text", "value"),
    [("5e-4", 5e-4), ("1.", 1.0), (".5", 0.5), ("no", "no"), ("on", "on"), ("true", True), ("null", None), ("", None)],
)
def test_words_and_numbers_are_those_of_yaml_1_2(text: str, value: object) -> None:
    assert yaml_text.scalar(text) == value
