"""Samples that are decoded in step: their place in the cache, their noise, what they have said, and who has ended."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from cope_train.models.grouping import Group, Row
from cope_train.models.sampler import Choice, noise_of
from cope_train.models.shared import Cohort
from cope_train.records import Sampling


@dataclass(frozen=True, slots=True)
class Said:
    """What became of a row: its tokens (with the one that ended it), and for each token its untempered log-probability
    and the difference between the two largest probabilities. `seconds`: its share of the wall time."""

    row: Row
    tokens: list[int]
    logprobs: list[float]
    margins: list[float]
    seconds: float


class Wave:
    """Rows of some groups that entered together."""

    def __init__(self, found: Sequence[Group], sampling: Sampling, device: torch.device) -> None:
        self.rows = [row for group in found for row in group.rows]
        self._shared = [group.shared for group in found for _ in group.rows]
        tails = [[len(row.prompt) - group.shared for row in group.rows] for group in found]
        self.cohort = Cohort([group.shared for group in found], tails, device)
        self.noise = [noise_of(row.key, sampling) for row in self.rows]
        self.ended = [False] * len(self.rows)
        self.step, self.seconds = 0, 0.0
        self.starts = torch.tensor([len(row.prompt) for row in self.rows], device=device)[:, None]
        shape = len(self.rows), sampling.max_tokens
        self.tokens = torch.zeros(shape, dtype=torch.long, device=device)
        self.facts = torch.zeros(*shape, 2, device=device)
        prompts = [row.prompt for row in self.rows] if sampling.repetition_penalty != 1 else []
        longest = max(map(len, prompts), default=0)
        # Padded with a token that was said, or a repetition penalty would depend on the batch.
        self.prompts = torch.tensor([[p[0]] * (longest - len(p)) + list(p) for p in prompts], device=device)

    def said(self) -> torch.Tensor:
        """Prompts, where a penalty asks for them, and what was said since, [rows, tokens]."""
        new = self.tokens[:, : self.step]
        return torch.cat([self.prompts, new], dim=1) if len(self.prompts) else new

    def last(self) -> tuple[torch.Tensor, torch.Tensor]:
        """The newest tokens and their positions, [rows, 1] each."""
        return self.tokens[:, self.step - 1 : self.step], self.starts + self.step - 1

    def tails(self) -> tuple[torch.Tensor, torch.Tensor]:
        """Each row's own end of its prompt, padded on the left, and the positions, [rows, tail] each."""
        width, device = self.cohort.tail, self.tokens.device
        own = [row.prompt[shared:] for row, shared in zip(self.rows, self._shared, strict=True)]
        ids = torch.tensor([[0] * (width - len(part)) + list(part) for part in own], device=device)
        return ids, (self.starts - width + torch.arange(width, device=device)).clamp(min=0)

    def add(self, choice: Choice) -> None:
        """Write down what was chosen."""
        self.tokens[:, self.step] = choice.tokens
        self.facts[:, self.step, 0], self.facts[:, self.step, 1] = choice.logprobs, choice.margins
        self.step += 1

    @property
    def reserved(self) -> int:
        """Tokens that its keys and values take at most."""
        cohort = self.cohort
        return cohort.groups * cohort.columns + cohort.rows * (cohort.tail + self.tokens.shape[1])

    def keep(self) -> None:
        """Let the rows that have ended go."""
        left = [i for i, ended in enumerate(self.ended) if not ended]
        rows = torch.tensor(left, dtype=torch.long, device=self.tokens.device)
        if left:
            self.cohort.keep(rows)
        self.rows, self.noise = [self.rows[i] for i in left], [self.noise[i] for i in left]
        self.ended = [False] * len(left)
        self.starts, self.tokens, self.facts = self.starts[rows], self.tokens[rows], self.facts[rows]
        self.prompts = self.prompts[rows] if len(self.prompts) else self.prompts
