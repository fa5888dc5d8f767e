"""Attention is a probability distribution over where to look: soft attention reads its mean, hard attention a sample.

    c = E_{z ~ p(z | query, keys)} [ read(values, z) ]

Every mechanism here is one triple: a `score` says how well a key fits the query, `over` turns scores into a
distribution over places, and `read` takes its mean, a sample or its mode. Soft attention:

>>> import torch
>>> import regard as rg
>>> _ = torch.manual_seed(0)
>>> query, keys, values = torch.randn(2, 1, 4), torch.randn(2, 5, 4), torch.randn(2, 5, 3)
>>> out = rg.attend(query, keys, values, score=rg.scaled_dot, over=rg.softmax, read=rg.mean)
>>> out.context.shape, out.weights.shape
(torch.Size([2, 1, 3]), torch.Size([2, 1, 5]))

Hard attention looks at one place of each row; `reinforce` carries the gradient of a cost through the choice:

>>> out = rg.attend(query, keys, values, score=rg.scaled_dot, over=rg.softmax, read=rg.sample)
>>> out.z.shape
torch.Size([2, 1])
>>> cost = out.context.square().sum(-1)
>>> loss = (cost + rg.reinforce(out.log_prob, cost)).mean()

The public names stand in `__init__.pyi`. Each is loaded when it is first used, so that `import regard` costs nothing.
"""

import ast
import sys
from importlib import import_module
from importlib.abc import MetaPathFinder
from pathlib import Path

__version__ = "0.1.0"


def _read_stub() -> dict[str, str]:
    """{public name: its module}, read from the stub, where each name is written once, for people and type checkers."""
    stub = ast.parse(Path(__file__).with_suffix(".pyi").read_text(encoding="utf-8"))
    lines = [line for line in stub.body if isinstance(line, ast.ImportFrom)]
    return {each.name: f"{__name__}.{line.module or each.name}" for line in lines for each in line.names}


_HOME = _read_stub()
__all__ = list(_HOME)  # pyright: ignore[reportUnsupportedDunderAll]


def __getattr__(name: str) -> object:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    module = import_module(_HOME[name])
    globals()[name] = found = module if _HOME[name] == f"{__name__}.{name}" else getattr(module, name)
    return found


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})


class _Registration(MetaPathFinder):
    """Makes our dataclasses and the ops of our kernels known to PyTorch when `torch.export.load` is about to load the
    module that it reads a saved program by: the program may hold and answer them."""

    READER = "torch.export.pt2_archive._package"

    def find_spec(self, fullname: str, path: object = None, target: object = None) -> None:
        if fullname == self.READER:
            _register()


def _register() -> None:
    for name in ("attention", "kernels.roads"):
        import_module(f"{__name__}.{name}")


if _Registration.READER in sys.modules:
    _register()
else:
    sys.meta_path.insert(0, _Registration())
