"""What a model must know of its data to be built again: kept with its weights, so that they are all that it needs."""

import json
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn


class Facts(nn.Module):
    """Names and numbers that JSON can hold, as a buffer of a model: `model.facts = Facts(classes=["cat", "dog"])`.

    Weights that were saved without them can still be loaded into a model that has them.

    >>> Facts(classes=["cat", "dog"]).values
    {'classes': ['cat', 'dog']}
    """

    json: Tensor

    def __init__(self, **values: Any):
        super().__init__()
        text = json.dumps(values, ensure_ascii=False).encode()
        self.register_buffer("json", torch.frombuffer(bytearray(text), dtype=torch.uint8))

    @property
    def values(self) -> dict[str, Any]:
        """What they are."""
        return _read(self.json)

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *rest: Any) -> None:
        state_dict.setdefault(f"{prefix}json", self.json)
        super()._load_from_state_dict(state_dict, prefix, *rest)


def read_facts(weights: Mapping[str, Tensor]) -> dict[str, Any]:
    """The facts that weights come with, of a model whose `facts` they are; none of a model that had none.

    Raises ValueError where they are damaged.

    >>> model = nn.ModuleDict({"facts": Facts(classes=["cat", "dog"])})
    >>> read_facts(model.state_dict()), read_facts({})
    ({'classes': ['cat', 'dog']}, {})
    """
    return _read(weights["facts.json"]) if "facts.json" in weights else {}


def _read(text: Tensor) -> dict[str, Any]:
    try:
        values = json.loads(bytes(text.tolist()))
    except ValueError as error:
        raise ValueError(f"what the weights say of their data is damaged: {error}") from error
    if not isinstance(values, dict):
        raise ValueError("what the weights say of their data is damaged: expected names and values")
    return values
