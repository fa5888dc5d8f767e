"""Fast roads: functions that compute what parts do quicker than the plain road, found before anything is computed.

A road is keyed by the exact types of its parts, a triple of score, over and read or one part alone, and by the device,
and chosen by metadata alone (dtypes, shapes, whether gradients are needed), never by data. The plain road, the parts
themselves, is the oracle of every one.
"""

from collections.abc import Callable
from functools import partial
from types import FunctionType
from typing import Any, NamedTuple

import torch
from torch import nn
from torch._C._functorch import maybe_current_level
from torch.autograd import forward_ad


class Road(NamedTuple):
    """A fast road: `suits(*parts, *given)` looks at metadata only, `run` of the same computes what the parts would.

    `exports` where torch.export takes it too: its plain road is a gradient, which it cannot trace.
    """

    suits: Callable[..., bool]
    run: Callable[..., Any]
    exports: bool = False


_ROADS: dict[tuple, Road] = {}


def register_road(parts: tuple, device: str, road: Road) -> None:
    """Makes the road known for parts, functions or classes, on a type of device."""
    _ROADS[*parts, device] = road


def find_road(parts: tuple, *given: Any) -> Callable[..., Any] | None:
    """The `run` of the road that suits what is given, a tensor first, with the parts filled in; None for the plain
    road, which is always taken where anomalies are detected, for it can say where they are, and by torch.export, whose
    programs run where our kernels may not be."""
    if not torch.compiler.is_compiling() and torch.is_anomaly_enabled():
        return None
    road = _ROADS.get((*map(_key, parts), given[0].device.type))
    if road is None or (torch.compiler.is_exporting() and not road.exports):
        return None
    return partial(road.run, *parts) if road.suits(*parts, *given) else None


def _key(part: Any) -> Any:
    """A function is its own key, any other part's is its exact type; a module that was hooked has none."""
    return part if type(part) is FunctionType else None if is_hooked(part) else type(part)


def is_hooked(part: Any) -> bool:
    """Whether calling the part is more than its class says."""
    if not isinstance(part, nn.Module):
        return False
    hooks = part._forward_hooks, part._forward_pre_hooks, part._backward_hooks, part._backward_pre_hooks
    return any(hooks) or any(name in vars(part) for name in ("forward", "compare", "prepare"))


def is_transformed() -> bool:
    """Whether one of torch.func's transforms or forward derivatives are at work, for which fused ops have no rule."""
    at_work = maybe_current_level() is not None or forward_ad._current_level >= 0
    return not torch.compiler.is_compiling() and at_work
