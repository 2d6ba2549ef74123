"""A model as the rest of the house sees it: a backend behind the store and the ledger."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import replace
from decimal import Decimal

from cope_train.models.identity import completion_key
from cope_train.models.store import Call, Store
from cope_train.recipe.model_specs import Price
from cope_train.records import Backend, Completion, Failure, Outcome, Request

log = logging.getLogger(__name__)
Progress = Callable[[str, int, int], None]
_MILLION = Decimal(1_000_000)


class StoredModel:
    """Asks the backend only for what the store does not hold, and enters every call in the ledger.

    `free` tells a model that runs here (unpriced means no cost) from one whose price is not known.
    """

    def __init__(
        self, backend: Backend, store: Store, price: Price | None, free: bool, progress: Progress | None = None
    ) -> None:
        self.name = backend.name
        self._backend = backend
        self._store = store
        self._price = price
        self._free = free
        self._progress = progress or (lambda name, done, total: None)

    def complete(self, requests: Sequence[Request]) -> list[tuple[Outcome, ...]]:
        """Answers in the order of `requests`; equal completions are asked for once, whoever wants them."""
        keys = [self._keys(request) for request in requests]
        known: dict[str, Outcome] = dict(self._store.get([key for row in keys for key in row]))
        missing, missing_keys = self._missing(requests, keys, known)
        if missing:
            log.info("%s: %d requests, %d to be asked", self.name, len(requests), len(missing))
            known |= self._ask(missing, missing_keys)
        return [tuple(known[key] for key in row) for row in keys]

    def _keys(self, request: Request) -> list[str]:
        identity = self._backend.identity(request)
        return [completion_key(identity, request, index) for index in request.indices]

    def _missing(
        self, requests: Sequence[Request], keys: Sequence[list[str]], known: dict[str, Outcome]
    ) -> tuple[list[Request], list[list[str]]]:
        missing, missing_keys, asked = [], [], set(known)
        for request, row in zip(requests, keys, strict=True):
            wanted = {key: index for key, index in zip(row, request.indices, strict=True) if key not in asked}
            if wanted:
                asked |= set(wanted)
                missing.append(replace(request, indices=tuple(wanted.values())))
                missing_keys.append(list(wanted))
        return missing, missing_keys

    def _ask(self, missing: Sequence[Request], keys: Sequence[list[str]]) -> dict[str, Outcome]:
        self._progress(self.name, 0, len(missing))
        found: dict[str, Outcome] = {}
        # A request that took several calls comes in parts, in the order of its indices: each is a row of the ledger.
        waiting, done = list(keys), 0
        for position, outcomes in self._backend.generate(missing):
            row = waiting[position]
            entered = self._enter(missing[position], row[: len(outcomes)], outcomes)
            if all(isinstance(outcome, Failure) and outcome.again for outcome in outcomes):
                continue
            waiting[position] = row[len(outcomes) :]
            found |= entered
            done += not waiting[position]
            self._progress(self.name, done, len(missing))
        return found

    def _enter(self, request: Request, keys: list[str], outcomes: Sequence[Outcome]) -> dict[str, Outcome]:
        paired = dict(zip(keys, outcomes, strict=True))
        said = {key: outcome for key, outcome in paired.items() if isinstance(outcome, Completion)}
        errors = [outcome.message for outcome in outcomes if isinstance(outcome, Failure)]
        tokens = [completion.completion_tokens for completion in said.values()]
        prompt = next((completion.prompt_tokens for completion in said.values()), None)
        total = None if None in tokens or not said else sum(tokens)
        call = Call(
            *(self.name, request.role, request.problem_id, request.seed, len(keys)),
            prompt_tokens=prompt,
            completion_tokens=total,
            seconds=sum(completion.seconds or 0.0 for completion in said.values()),
            usd=self._usd(prompt, total) if said else None,
            error=errors[0] if errors else None,
        )
        self._store.put(call, said)
        return paired

    def _usd(self, prompt: int | None, completion: int | None) -> Decimal | None:
        if self._price is None:
            return Decimal(0) if self._free else None
        if prompt is None or completion is None:
            return None
        return (prompt * self._price.input + completion * self._price.output) / _MILLION
