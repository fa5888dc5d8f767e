"""Law 5 for the kernels for CUDA: on a GPU, or, with TRITON_INTERPRET=1, on the CPU in Triton's interpreter."""

import os
import subprocess
import sys

import examples
import pytest
import torch
from roads import Contexts, alone, answers, check_contexts, plain_answers, taken
from torch import Tensor, nn
from torch.testing import assert_close

import regard as rg
from regard.kernels.additive import cuda as additive_triton
from regard.kernels.registry import Road
from regard.kernels.sparse import cuda as sparse_triton
from regard.over.sparse import entmax_weights

pytestmark = [  # of infinity and NaN, by the NumPy of the interpreter
    pytest.mark.filterwarnings("ignore:.* encountered in:RuntimeWarning"),
    pytest.mark.filterwarnings("ignore:All-NaN slice:RuntimeWarning"),
]
pytest.importorskip("triton", reason="needs triton, a gigabyte: make test-triton installs it and runs this")
INTERPRETED = os.environ.get("TRITON_INTERPRET") == "1"
DEVICE = "cpu" if INTERPRETED else "cuda"
if not INTERPRETED and not torch.cuda.is_available():
    pytest.skip("needs a GPU, or TRITON_INTERPRET=1: make test-triton runs this", allow_module_level=True)

TRIPLE = (rg.Additive, rg.softmax, rg.mean)
INFINITY = float("inf")
# batch, queries, places, hidden units and value's size
SIZES = {
    "few queries": ((2,), 3, 37, 70, 3),
    "one query": ((2,), 1, 33, 17, 20),
    "no batch": ((), 9, 7, 5, 3),
    "tiles": ((2,), 17, 18, 19, 17),
    "heads": ((2, 3), 8, 5, 6, 1),
    "more queries than units": ((2,), 40, 9, 4, 70),
}
DTYPES = [torch.float32, torch.bfloat16, torch.float16]


@pytest.fixture(autouse=True)
def here():
    """Everything is on the device, for which the road is registered alone."""
    with alone(TRIPLE, DEVICE, Road(additive_triton.run, additive_triton.refuses)), torch.device(DEVICE):
        yield


def arguments(size: str, dtype: torch.dtype = torch.float32) -> list[Tensor]:
    batch, queries, places, _, width = SIZES[size]
    return [torch.randn(*batch, *shape).to(dtype) for shape in ((queries, 6), (places, 7), (places, width))]


def additive_contexts(hidden: int = 19, mask: Tensor | None = None, dims: tuple[int, int] = (6, 7)) -> Contexts:
    return Contexts(rg.Additive(*dims, hidden), mask=mask)


