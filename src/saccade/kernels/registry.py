"""Fast roads: functions that compute a context quicker than the plain road, found by the triple before it is computed.

A road is keyed by the exact types of score, over and read and by the device, and chosen by metadata alone (dtypes,
shapes, whether gradients are needed), never by data. The plain road in `attend` is the oracle of every one.
"""

from collections.abc import Callable
from types import FunctionType
from typing import Any, NamedTuple

from torch import Tensor, nn


class Road(NamedTuple):
    """A fast road: `suits(query, keys, values, mask)` looks at metadata only, `run` of the same returns the context."""

    suits: Callable[[Tensor, Tensor, Any, Tensor | None], bool]
    run: Callable[[Tensor, Tensor, Any, Tensor | None], Tensor]


_ROADS: dict[tuple, Road] = {}


def register_road(score: Any, over: Any, read: Any, device: str, road: Road) -> None:
    """Makes the road known for a triple of functions or of classes on a type of device."""
    _ROADS[score, over, read, device] = road


def find_road(score: Any, over: Any, read: Any, query: Tensor, keys: Any, values: Any, mask: Tensor | None):
    """The `run` of the road that suits, or None for the plain road."""
    road = _ROADS.get((_key(score), _key(over), _key(read), query.device.type))
    return road.run if road is not None and road.suits(query, keys, values, mask) else None


def _key(part: Any) -> Any:
    """A function is its own key, any other part's is its exact type; a module that was hooked has none."""
    kind = type(part)
    if kind is FunctionType:
        return part
    if isinstance(part, nn.Module) and (part._forward_hooks or part._forward_pre_hooks or "forward" in vars(part)):
        return None
    return kind
