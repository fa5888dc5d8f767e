"""A kernel whose answer is of integers, as an op of its own."""

import pytest
import torch
from torch import Tensor
from torch.testing import assert_close

from regard.kernels.autograd import differentiable, discrete

pytestmark = pytest.mark.unchecked
calls = []


def _nearest(scores: Tensor, wanted: Tensor, k: int) -> Tensor:
    calls.append(scores)
    return (scores - wanted.unsqueeze(-1)).abs().topk(k, largest=False).indices


def _shape(scores: Tensor, wanted: Tensor, k: int) -> Tensor:
    return scores.new_empty((len(scores), k), dtype=torch.long)


nearest = discrete("nearest_of_a_test", _nearest, _shape)


def given() -> tuple[Tensor, Tensor]:
    return torch.randn(4, 5, requires_grad=True), torch.randn(4)


def test_it_is_called_directly_with_tensors_that_require_no_gradient():
    scores, wanted = given()
    assert_close(nearest(scores, wanted, 2), (scores - wanted.unsqueeze(-1)).abs().topk(2, largest=False).indices)
    assert calls.pop().requires_grad is False


def test_compile_and_export_take_it_as_it_is():
    class Nearest(torch.nn.Module):
        def forward(self, scores: Tensor, wanted: Tensor) -> Tensor:
            return nearest(scores * 2, wanted, 2)

    torch._dynamo.reset()
    both = given()
    right = Nearest()(*both)
    assert_close(torch.compile(Nearest(), fullgraph=True, backend="aot_eager")(*both), right)
    program = torch.export.export(Nearest(), both)
    assert "nearest_of_a_test" in str(program.graph)
    assert_close(program.module()(*both), right)


@pytest.mark.parametrize("dims", [(0, 0), (0, None), (1, 0), (None, 0)])
def test_vmap(dims: tuple[int | None, int | None]):
    calls_of_three = torch.randn(4, 5).expand(3, 4, 5) + torch.arange(3).view(3, 1, 1), torch.randn(3, 4)
    given = [each[0] if dim is None else each.movedim(0, dim) for each, dim in zip(calls_of_three, dims, strict=True)]
    found = torch.func.vmap(lambda *both: nearest(*both, 2), dims)(*given)
    one = lambda i: [each[0 if dim is None else i] for each, dim in zip(calls_of_three, dims, strict=True)]  # noqa: E731
    assert_close(found, torch.stack([nearest(*one(i), 2) for i in range(3)]))


def test_a_batch_of_batches():
    scores, wanted = torch.randn(2, 3, 4, 5), torch.randn(2, 3, 4)
    twice = torch.func.vmap(torch.func.vmap(lambda *both: nearest(*both, 1)))(scores, wanted)
    assert_close(twice.flatten(0, 2), nearest(scores.flatten(0, 2), wanted.flatten(), 1))


def test_gradients_go_past_it():
    def cost(scores: Tensor) -> Tensor:
        return scores.gather(-1, nearest(scores, torch.zeros(4), 1)).sum()

    scores = torch.randn(4, 5)
    found = torch.func.grad(cost)(scores)
    assert_close(found, torch.nn.functional.one_hot(scores.abs().argmin(-1), 5).to(scores))
    assert_close(torch.func.jvp(cost, (scores,), (found,))[1], torch.tensor(4.0))


def test_a_name_is_given_once():
    """A second op of a name would take the place of the first without a word."""
    with pytest.raises(ValueError, match=r"an op regard::nearest_of_a_test already"):
        discrete("nearest_of_a_test", _nearest, _shape)
    half = lambda grad, x, out: (grad / 2,)  # noqa: E731
    with pytest.raises(ValueError, match=r"an op regard::nearest_of_a_test already"):
        differentiable("nearest_of_a_test", torch.clone, half, (torch.clone, half), torch.clone)
    assert_close(nearest(*given(), 2).shape, torch.Size([4, 2]))