class TestAdditive:
    @pytest.mark.parametrize("dtype", DTYPES)
    @pytest.mark.parametrize("size", SIZES)
    def test_values_and_gradients(self, size: str, dtype: torch.dtype):
        check_contexts(additive_contexts(SIZES[size][-2]), *arguments(size, dtype))

    @pytest.mark.parametrize("queries", [2, 9])
    def test_one_key_is_read_whatever_its_score(self, queries: int):
        given = torch.randn(2, queries, 6), torch.randn(2, 1, 7), torch.randn(2, 1, 3)
        contexts, of_query, of_keys, of_values = answers(additive_contexts(), *given)
        assert_close(contexts, given[2].expand_as(contexts))
        assert max(of_query.abs().max(), of_keys.abs().max()) < 1e-5
        assert_close(of_values, torch.linspace(-1, 1, contexts.numel()).view_as(contexts).sum(1, keepdim=True))

    @pytest.mark.parametrize("draws", [1, 3])  # with three there are enough queries for a tile
    @pytest.mark.parametrize("mask", examples.MASKS)
    def test_masks(self, mask: str, draws: int):
        query, keys, values = (each.float() for each in examples.inputs())
        query = torch.stack([scale * query for scale in range(1, draws + 1)])
        check_contexts(additive_contexts(9, examples.MASKS[mask](), (examples.D, examples.D)), query, keys, values)

    @pytest.mark.parametrize("shape", [(2, 1, 1, 5), (1, 3, 8, 1), (2, 3, 1, 1), (8, 5)])
    def test_masks_of_heads(self, shape: tuple[int, ...]):
        check_contexts(additive_contexts(6, torch.rand(shape) < 0.6), *arguments("heads"))

    def test_a_row_that_may_look_at_nothing_reads_zero_with_gradients_of_zero(self):
        for size in ("few queries", "tiles"):
            query, keys, values = arguments(size)
            model = additive_contexts(19, torch.zeros(2, 1, keys.shape[1], dtype=torch.bool))
            contexts, *grads = answers(model, query, keys, values)
            assert (contexts == 0).all() and all((grad == 0).all() for grad in grads)

    def test_not_contiguous(self):
        query, keys, values = arguments("tiles")
        wide = [each.mT.repeat_interleave(2, -1)[..., ::2].mT for each in (query, keys, values)]
        check_contexts(additive_contexts(), *wide)
        check_contexts(additive_contexts(), query, keys[:1].expand_as(keys), values[:1].expand_as(values))
        check_contexts(additive_contexts(), query[:, :1].expand(-1, 3, -1), keys, values[..., :1].expand_as(values))

    def test_the_buffers_may_hold_anything(self):
        torch.use_deterministic_algorithms(True)
        try:
            assert torch.empty(3).isnan().all()
            check_contexts(additive_contexts(), *arguments("tiles"))
            check_contexts(additive_contexts(), *arguments("few queries"))
        finally:
            torch.use_deterministic_algorithms(False)

    def test_projections_without_finite_exponentials(self):
        query, keys, values = arguments("tiles")
        query[0], keys[0, :9] = 200 * query[0], 200 * keys[0, :9]
        check_contexts(additive_contexts(), query, keys, values)
        query[1, 0, 0], keys[1, 0, 0] = INFINITY, 1e30
        model = additive_contexts()
        assert_close(model(query, keys, values), plain_answers(model, query, keys, values)[0])

    @pytest.mark.parametrize("queries", [6, 60])
    @pytest.mark.parametrize("shift", [0, 3, 39])
    def test_the_tangent_is_within_a_millionth(self, queries: int, shift: float):
        """The score against one key, which is the logarithm of the softmax's sum."""
        x = torch.cat((torch.linspace(-12, 12, 52), torch.tensor([0, 1e-30, 1e-4, -1e-4, 20, -20, 39, -39])))
        for sign in (1, -1):
            query = (x.clamp(-39 + shift, 39) - shift).reshape(-1, queries, 1) * sign
            keys = torch.full((len(query), 1, 1), float(sign * shift))
            _, scores = additive_triton._forward(query, keys, torch.ones(1), keys, None)
            wanted = (query.double() + keys).tanh().squeeze(-1)
            assert (scores - wanted).abs().max() < 1e-6

    @pytest.mark.parametrize("size", ["few queries", "tiles"])
    @pytest.mark.parametrize("what", ["query", "keys", "values"])
    def test_nan_stays_nan_where_it_is(self, what: str, size: str):
        given = dict(zip(("query", "keys", "values"), arguments(size), strict=True))
        given[what][0, 1] = torch.nan
        model = additive_contexts()
        wanted = plain_answers(model, *given.values())[0].isnan()
        assert_close(model(*given.values()).isnan(), wanted)
        assert wanted.any() and not wanted.all()

    @pytest.mark.parametrize("mask", [None, torch.rand(2, 3, 37) < 0.6])
    def test_the_second_gradient_is_that_of_the_plain_road(self, mask: Tensor | None):
        given = arguments("few queries")
        model = additive_contexts(9, None if mask is None else mask.to(DEVICE))

        def slopes(*given: Tensor) -> Tensor:
            leaves = [each.requires_grad_() for each in (given[0].expand(2, -1, -1, -1), *given[1:])]
            first = torch.autograd.grad(model(*leaves).square().sum(), leaves, create_graph=True)
            return torch.cat([each.flatten() for each in first])

        for fast, plain in zip(answers(slopes, *given), plain_answers(slopes, *given), strict=True):
            assert_close(fast, plain, rtol=1e-4, atol=1e-5)

    def test_the_same_call_has_the_same_gradients(self):
        given = arguments("more queries than units")
        model = additive_contexts(4)
        assert all((a == b).all() for a, b in zip(answers(model, *given), answers(model, *given), strict=True))

    def test_autocast(self):
        model, given = additive_contexts(), arguments("tiles")
        with torch.autocast(DEVICE, torch.bfloat16):
            fast, plain = answers(model, *given), plain_answers(model, *given)
        for one, other in zip(fast, plain, strict=True):
            assert one.dtype == other.dtype
            assert_close(one, other, rtol=0.1, atol=0.1 * other.abs().max().item())

    @pytest.mark.parametrize("masked", [False, True])
    @pytest.mark.parametrize("size", ["few queries", "tiles"])
    def test_compile_and_its_gradient(self, size: str, masked: bool):
        torch._dynamo.reset()
        query, keys, values = arguments(size)
        model = additive_contexts(19, torch.rand(2, query.shape[1], keys.shape[1]) < 0.6 if masked else None)
        compiled = torch.compile(model, fullgraph=True, backend="aot_eager")
        fast, wanted = answers(compiled, query, keys, values), answers(model, query, keys, values)
        for one, other in zip(fast, wanted, strict=True):
            assert_close(one, other)

    def test_export(self):
        model, given = additive_contexts(), tuple(arguments("tiles"))
        program = torch.export.export(model, given)
        assert "regard" not in str(program.graph), "it is the plain road that leaves Python"
        assert_close(program.module()(*given), model(*given))


