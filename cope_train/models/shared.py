"""Keys and values of samples that share the beginning of their prompts, and attention that reads it once for all.

A *group* is some samples with a common prefix; a *cohort* is groups that entered together, so that their samples are
always equally far. Scores against a group's prefix are one product for all its samples, those against each sample's
own tokens another; both halves are joined by their maxima and sums, which is the softmax over the whole (as in
Hydragen, arXiv 2402.05099, section 3).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from transformers import AttentionInterface, DynamicCache

ATTENTION = "shared_prefix"
_SPARE = 64  # tokens of room that are allocated ahead
_NEVER = -1e30  # added to scores that may not count; finite, so that a row without any stays a number


@dataclass
class _Room:
    """Keys and values of one layer: of prefixes [groups, heads, prefix, size] and of rows [rows, heads, room, size]."""

    prefix: list[torch.Tensor]
    own: list[torch.Tensor] | None = None


class Cohort:
    """Cache of the rows of some groups. A row's tokens are: its group's prefix, its padded tail, what it said."""

    def __init__(self, prefixes: Sequence[int], tails: Sequence[Sequence[int]], device: torch.device) -> None:
        """`prefixes`: the length of each group's prefix; `tails`: the lengths of its rows' tails, each at least 1."""
        self.groups = len(prefixes)
        self.columns = max(1, *prefixes)
        lengths = torch.tensor(prefixes, device=device)
        self._hidden = torch.where(torch.arange(self.columns, device=device) < lengths[:, None], 0.0, _NEVER)
        flat = [length for group in tails for length in group]
        self.tail = max(flat)
        self.filled = 0  # columns of the rows' own tokens
        self._pads = self.tail - torch.tensor(flat, device=device)
        self._group_of = torch.tensor([g for g, group in enumerate(tails) for _ in group], device=device)
        self.layers: dict[int, _Room] = {}
        self._arrange()

    @property
    def rows(self) -> int:
        """Rows that are still here."""
        return len(self._group_of)

    def _arrange(self) -> None:
        """Where each row stands among its group's, [groups, most rows] and back; groups of equal size need none."""
        counts = torch.bincount(self._group_of, minlength=self.groups)
        most = int(counts.max())
        starts = counts.cumsum(0) - counts
        place = torch.arange(self.rows, device=counts.device) - starts[self._group_of]
        self.wide = most
        self._back = self._group_of * most + place
        self._even = bool((counts == most).all())
        self._order = torch.zeros(self.groups * most, dtype=torch.long, device=counts.device)
        self._order[self._back] = torch.arange(self.rows, device=counts.device)
        self._padded = bool((self._pads > 0).any())

    def put_prefix(self, layer: int, first: int, key: torch.Tensor, value: torch.Tensor) -> None:
        """Write the keys and values of some groups' prefixes, from group `first` on."""
        if layer not in self.layers:
            shape = (self.groups, key.shape[1], self.columns)
            self.layers[layer] = _Room([new.new_zeros(*shape, new.shape[3]) for new in (key, value)])
        for room, new in zip(self.layers[layer].prefix, (key, value), strict=True):
            room[first : first + len(new), :, : new.shape[2]] = new

    def put(self, layer: int, key: torch.Tensor, value: torch.Tensor) -> None:
        """Append keys and values [rows, heads, new, size] to the rows' own."""
        room, end = self.layers[layer], self.filled + key.shape[2]
        if room.own is None or end > room.own[0].shape[2]:
            old = room.own or [None, None]
            room.own = [self._larger(*pair, end) for pair in zip(old, (key, value), strict=True)]
        for own, new in zip(room.own, (key, value), strict=True):
            own[:, :, self.filled : end] = new

    def _larger(self, old: torch.Tensor | None, new: torch.Tensor, end: int) -> torch.Tensor:
        rows, heads, _, size = new.shape
        room = new.new_empty(rows, heads, end + _SPARE, size)
        if old is not None:
            room[:, :, : self.filled] = old[:, :, : self.filled]
        return room

    def keep(self, rows: torch.Tensor) -> None:
        """Let go of all rows but these (positions in order), and of groups that have none left."""
        groups, self._group_of = self._group_of[rows].unique_consecutive(return_inverse=True)
        for room in self.layers.values():
            if len(groups) < self.groups:
                room.prefix = [tensor[groups] for tensor in room.prefix]
            room.own = [tensor[rows] for tensor in room.own]
        self.groups, self._hidden, self._pads = len(groups), self._hidden[groups], self._pads[rows]
        self._arrange()

    def attend(self, layer: int, query: torch.Tensor, scaling: float) -> torch.Tensor:
        """Attention of the rows' newest tokens; query and result [rows, heads, new, size]."""
        room, (rows, heads, new, size) = self.layers[layer], query.shape
        key_heads, value_size = room.own[0].shape[1], room.own[1].shape[3]
        query = (query * scaling).reshape(rows, key_heads, heads // key_heads * new, size)
        key, value = (own[:, :, : self.filled + new] for own in room.own)
        mine = _parts(query, key, value, self._own_bias(new, heads // key_heads))
        theirs = _parts(self._by_group(query), *room.prefix, self._hidden[:, None, None])
        joined = _join(mine, [self._by_row(part, query.shape[2]) for part in theirs])
        return joined.to(query.dtype).reshape(rows, heads, new, value_size)

    def _own_bias(self, new: int, repeats: int) -> torch.Tensor | None:
        """What may not be seen of the rows' own columns: padding before the tail, and what comes later."""
        if new == 1 and not self._padded:
            return None
        columns = torch.arange(self.filled + new, device=self._pads.device)
        hidden = columns[None, None] < self._pads[:, None, None]
        if new > 1:
            hidden = hidden | (columns[None, None] > columns[None, self.filled :, None])
        bias = torch.where(hidden, _NEVER, 0.0)[:, None]
        return bias.repeat(1, 1, repeats, 1) if new > 1 else bias

    def _by_group(self, query: torch.Tensor) -> torch.Tensor:
        rows = query if self._even else query[self._order]
        _, heads, new, size = query.shape
        by_group = rows.view(self.groups, self.wide, heads, new, size).transpose(1, 2)
        return by_group.reshape(self.groups, heads, self.wide * new, size)

    def _by_row(self, part: torch.Tensor, new: int) -> torch.Tensor:
        groups, heads, _, size = part.shape
        rows = part.view(groups, heads, self.wide, new, size).transpose(1, 2).reshape(-1, heads, new, size)
        return rows if self._even else rows[self._back]


def _parts(
    query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, bias: torch.Tensor | None
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Weighted values, their weights' sum and the largest score, in float32, before the softmax's division."""
    scores = torch.matmul(query, key.transpose(2, 3)).float()
    if bias is not None:
        scores += bias
    most = scores.amax(-1, keepdim=True)
    weights = scores.sub_(most).exp_()
    return torch.matmul(weights.to(value.dtype), value).float(), weights.sum(-1, keepdim=True), most


def _join(one: Sequence[torch.Tensor], other: Sequence[torch.Tensor]) -> torch.Tensor:
    most = torch.maximum(one[2], other[2])
    shares = [(part[2] - most).exp() for part in (one, other)]
    total = one[1] * shares[0] + other[1] * shares[1]
    return (one[0] * shares[0] + other[0] * shares[1]) / total


class SharedCache(DynamicCache):
    """What a model is given as its cache: sends new keys and values to the cohorts, and attention back to them."""

    def __init__(self) -> None:
        super().__init__()
        self.cohorts: list[Cohort] = []
        self._filling: tuple[Cohort, int] | None = None

    def prefill(self, cohort: Cohort | None, first: int = 0) -> None:
        """From now on the model reads prefixes of this cohort's groups, from group `first` on; None: rows again."""
        self._filling = None if cohort is None else (cohort, first)

    def update(self, key_states: torch.Tensor, value_states: torch.Tensor, layer_idx: int, *_: Any, **__: Any):
        """Store a layer's new states; what attention gets instead of keys is this cache and the layer's number."""
        if self._filling:
            cohort, first = self._filling
            cohort.put_prefix(layer_idx, first, key_states, value_states)
            return _Layer(self, layer_idx, (key_states, value_states)), None
        sizes = [cohort.rows for cohort in self.cohorts]
        split = zip(self.cohorts, key_states.split(sizes), value_states.split(sizes), strict=True)
        for cohort, key, value in split:
            cohort.put(layer_idx, key, value)
        return _Layer(self, layer_idx), None

    def get_seq_length(self, layer_idx: int = 0) -> int:
        """Positions are always told; this is only asked for to guess them."""
        return 0


@dataclass
class _Layer:
    cache: SharedCache
    index: int
    prompt: tuple[torch.Tensor, torch.Tensor] | None = None


def _attention(
    module: torch.nn.Module,
    query: torch.Tensor,
    key: _Layer | torch.Tensor,
    value: torch.Tensor | None,
    attention_mask: None,
    **options: Any,
) -> tuple[torch.Tensor, None]:
    """transformers' interface of an attention function: query [rows, heads, new, size] -> [rows, new, heads, size].

    Without a `SharedCache` it is causal attention over rows of equal length.
    """
    scaling = options.get("scaling")
    scaling = query.shape[-1] ** -0.5 if scaling is None else scaling
    whole = key.prompt if isinstance(key, _Layer) else (key, value)
    if whole:
        grouped = query.shape[1] != whole[0].shape[1]
        found = torch.nn.functional.scaled_dot_product_attention(
            query, *whole, is_causal=query.shape[2] > 1, scale=scaling, enable_gqa=grouped
        )
    else:
        sizes = [cohort.rows for cohort in key.cache.cohorts]
        parts = zip(key.cache.cohorts, query.split(sizes), strict=True)
        found = torch.cat([cohort.attend(key.index, part, scaling) for cohort, part in parts])
    return found.transpose(1, 2), None


AttentionInterface.register(ATTENTION, _attention)
