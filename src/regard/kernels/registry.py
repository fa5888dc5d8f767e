"""Fast roads: functions that compute what parts do quicker than the plain road, found before anything is computed.

A road is keyed by the exact types of its parts, a triple of score, over and read or one part alone, and by the device,
and chosen by metadata alone (dtypes, shapes, whether gradients are needed), never by data. The plain road, the parts
themselves, is the oracle of every one.
"""

from collections.abc import Callable
from functools import cache, partial
from importlib import import_module
from threading import local
from types import FunctionType
from typing import Any, NamedTuple

import torch
from torch import nn
from torch._C._functorch import maybe_current_level
from torch.autograd import forward_ad


def _constant(function: Callable[..., Any]) -> Any:
    """What torch.compiler.assume_constant_result does, without loading the compiler, which takes seconds."""
    function._dynamo_marked_constant = True  # pyright: ignore[reportFunctionMemberAccess]
    return function


class Road(NamedTuple):
    """A fast road: `run(*parts, *given)` computes what the parts would, and `refuses` of the same says why it would
    not, by metadata only; None if it would.

    A road that `transforms` is one that torch.func can transform. One that `exports` stays in an exported program, for
    its plain road is a gradient, which `torch.export` cannot trace.
    """

    run: Callable[..., Any]
    refuses: Callable[..., str | None]
    transforms: bool = False
    exports: bool = False

    @property
    def name(self) -> str:
        """The module of the kernel: `additive.cpu`."""
        return self.run.__module__.removeprefix("regard.kernels.")


class Choice(NamedTuple):
    """Which road some parts took: the name of a fast one, or None and the reason."""

    parts: str
    road: str | None
    reason: str | None


class _Here(local):
    """What holds in this thread."""

    def __init__(self) -> None:
        self.plain = 0  # how many contexts of `plain_road` are open
        self.choices: list[Choice] | None = None


_ROADS: dict[tuple, Road] = {}
_here = _Here()


class plain_road:
    """A context in which every part takes its plain road, in this thread: no kernel is called.

    The plain road is the mathematics as it is written, in PyTorch's own operations; fast roads are tested against it.
    `torch.export` takes it without being asked, but for the means and the events of structures.

    >>> from regard import entmax_weights
    >>> with plain_road():
    ...     entmax_weights(torch.tensor([1.0, 0.0, -2.0]), 1.5)
    tensor([0.8307, 0.1693, 0.0000])
    """

    def __enter__(self) -> None:
        _here.plain += 1

    def __exit__(self, *_: object) -> None:
        _here.plain -= 1


def road(function: Callable[..., Any], *args: Any, **kwargs: Any) -> tuple[Choice, ...]:
    """Calls the function, and says which road each part took that asked for one, in order: the name of a fast one, or
    why it was the plain one.

    What runs under `torch.compile` has asked when it was compiled, and is not seen.

    >>> from regard import attend
    >>> road(attend, torch.ones(1, 2), torch.ones(3, 2), torch.ones(3, 1))
    (Choice(parts='scaled_dot, softmax, mean', road='dot.cpu_cuda', reason=None),)
    >>> with plain_road():
    ...     road(attend, torch.ones(1, 2), torch.ones(3, 2), torch.ones(3, 1))[0].reason
    'plain_road() is on'
    """
    before, _here.choices = _here.choices, []
    try:
        function(*args, **kwargs)
        return tuple(_here.choices)
    finally:
        _here.choices = before


def register_road(parts: tuple, device: str, road: Road) -> None:
    """Makes the road known for parts, functions or classes, on a type of device."""
    _ROADS[*parts, device] = road


def known_roads() -> dict[tuple, Road]:
    """Every road, by its parts and device."""
    _load()
    return _ROADS


def find_road(parts: tuple, *given: Any) -> Callable[..., Any] | None:
    """The `run` of the road that suits what is given, a tensor first, with the parts filled in; None for the plain
    road, which is always taken where anomalies are detected, for it can say where they are."""
    _load()
    keys = [part if type(part) is FunctionType else _key(part) for part in parts]
    road = _ROADS.get((*keys, given[0].device.type))
    if road is None and _here.choices is None:
        return None  # the usual case of many small calls
    compiling = torch.compiler.is_compiling()
    reason = _set_aside(compiling)
    if reason is None:
        reason = _refusal(road, parts, given, compiling) if road else "no fast road is known for it"
    if not compiling and _here.choices is not None:
        _here.choices.append(Choice(", ".join(map(_name, parts)), None if reason else road and road.name, reason))
    return None if reason or road is None else partial(road.run, *parts)


@_constant
def _load() -> None:
    """Makes all roads known, by name and not before one is asked for: kernels import the parts, which import this."""
    _loaded("regard.kernels.roads")


_loaded = cache(import_module)


def _set_aside(compiling: bool) -> str | None:
    """Why no fast road is taken here by anything."""
    if _here.plain:
        return "plain_road() is on"
    if compiling:
        return None
    if torch._C._is_tracing():
        return "a traced program has PyTorch's own operations only"
    return "torch.autograd.set_detect_anomaly is on" if torch.is_anomaly_enabled() else None


def _refusal(road: Road, parts: tuple, given: tuple, compiling: bool) -> str | None:
    if not road.transforms and is_transformed():
        return "torch.func and forward derivatives have no rule for it"
    if compiling and not road.exports and torch.compiler.is_exporting():
        return "an exported program has PyTorch's own operations only"
    return road.refuses(*parts, *given)


def _key(part: Any) -> Any:
    """A function is its own key, any other part's is its exact type; a module that was hooked has none."""
    return part if type(part) is FunctionType else None if is_hooked(part) else type(part)


def _name(part: Any) -> str:
    return getattr(part, "__name__", type(part).__name__)


def is_hooked(part: Any) -> bool:
    """Whether calling the part is more than its class says."""
    if not isinstance(part, nn.Module):
        return False
    hooks = part._forward_hooks, part._forward_pre_hooks, part._backward_hooks, part._backward_pre_hooks
    return any(hooks) or any(name in vars(part) for name in ("forward", "compare", "prepare"))


@_constant
def is_transformed() -> bool:
    """Whether one of torch.func's transforms or forward derivatives are at work, for which fused ops have no rule."""
    return maybe_current_level() is not None or forward_ad._current_level >= 0