class TestWhichRoad:
    def taken(self, score: nn.Module, width: int = 3, dtype: torch.dtype = torch.float32) -> bool:
        query, keys, values = (each.to(dtype) for each in arguments("few queries"))
        values = values[..., :1].expand(-1, -1, width)
        return taken(TRIPLE, lambda: rg.attend(query, keys, values, score=score))

    def test_it_is_taken(self):
        assert self.taken(rg.Additive(6, 7, 8))
        assert self.taken(rg.Additive(6, 7, 8, bias=True))
        assert self.taken(rg.Additive(6, 7, 8).bfloat16(), dtype=torch.bfloat16)

    def test_not_for_what_it_cannot_do(self):
        assert not self.taken(rg.Additive(6, 7, 8).double(), dtype=torch.float64)
        assert not self.taken(rg.Additive(6, 7, 8), width=1025)
        hooked, other = rg.Additive(6, 7, 8), rg.Additive(6, 7, 8)
        hooked.energy.register_forward_hook(lambda *_: None)
        other.energy = nn.Sequential(nn.Linear(8, 1))
        assert not any(map(self.taken, (hooked, other)))


@pytest.mark.parametrize("alpha", [1.01, 1.3, 1.5, 1.8, 2.0])
class TestSparse:
    def check(self, alpha: float, scores: Tensor, factor: float = 1.0) -> None:
        """Law 5, of the kernel as it is, in rows where the gradient is not about to jump, as it does where a place
        enters the support."""
        assert sparse_triton.refuses(entmax_weights, scores, alpha) is None
        plainly = lambda scores: entmax_weights(scores, alpha)  # noqa: E731
        exact, plain = answers(plainly, scores.double()), answers(plainly, scores)
        fast = answers(lambda scores: factor * sparse_triton.run(entmax_weights, scores, alpha), scores)
        nudged = answers(plainly, scores.double() + 1e-7 * torch.randn_like(scores, dtype=torch.float64))
        clear = (nudged[1] - exact[1]).abs().amax(-1) <= 1e-3 * exact[1].abs().max()
        assert clear.float().mean() > 0.7
        for truth, slow, quick in zip(exact, plain, fast, strict=True):
            assert quick.dtype == slow.dtype
            truth, slow, quick = truth[clear], slow[clear], quick[clear]
            allowed = 2 * (slow - truth).abs().max() + 16 * torch.finfo(scores.dtype).eps * truth.abs().max()
            assert (quick - truth).abs().max() <= allowed

    @pytest.mark.parametrize("dtype", DTYPES)
    @pytest.mark.parametrize("scale", [0.1, 1, 10, 1e4])
    def test_values_and_gradients(self, alpha: float, scale: float, dtype: torch.dtype):
        self.check(alpha, (scale * torch.randn(3, 5, 50)).to(dtype))

    @pytest.mark.parametrize("shape", [(1,), (3,), (70, 16), (2, 1025), (0, 4)])
    def test_shapes(self, alpha: float, shape: tuple[int, ...]):
        if 0 in shape:
            assert sparse_triton.refuses(entmax_weights, torch.randn(shape), alpha)
        else:
            self.check(alpha, torch.randn(shape))

    def test_not_contiguous(self, alpha: float):
        self.check(alpha, torch.randn(7, 5, 4).transpose(0, 2))
        self.check(alpha, torch.randn(7, 1).expand(7, 5))
        self.check(alpha, torch.randn(1, 8).expand(7, 8)[:, ::2])

    def test_places_that_may_not_be_looked_at(self, alpha: float):
        scores = torch.randn(4, 9).masked_fill(torch.rand(4, 9) < 0.4, -INFINITY)
        scores[1] = -INFINITY
        weights, slopes = answers(lambda scores: sparse_triton.run(entmax_weights, scores, alpha), scores)
        assert_close(weights, entmax_weights(scores, alpha))
        assert (weights[1] == 0).all() and (slopes[1] == 0).all()
        assert (slopes[scores == -INFINITY] == 0).all() and slopes.isfinite().all()

    def test_nan_is_nan_in_its_row(self, alpha: float):
        scores = torch.randn(3, 5)
        scores[1, 2] = torch.nan
        weights = sparse_triton.run(entmax_weights, scores, alpha)
        assert_close(weights, entmax_weights(scores, alpha), equal_nan=True)
        assert weights[1].isnan().all()

    def test_the_buffers_may_hold_anything(self, alpha: float):
        torch.use_deterministic_algorithms(True)
        try:
            self.check(alpha, torch.randn(5, 17))
        finally:
            torch.use_deterministic_algorithms(False)

    def test_the_second_gradient_is_that_of_the_plain_road(self, alpha: float):
        def slope(function, scores: Tensor) -> Tensor:
            return torch.autograd.grad(function(scores, alpha).square().sum(), scores, create_graph=True)[0]

        scores = torch.randn(3, 6)
        fast = answers(lambda scores: slope(lambda *given: sparse_triton.run(entmax_weights, *given), scores), scores)
        plain = answers(lambda scores: slope(entmax_weights, scores), scores)
        assert_close(fast, plain, rtol=1e-3, atol=1e-4)

    def test_a_wrong_kernel(self, alpha: float):
        with pytest.raises(AssertionError):
            self.check(alpha, torch.randn(3, 50), factor=1.0001)


