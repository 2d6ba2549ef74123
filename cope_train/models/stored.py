"""A model as the rest of the house sees it: a backend behind the store and the ledger."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from decimal import Decimal
from itertools import islice

from cope_train.models.budget import Budget
from cope_train.models.flow import WINDOW, Flow
from cope_train.models.identity import completion_keys
from cope_train.models.ledger import Call
from cope_train.models.store import Said, Store
from cope_train.recipe.model_specs import Price
from cope_train.records import Backend, Completion, Failure, Outcome, Request

Progress = Callable[[str, int, int], None]
Note = Callable[[str, str], None]
_MILLION = Decimal(1_000_000)
_HOUR = Decimal(3600)
_SHOWN = 16  # progress moves by so many requests: telling of each would cost more than storing it


class StoredModel:
    """Asks the backend only for what the store does not hold, and enters every call in the ledger.

    `free` tells a model that runs here (unpriced means no cost) from one whose price is not known.
    """

    def __init__(
        self,
        backend: Backend,
        store: Store,
        price: Price | None,
        free: bool,
        progress: Progress | None = None,
        *,
        note: Note | None = None,
        budget: Budget | None = None,
        usd_per_hour: Decimal | None = None,
        wave: int | None = None,
    ) -> None:
        """`note` is told what a progress bar should say beside its figures; `wave` is the most that the backend is
        handed at once, for one that works through all it is given before it takes more."""
        self.name = backend.name
        self._backend = backend
        self._store = store
        self._price = price
        self._free = free
        self._progress = progress or (lambda name, done, total: None)
        self._note = note or (lambda name, text: None)
        self._budget = budget or Budget()
        self._usd_per_hour = usd_per_hour
        self._wave = wave

    def complete(self, requests: Sequence[Request]) -> list[tuple[Outcome, ...]]:
        """Answers in the order of `requests`; equal completions are asked for once, whoever wants them.

        Raises BudgetReached when the budget ended it before all were answered.
        """
        answers: list[tuple[Outcome, ...]] = [()] * len(requests)
        for position, _, outcomes in self._flow(requests, len(requests)):
            answers[position] = outcomes
        return answers

    def stream(
        self, requests: Iterable[Request], total: int | None = None
    ) -> Iterator[tuple[Request, tuple[Outcome, ...]]]:
        """Requests with their answers, in whatever order they come; holds some windows of them, never all.

        `total` is how many there will be, for the progress bar. Raises as `complete` does.
        """
        for _, request, outcomes in self._flow(requests, total):
            yield request, outcomes

    def read(self, requests: Iterable[Request]) -> Iterator[tuple[Request, tuple[Outcome, ...]]]:
        """Requests with what the store holds for them, in their order; what it lacks is a failure. Asks nobody."""
        source, lacking = iter(requests), Failure("not in the store")
        while window := list(islice(source, WINDOW)):
            keys = [completion_keys(self._backend.identity(request), request) for request in window]
            found = self._store.get(list({key for row in keys for key in row}))
            for request, row in zip(window, keys, strict=True):
                yield request, tuple(found.get(key, lacking) for key in row)

    def _flow(self, requests: Iterable[Request], total: int | None) -> Iterator[tuple[int, Request, tuple]]:
        flow = Flow(self._backend, self._store, requests, self._enter, self._budget, self._wave)
        for done, item in enumerate(flow, start=1):
            if done == 1 and total:
                self._progress(self.name, 0, total)
            if total and (done % _SHOWN == 0 or done >= total):
                self._note(self.name, self._told(item[1], total - done))
                self._progress(self.name, done, total)
            yield item

    def _told(self, request: Request, left: int) -> str:
        """Cost so far, cost to go, failures: what a person waits to know."""
        usd, failed = self._budget.so_far(self.name)
        mean = self._budget.mean(self.name, request.role)
        cost = f"{usd:.4f} USD" + (f", {mean * left:.4f} to go" if mean is not None and left else "") if usd else ""
        return ", ".join(part for part in (cost, f"{failed} failed" if failed else "") if part)

    def _enter(self, request: Request, keys: Sequence[str], outcomes: Sequence[Outcome]) -> int:
        said = [
            Said(key, index, outcome)
            for key, index, outcome in zip(keys, request.indices, outcomes, strict=False)
            if isinstance(outcome, Completion)
        ]
        failures = [outcome for outcome in outcomes if isinstance(outcome, Failure)]
        again = len(failures) == len(outcomes) and all(failure.again for failure in failures)
        first = said[0].completion if said else None
        tokens = _total(item.completion.completion_tokens for item in said)
        seconds = sum(item.completion.seconds or 0.0 for item in said)
        call = Call(
            *(self.name, request.role, request.problem_id, request.seed, len(keys), request.stage, self._budget.verb),
            prompt_tokens=first.prompt_tokens if first else None,
            cached_tokens=first.cached_tokens if first else None,
            completion_tokens=tokens if said else None,
            reasoning_tokens=_total(item.completion.reasoning_tokens for item in said) if said else None,
            seconds=seconds,
            usd=self._usd(first.prompt_tokens, first.cached_tokens, tokens) if first else None,
            compute_usd=None if self._usd_per_hour is None else self._usd_per_hour * Decimal(str(seconds)) / _HOUR,
            outcome="retried" if again else "failed" if not said else "answered",
            error=failures[0].message if failures else None,
        )
        self._budget.entered(call)
        return self._store.enter(call, said, () if again else keys)

    def _usd(self, prompt: int | None, cached: int | None, completion: int | None) -> Decimal | None:
        price = self._price
        if price is None:
            return Decimal(0) if self._free else None
        if prompt is None or completion is None:
            return None
        cheap = min(cached or 0, prompt) if price.cached_input is not None else 0
        cost = (prompt - cheap) * price.input + completion * price.output
        return (cost + cheap * price.cached_input if cheap else cost) / _MILLION


def _total(counts: Iterable[int | None]) -> int | None:
    counts = list(counts)
    return None if None in counts else sum(counts)
