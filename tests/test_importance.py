"""The read `importance`: a few places, drawn without replacement, are on average the mean of all, as are their
derivatives; by summing over every draw with its probability."""

import examples
import pytest
import torch
from torch import Tensor
from torch.autograd import gradcheck
from torch.testing import assert_close

import regard as rg

SCORES = torch.tensor([[0.3, -1.5, 0.9, 0.2], [-0.4, 2.8, 0.1, -0.7], [0.5, 0.1, -float("inf"), 0.0]]).double()
VALUES = torch.tensor([[1.0, -2.0], [0.5, 3.0], [2.0, 0.0], [-1.0, 1.0]], dtype=torch.float64)


def expected(scores: Tensor, k: int, monkeypatch: pytest.MonkeyPatch) -> Tensor:
    """The mean of what is read over every draw, by its probability, which no gradient reaches."""
    positions = rg.without_replacement(k)(scores)
    total = torch.zeros(len(scores), VALUES.shape[-1], dtype=torch.float64)
    for z in positions.enumerate_support():
        chance = positions.log_prob(z).exp().detach()
        monkeypatch.setattr(rg.WithoutReplacement, "sample", lambda self, z=z: z)
        context = rg.importance(positions, VALUES)[0]
        total = total + torch.where(chance.unsqueeze(-1) > 0, chance.unsqueeze(-1) * context, 0)
    return total


@pytest.mark.parametrize("k", [1, 2, 3, 4, 6])
def test_on_average_it_is_the_mean_and_so_are_its_derivatives(k: int, monkeypatch: pytest.MonkeyPatch):
    scores = SCORES.clone().requires_grad_()
    ours, mean = expected(scores, k, monkeypatch), scores.softmax(-1) @ VALUES
    assert_close(ours, mean, rtol=0, atol=1e-12)
    prices = torch.tensor([[0.3, -1.0], [2.0, 0.7], [-0.2, 1.1]], dtype=torch.float64)
    first = [torch.autograd.grad((each * prices).sum(), scores, create_graph=True)[0] for each in (ours, mean)]
    assert_close(*first, rtol=0, atol=1e-12)
    second = [torch.autograd.grad((each * prices.tile(2)).sum(), scores)[0] for each in first]
    assert_close(*second, rtol=0, atol=1e-12)


def test_the_mean_of_the_drawn_places_would_be_biased(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(rg.WithoutReplacement, "importance", lambda self, z: torch.full(z.shape, 0.5).double())
    with pytest.raises(AssertionError):
        assert_close(expected(SCORES[:2], 2, monkeypatch), SCORES[:2].softmax(-1) @ VALUES)


@pytest.mark.parametrize("dtype", [torch.float16, torch.float32, torch.float64])
def test_what_the_places_count_sums_to_one(dtype: torch.dtype):
    scores = 5 * torch.randn(200, 12, dtype=dtype)
    positions = rg.without_replacement(5)(scores)
    weights = positions.importance(positions.sample((3,)))
    assert weights.dtype == dtype and (weights >= 0).all()
    assert_close(weights.float().sum(-1), torch.ones(3, 200), rtol=0, atol=2e-3 if dtype is torch.float16 else 1e-5)


def test_where_too_few_places_are_allowed_the_rest_counts_nothing():
    scores = torch.tensor([[0.0, -float("inf"), 1.0], [-float("inf")] * 3], requires_grad=True)
    context, z, _ = rg.importance(rg.without_replacement(3)(scores), torch.ones(3, 1, requires_grad=True))
    assert_close(context, torch.tensor([[1.0], [0.0]]))
    assert (z == -1).sum(-1).tolist() == [1, 3]
    context.sum().backward()
    assert scores.grad.isfinite().all()


@pytest.mark.parametrize("size", [1e4, -1e4])
def test_scores_of_any_size_have_finite_gradients(size: float):
    scores = torch.tensor([[size, 0.0, 1.0, -size]], requires_grad=True)
    context, _, _ = rg.importance(rg.without_replacement(2)(scores), torch.randn(4, 2))
    context.square().sum().backward()
    assert context.isfinite().all() and scores.grad.isfinite().all()


def test_only_what_was_drawn_is_read_and_the_values_get_its_gradient():
    class Reader:
        asked: Tensor

        def read(self, z: Tensor) -> Tensor:
            self.asked = z
            return examples.inputs()[2][:1].expand(2, -1, -1).gather(1, z.unsqueeze(-1).expand(-1, -1, 2))

    query, keys, values = examples.inputs()
    reader, over = Reader(), rg.without_replacement(2)
    out = rg.attend(query, keys, reader, over=over, read=rg.importance)
    assert reader.asked.shape == (2, 3 * 2) and out.context.shape == (2, 3, 2)

    def read(values: Tensor) -> Tensor:
        torch.manual_seed(0)
        return rg.attend(query, keys, values, over=over, read=rg.importance).context

    assert gradcheck(read, values.requires_grad_())


def test_it_is_refused_where_nothing_is_drawn_without_replacement():
    query, keys, values = examples.inputs()
    with pytest.raises(TypeError, match="importance expected draws without replacement, but got OneHot"):
        rg.attend(query, keys, values, read=rg.importance)


@pytest.mark.unchecked
def test_it_compiles_whole_and_exports():
    class Model(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.attention = rg.Attention(rg.dot, rg.without_replacement(2), rg.importance)

        def forward(self, query: Tensor, keys: Tensor, values: Tensor) -> tuple[Tensor, Tensor]:
            out = self.attention(query, self.attention.prepare(keys, values))
            return out.context, out.z

    model, given = Model(), examples.inputs()
    for transformed in (
        torch.compile(model, fullgraph=True, backend="aot_eager"),
        torch.export.export(model, tuple(given)).module(),
    ):
        context, z = transformed(*given)
        monkey = rg.without_replacement(2)(rg.dot(*given[:2]))
        wanted = (
            monkey.importance(z).unsqueeze(-1)
            * given[2].unsqueeze(1).expand(-1, 3, -1, -1).gather(2, z.unsqueeze(-1).expand(-1, -1, -1, 2))
        ).sum(-2)
        assert_close(context, wanted)
