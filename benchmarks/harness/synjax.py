"""synjax as a peer, where it is installed: structures in JAX, compiled, on one thread.

It is not on PyPI, but in the repository google-deepmind/synjax. Its loops are not checkpointed here, which makes its
gradients faster, and its run-time type checks are off, which fail with typeguard 4.
"""

import os
from collections.abc import Callable
from contextlib import suppress
from importlib import import_module
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from typing import Any

import jaxtyping
import torch
from torch import Tensor

NAME = "synjax"
Call = Callable[..., list[Tensor]]


def chain_questions() -> dict[str, Call]:
    """What is asked of linear chains of scores (B, K, S) and transitions (S, S) from label to label."""
    if not find_spec("synjax"):
        return {}
    jax, synjax = _imported()

    def crf(scores: Any, transitions: Any) -> Any:
        links = transitions + scores[:, 1:, None]
        first = jax.numpy.pad(scores[:, :1, None], ((0, 0), (0, 0), (0, scores.shape[-1] - 1), (0, 0)))
        return synjax.LinearChainCRF(jax.numpy.concatenate((first, links), 1))

    def labels(event: Any) -> Any:
        return event.sum(-2).argmax(-1)

    return {
        "marginals": _trained(lambda *given: crf(*given).marginals().sum(-2)),
        "log Z": _trained(lambda *given: crf(*given).log_partition()),
        "entropy": _trained(lambda *given: crf(*given).entropy()),
        "best labelling": _asked(lambda *given: labels(crf(*given).argmax())),
        "the 3 best": _asked(lambda *given: labels(crf(*given).top_k(3)[0])),
        "a draw": _asked(lambda *given: labels(crf(*given).sample(jax.random.key(0)))),
    }


def tree_marginals(projective: bool) -> tuple[Call, Call] | None:
    """Marginals of dependency trees of scores (B, words, heads), the root's in the diagonal: trained, and alone."""
    if not find_spec("synjax"):
        return None
    jax, synjax = _imported()

    def arcs(scores: Any) -> Any:
        words = scores.shape[-1]
        root = jax.numpy.diagonal(scores, axis1=1, axis2=2)
        links = jax.numpy.pad(scores.mT, ((0, 0), (1, 0), (1, 0))).at[:, 0, 1:].set(root)
        crf = synjax.SpanningTreeCRF(links, directed=True, projective=projective, single_root_edge=projective)
        found = crf.marginals()
        here = jax.numpy.arange(words)
        return found[:, 1:, 1:].mT.at[:, here, here].set(found[:, 0, 1:])

    return _trained(arcs), _asked(arcs)


def _imported() -> tuple[Any, Any]:
    os.environ["XLA_FLAGS"] = "--xla_cpu_multi_thread_eigen=false intra_op_parallelism_threads=1"
    checked, jaxtyping.jaxtyped = jaxtyping.jaxtyped, lambda given, **_: given  # pyright: ignore
    try:
        synjax = import_module("synjax")
    finally:
        jaxtyping.jaxtyped = checked
    synjax.set_config(checkpoint_loops=False, checkpoint_semiring_einsum=False)
    return import_module("jax"), synjax


def installed() -> str:
    """Its name and versions, or that it is absent."""
    if not find_spec("synjax"):
        return f"{NAME} is not installed: no rows of it"
    found = [NAME]
    with suppress(PackageNotFoundError):
        found[0] += f" {version(NAME)}"
    return f"{found[0]}, jax {version('jax')}"


def _asked(answer: Callable[..., Any]) -> Call:
    """The answer, compiled."""
    compiled = import_module("jax").jit(answer)
    return lambda *given: [_out(compiled(*map(_in, given)))]


def _trained(answer: Callable[..., Any]) -> Call:
    """The answer, and the gradient of the scores along a fixed direction, compiled."""
    jax: Any = import_module("jax")

    @jax.jit
    def both(scores: Any, *rest: Any) -> Any:
        found, back = jax.vjp(lambda scores: answer(scores, *rest), scores)
        return found, back(jax.numpy.linspace(-1, 1, found.size, dtype=found.dtype).reshape(found.shape))[0]

    return lambda *given: [_out(each) for each in both(*map(_in, given))]


def _in(given: Tensor) -> Any:
    return given.detach().numpy()


def _out(found: Any) -> Tensor:
    return torch.from_dlpack(found)
