"""The protocol of parts: how a score, an over or a read gets more than its two arguments, and hands something on.

A plain part is a function of two arguments. A part that needs more has `at(step)`, which returns the plain function.
A part that carries something from query to query has `next(carried, positions)` also, which returns what the next
step finds in `step.carried`, None at first. Every tensor that is carried begins with the batch dimensions.
"""

from typing import Any, NamedTuple

from torch import Tensor
from torch.utils._pytree import _register_namedtuple


class Step(NamedTuple):
    """What a part may want to know of the step that is being made."""

    query: Tensor
    """(*B, Q, Dq)."""
    keys: Any
    """The keys (*B, K, Dk), as the score prepared them."""
    mask: Tensor | None = None
    """Bool, (*B, Q, K) or sizes of one, True = may be looked at."""
    carried: Any = None
    """What this part handed on."""
    training: bool = True


class State(NamedTuple):
    """What the parts that carry something hand to the next step."""

    score: Any = None
    over: Any = None


_register_namedtuple(State, serialized_type_name="regard.State")  # so that a program that returns one can be saved


def at(part, step: Step):
    """The plain function that the part is at this step."""
    return part.at(step) if hasattr(part, "at") else part


def carries(part) -> bool:
    """Whether the part hands something from step to step."""
    return hasattr(part, "next")


def carry(part, carried: Any, positions) -> Any:
    """What the part hands on after it saw where this step looked."""
    return part.next(carried, positions) if carries(part) else None
