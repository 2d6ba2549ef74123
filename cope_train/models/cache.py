"""A key-value cache that writes in place: transformers' own copies the whole past at every token."""

from __future__ import annotations

from typing import Any

import torch
from transformers import DynamicCache
from transformers.cache_utils import DynamicLayer

_SPARE = 64  # tokens of room that are allocated ahead


class RoomyLayer(DynamicLayer):
    """A full-attention layer whose `keys` and `values` [rows, heads, length, size] are views into larger tensors."""

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self._room: tuple[torch.Tensor, torch.Tensor] | None = None

    def update(
        self, key_states: torch.Tensor, value_states: torch.Tensor, *args: Any, **kwargs: Any
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Append new states [rows, heads, new, size]; returns all keys and values."""
        if not self.is_initialized:
            self.lazy_initialization(key_states, value_states)
        start = self.get_seq_length()
        end = start + key_states.shape[-2]
        if not self._has_room(end):
            self._room = (_larger(self.keys, key_states, end), _larger(self.values, value_states, end))
        for room, new in zip(self._room, (key_states, value_states), strict=True):
            room[:, :, start:end] = new
        self.keys, self.values = (room[:, :, :end] for room in self._room)
        return self.keys, self.values

    def _has_room(self, end: int) -> bool:
        # Selecting or cropping rows puts other tensors in the views' place.
        mine = self._room is not None and self.keys.data_ptr() == self._room[0].data_ptr()
        return mine and len(self.keys) == len(self._room[0]) and end <= self._room[0].shape[2]


def _larger(old: torch.Tensor, new: torch.Tensor, end: int) -> torch.Tensor:
    rows, heads, _, size = new.shape
    room = new.new_empty(rows, heads, end + _SPARE, size)
    if old.numel():
        room[:, :, : old.shape[-2]] = old
    return room


def new_cache(config: Any) -> DynamicCache:
    """An empty cache for a model; layers that are not plain full attention are transformers' own."""
    cache = DynamicCache(config=config)
    cache.layers = [RoomyLayer() if type(layer) is DynamicLayer else layer for layer in cache.layers]
    return cache
