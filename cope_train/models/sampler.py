"""Sampling whose noise belongs to the request, not to the batch.

Each row draws Gumbel noise from a Philox generator keyed by its completion's identity, and the largest perturbed
log-probability wins (the Gumbel-max trick). So a completion is the same text in any batch, order or process.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from transformers import (
    LogitsProcessor,
    LogitsProcessorList,
    RepetitionPenaltyLogitsProcessor,
    TemperatureLogitsWarper,
    TopKLogitsWarper,
    TopPLogitsWarper,
)

from cope_train.records import Sampling

Noise = np.random.Generator


def noise_of(key: str, sampling: Sampling) -> Noise | None:
    """The noise of the completion with this key (hex); a greedy one has none."""
    return None if sampling.greedy else np.random.Generator(np.random.Philox(key=int(key[:32], 16)))


@dataclass(frozen=True, slots=True)
class Choice:
    """One step of some rows: `scores` [rows, vocabulary] whose largest is the chosen token, `tokens` [rows], their
    untempered log-probability `logprobs`, and `margins`, the difference between the two largest probabilities."""

    scores: torch.Tensor
    tokens: torch.Tensor
    logprobs: torch.Tensor
    margins: torch.Tensor


class Sampler:
    """Chooses tokens under one set of sampling parameters."""

    def __init__(self, sampling: Sampling) -> None:
        self._warpers = _warpers(sampling)

    def choose(self, logits: torch.Tensor, said: torch.Tensor, noise: Sequence[Noise | None]) -> Choice:
        """`logits` [rows, vocabulary], `said` [rows, tokens] so far (for repetition penalties), each row's noise."""
        raw = torch.log_softmax(logits.float(), dim=-1)
        scores = self._warpers(said, logits.float())
        if noise[0] is not None:
            # Less the logarithm of an exponential variable is Gumbel noise. In double precision, since in single the
            # variable is exactly zero once in some million draws; and row by row, since a vectorised logarithm rounds
            # differently at the end of an array, which would be elsewhere in another batch.
            size = logits.shape[-1]
            drawn = np.stack([np.log(row.standard_exponential(size)) for row in noise])
            scores = scores - torch.from_numpy(drawn).to(scores.device, torch.float32)
        tokens = scores.argmax(-1)
        top = raw.topk(2, dim=-1).values.exp()
        logprobs = raw.gather(1, tokens[:, None]).squeeze(1)
        return Choice(scores, tokens, logprobs, top[:, 0] - top[:, 1])


class KeyedSampler(LogitsProcessor):
    """A `Sampler` for `generate(do_sample=False)`, which keeps the statistics of every step.

    After generation, `logprobs` and `margins` hold a tensor [rows, steps], as in `Choice`.
    """

    def __init__(self, keys: Sequence[str], sampling: Sampling, prompt: torch.Tensor, mask: torch.Tensor) -> None:
        """`keys`: completion keys (hex), one a row; `prompt`, `mask`: left-padded prompts [rows, length]."""
        self._sampler = Sampler(sampling)
        self._noise = [noise_of(key, sampling) for key in keys]
        # Padding must not count as a token that was said, or a repetition penalty would depend on the batch.
        self._padding = mask == 0 if sampling.repetition_penalty != 1 else None
        self._first = prompt.gather(1, mask.argmax(1, keepdim=True)) if self._padding is not None else None
        self._logprobs: list[torch.Tensor] = []
        self._margins: list[torch.Tensor] = []

    def __call__(self, input_ids: torch.LongTensor, scores: torch.FloatTensor) -> torch.FloatTensor:
        choice = self._sampler.choose(scores, self._said(input_ids), self._noise)
        self._logprobs.append(choice.logprobs)
        self._margins.append(choice.margins)
        return choice.scores

    def _said(self, input_ids: torch.LongTensor) -> torch.LongTensor:
        if self._padding is None:
            return input_ids
        head = input_ids[:, : self._padding.shape[1]]
        return torch.cat([torch.where(self._padding, self._first, head), input_ids[:, head.shape[1] :]], dim=1)

    @property
    def logprobs(self) -> torch.Tensor:
        """Untempered log-probability of each chosen token, [rows, steps]."""
        return torch.stack(self._logprobs, dim=1).cpu()

    @property
    def margins(self) -> torch.Tensor:
        """Difference between the two largest probabilities at each step, [rows, steps]."""
        return torch.stack(self._margins, dim=1).cpu()


def _warpers(sampling: Sampling) -> LogitsProcessorList:
    warpers = LogitsProcessorList()
    if sampling.repetition_penalty != 1:
        warpers.append(RepetitionPenaltyLogitsProcessor(sampling.repetition_penalty))
    if not sampling.greedy:
        warpers.append(TemperatureLogitsWarper(sampling.temperature))
        if sampling.top_k:
            warpers.append(TopKLogitsWarper(sampling.top_k))
        if sampling.top_p < 1:
            warpers.append(TopPLogitsWarper(sampling.top_p))
    return warpers
