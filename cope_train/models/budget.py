"""Budgets: how much a run, and a verb of it, may spend; counted from the ledger, so that a resumed run counts on."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Collection, Iterable
from dataclasses import dataclass, field
from decimal import Decimal

from cope_train.errors import BudgetReached, UserError
from cope_train.models.ledger import Call
from cope_train.recipe.schema import Limits


@dataclass
class _Cap:
    where: str
    limits: Limits
    calls: int = 0
    usd: Decimal = Decimal(0)

    def reached(self, calls: int, usd: Decimal) -> bool:
        """True when nothing more may be sent while `calls` at about `usd` are under way."""
        of_calls, of_usd = self.limits.calls, self.limits.usd
        return (of_calls is not None and self.calls + calls >= of_calls) or (
            of_usd is not None and self.usd + usd >= of_usd
        )

    def told(self) -> str:
        """What is spent, and of how much."""
        parts = []
        if self.limits.usd is not None:
            parts.append(f"{self.usd:.6f} of {self.limits.usd} USD")
        if self.limits.calls is not None:
            parts.append(f"{self.calls:,} of {self.limits.calls:,} calls")
        return f"{' and '.join(parts)} ({self.where})"


@dataclass
class _Kind:
    """What calls of one model and role have cost so far."""

    priced: int = 0
    usd: Decimal = field(default_factory=Decimal)

    @property
    def mean(self) -> Decimal | None:
        return self.usd / self.priced if self.priced else None


class Budget:
    """Counts calls against the caps of a run and of one verb. Threads may ask it.

    Calls under way count as made, at the mean price of those before them, so that a cap of calls is never passed, and
    one of USD by no more than what was under way when it was reached.
    """

    def __init__(
        self, caps: Iterable[tuple[str, Limits]] = (), verb: str | None = None, bought: Collection[str] = ()
    ) -> None:
        """`caps` are limits with the recipe's name for them; those but the first are of `verb` alone.

        `bought` names the models whose calls count; one that does not tell what it used ends a budget in USD.
        """
        self.verb = verb
        self._caps = [_Cap(where, limits) for where, limits in caps]
        self._bought = bought
        self._in_usd = any(cap.limits.usd is not None for cap in self._caps)
        self._blind = ""
        self._lock = threading.Lock()
        self._under_way = 0
        self._reached: _Cap | None = None
        self._kinds: dict[tuple[str, str], _Kind] = {}
        self._total = _Kind()
        self._failed: Counter[str] = Counter()

    def free(self) -> Budget:
        """The budget of a model that costs nothing: it may go on when the others may not."""
        return Budget((), self.verb)

    def load(self, calls: Iterable[Call]) -> None:
        """Count what the run has spent before."""
        for call in calls:
            self._count(call)

    def go_on(self) -> bool:
        """True when one more call may be sent; a yes counts as a call under way until it is entered."""
        with self._lock:
            usd = self._under_way * self._total.usd / max(1, self._total.priced)
            for cap in self._caps:
                if self._reached is None and cap.reached(self._under_way, usd):
                    self._reached = cap
            if not self.reached:
                self._under_way += 1
            return not self.reached

    @property
    def reached(self) -> bool:
        """True from the moment that `go_on` said no."""
        return self._reached is not None or bool(self._blind)

    def entered(self, call: Call) -> None:
        """Count a call that came back."""
        with self._lock:
            self._under_way = max(0, self._under_way - 1)
            self._count(call)

    def landed(self) -> None:
        """Nothing is under way any more."""
        with self._lock:
            self._under_way = 0

    def mean(self, model: str, role: str) -> Decimal | None:
        """Mean price of a call so far; None when none was priced."""
        kind = self._kinds.get((model, role))
        return kind.mean if kind else None

    def so_far(self, model: str) -> tuple[Decimal, int]:
        """USD spent on a model by the run, and calls of it that failed."""
        usd = sum((kind.usd for (name, _), kind in self._kinds.items() if name == model), Decimal(0))
        return usd, self._failed[model]

    def error(self, model: str, role: str, left: int) -> UserError:
        """What to tell the user who has `left` requests unanswered."""
        if self._blind:
            return UserError(
                f"budget: the server of {self._blind} does not tell how many tokens a call used, so a budget in USD "
                "cannot be kept; limit budget.calls instead. Everything that came back is stored"
            )
        mean = self.mean(model, role)
        cost = "of unknown cost" if mean is None else f"about {mean * left:.6f} USD at the mean price of calls so far"
        told = self._reached.told() if self._reached else "nothing was"
        return BudgetReached(
            f"the budget is reached: {told} spent. {left:,} requests of this step ({role}s by {model}) are unanswered, "
            f"{cost}; steps after it come on top. Everything that came back is stored: the same command with a higher "
            "budget goes on from here"
        )

    def _count(self, call: Call) -> None:
        kind = self._kinds.setdefault((call.model, call.role), _Kind())
        self._failed[call.model] += call.error is not None
        if call.usd is not None:
            for total in (kind, self._total) if call.model in self._bought else (kind,):
                total.priced += 1
                total.usd += call.usd
        elif call.outcome == "answered" and self._in_usd and call.model in self._bought:
            self._blind = call.model
        for place, cap in enumerate(self._caps):
            if call.model in self._bought and (place == 0 or call.verb == self.verb):
                cap.calls += 1
                cap.usd += call.usd or 0
