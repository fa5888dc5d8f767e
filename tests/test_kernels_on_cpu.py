"""Kernels on the CPU beside threads, workers, forks, and where nothing can be kept on the disk."""

import os
import signal
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import torch
from torch import Tensor
from torch.testing import assert_close
from torch.utils.data import DataLoader, Dataset

import regard as rg
from regard.kernels import on_cpu as cpu
from regard.kernels.additive import cpu as additive_cpu

SCORE = rg.Additive(16, 16, 32)
for parameter in SCORE.parameters():
    parameter.data = torch.linspace(-0.3, 0.3, parameter.numel()).view_as(parameter)


@pytest.fixture(autouse=True)
def always(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(additive_cpu, "SMALLEST", 0)


def weights(seed: int) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    query, keys = (torch.randn(4, 8, 16, generator=generator) for _ in range(2))
    leaf = query.requires_grad_()
    context = rg.attend(leaf, keys, keys, score=SCORE).context
    return torch.cat((context.detach(), *torch.autograd.grad(context.square().sum(), leaf)))


class Weights(Dataset[Tensor]):
    def __len__(self) -> int:
        return 8

    def __getitem__(self, seed: int) -> Tensor:
        return weights(seed)


@pytest.fixture
def wanted() -> list[Tensor]:
    return [weights(seed) for seed in range(8)]


@pytest.mark.parametrize("threads", [1, 2])
def test_many_callers_at_once(wanted: list[Tensor], threads: int):
    torch.set_num_threads(threads)
    with ThreadPoolExecutor(8) as callers:
        found = list(callers.map(weights, [seed % 8 for seed in range(400)]))
    assert_close(found, 50 * wanted)


@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")
@pytest.mark.parametrize("context", ["fork", "forkserver"])
def test_in_the_workers_of_a_loader(wanted: list[Tensor], context: str):
    torch.set_num_threads(2)
    weights(0)  # the pool of this process is at work when it forks
    loader = DataLoader(Weights(), batch_size=None, num_workers=2, multiprocessing_context=context, timeout=60)
    assert_close(list(loader), wanted)


@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")
def test_after_a_fork_the_pool_is_another():
    """(torch's own threads do not survive a fork: the child calls nothing else.)"""
    torch.set_num_threads(2)
    query, keys, energy = torch.randn(4, 8, 32), torch.randn(4, 8, 32), torch.randn(32)
    wanted = additive_cpu._forward(query, keys, energy)
    child = os.fork()
    if child == 0:
        signal.alarm(20)
        os._exit(0 if additive_cpu._forward(query, keys, energy).tolist() == wanted.tolist() else 1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0


def test_as_many_threads_as_torch_uses(monkeypatch: pytest.MonkeyPatch):
    seen: list[int] = []

    class Kernel:
        overloads = (1,)

        def __call__(self, first: int, last: int) -> None:
            seen.append(threading.get_ident())
            barrier.wait(10)

    for threads in (1, 2, 3):
        torch.set_num_threads(threads)
        seen.clear()
        barrier = threading.Barrier(threads)  # passes if all run side by side
        cpu.run(Kernel(), cpu.blocks(100))
        assert len(set(seen)) == threads and threading.get_ident() in seen


def test_an_error_in_any_block_is_raised():
    with pytest.raises(ZeroDivisionError):
        cpu.run(Failing(), [(0,), (1,), (2,)])


class Failing:
    overloads = (1,)

    def __call__(self, block: int) -> None:
        if block == 1:
            raise ZeroDivisionError


SCRIPT = """
import torch
torch.manual_seed(0)
{before}
import regard as rg
from regard.kernels import on_cpu as cpu
cpu.PATIENCE = {patience}
query = torch.randn(2, 64, 64)
out = rg.attend(query, query, query, score=rg.Additive(64, 64, 64))
assert out.context.isfinite().all()
from regard.kernels.additive import cpu_loops as additive_loops
assert additive_loops.scores.overloads, "the kernel did this"
"""


def run_alone(folder: Path, before: str = "", patience: float = 0.1) -> str:
    """What a process of its own says on stderr, whose cache is this folder."""
    environment = os.environ | {"NUMBA_CACHE_DIR": str(folder)}
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT.format(before=before, patience=patience)],
        env=environment,
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    return done.stderr


def test_it_is_compiled_once_and_says_so(tmp_path: Path):
    said = run_alone(tmp_path)
    assert said == "regard compiles its kernel scores for this machine, once: it takes some seconds.\n"
    assert run_alone(tmp_path, patience=5) == ""


def test_where_nothing_can_be_kept_it_is_compiled_each_time(tmp_path: Path):
    before = "from numba.core import caching; caching.CompileResultCacheImpl._locator_classes = []"
    assert "compiles its kernel" in run_alone(tmp_path, before)
    assert not any(tmp_path.iterdir())
