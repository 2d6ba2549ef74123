"""Everything that answers a prompt, behind one store and one ledger."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from cope_train.models.budget import Budget
from cope_train.models.store import Store
from cope_train.models.stored import Note, Progress, StoredModel
from cope_train.recipe import prices
from cope_train.recipe.model_specs import ApiModel, LocalModel, RecordedModel
from cope_train.records import Backend

Spec = LocalModel | ApiModel | RecordedModel
_WAVE = 8192  # requests that a local model is handed at once: it sorts them by length before it begins


def backend(name: str, spec: Spec, adapters: Mapping[str, Path] | None = None) -> Backend:
    """The backend a recipe asks for. `adapters` (role -> folder) are trained ones, before those the recipe names."""
    if isinstance(spec, LocalModel):
        from cope_train.models.local import LocalBackend

        return LocalBackend(
            name, spec, {role: Path(path) for role, path in spec.adapters.items()} | dict(adapters or {})
        )
    if isinstance(spec, ApiModel):
        from cope_train.models.api import ApiBackend

        return ApiBackend(name, spec)
    from cope_train.models.recorded import RecordedBackend

    return RecordedBackend(name, spec)


class Models(Mapping[str, StoredModel]):
    """The models of a recipe, each made when it is first asked for."""

    def __init__(
        self,
        specs: Mapping[str, Spec],
        store: Store,
        adapters: Mapping[str, Mapping[str, Path]] | None = None,
        progress: Progress | None = None,
        note: Note | None = None,
        budget: Budget | None = None,
    ) -> None:
        """`adapters` maps a model's name to its trained adapters (role -> folder)."""
        self._specs = specs
        self._store = store
        self._adapters = adapters or {}
        self._progress, self._note = progress, note
        self._budget = budget or Budget()
        self._made: dict[str, StoredModel] = {}

    def __getitem__(self, name: str) -> StoredModel:
        if name not in self._made:
            spec = self._specs[name]
            local = isinstance(spec, LocalModel)
            price = prices.of(spec)
            self._made[name] = StoredModel(
                backend(name, spec, self._adapters.get(name)),
                self._store,
                price,
                local and price is None,
                self._progress,
                note=self._note,
                budget=self._budget if name in prices.bought(self._specs) else self._budget.free(),
                usd_per_hour=spec.usd_per_hour if local else None,
                wave=_WAVE if local else None,
            )
        return self._made[name]

    def __iter__(self):
        return iter(self._specs)

    def __len__(self) -> int:
        return len(self._specs)