class TestMutants:
    """A kernel that is wrong: the law must fail."""

    @pytest.mark.parametrize("wrong", ["value", "query", "keys", "energy", "values", "mask"])
    def test_a_wrong_kernel(self, wrong: str, monkeypatch: pytest.MonkeyPatch):
        right = additive_triton._contexts

        def wrong_contexts(*given: Tensor) -> Tensor:
            names = dict(zip(("query", "keys", "energy", "values", "mask"), given, strict=True))
            if wrong == "mask":
                names["mask"] = None
            elif wrong in names:
                names[wrong] = names[wrong].detach() + 0.999 * (names[wrong] - names[wrong].detach())
            return right(*names.values()) * (1.0001 if wrong == "value" else 1)

        model, given = additive_contexts(19, torch.rand(17, 18) < 0.8), arguments("tiles")
        check_contexts(model, *given)
        monkeypatch.setattr(additive_triton, "_contexts", wrong_contexts)
        with pytest.raises(AssertionError):
            check_contexts(model, *given)

    def test_exponentials_that_are_not_finite(self, monkeypatch: pytest.MonkeyPatch):
        monkeypatch.setattr(additive_triton, "NARROW", INFINITY)
        with pytest.raises(AssertionError):
            TestAdditive().test_projections_without_finite_exponentials()


COMPILE = """
import sys
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource, compile
from regard.kernels.additive import cuda_loops as additive
from regard.kernels.sparse import cuda_loops as sparse

def build(kernel, **constants):
    kinds = dict(mask="*u8", narrow="*i32", alpha="fp32")
    pointers = "grad context logs query keys energy values weights out slopes of_query of_energy scores".split()
    kinds.update(dict.fromkeys(pointers, "*fp32"), **dict.fromkeys(constants, "constexpr"))
    signature = {name: kinds.get(name, "i32") for name in kernel.arg_names}
    assert compile(ASTSource(kernel, signature, constants), target=GPUTarget("cuda", 90, 32)).asm["cubin"]

for tile in (dict(FACTORS=True, BQ=16, BK=16, BH=16), dict(FACTORS=False, BQ=1, BK=32, BH=64)):
    build(additive.contexts, MASKED=True, PRECISION="ieee", BV=64, **tile)
    build(additive.slopes, MASKED=True, PRECISION="tf32", BV=64, **tile)
    build(additive.gradients, ENERGY=True, **tile)
build(additive.gradients, ENERGY=False, FACTORS=False, BQ=16, BK=1, BH=64)
for kind in ("sparsemax", "entmax15", "entmax"):
    build(sparse.weights, KIND=kind, ROWS=2, BLOCK=512)
    build(sparse.gradients, KIND=kind, ROWS=2, BLOCK=512)
"""


def test_the_kernels_compile_for_a_gpu():
    environment = {name: value for name, value in os.environ.items() if name != "TRITON_INTERPRET"}
    result = subprocess.run([sys.executable, "-c", COMPILE], env=environment, capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
