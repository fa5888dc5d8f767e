"""Writes: dense ones and those of events against loops, cells that stay bit for bit, and cells that are not copied."""

import copy
import itertools
import pickle
import re

import examples
import pytest
import torch
from torch import Tensor
from torch.autograd import gradcheck, gradgradcheck
from torch.testing import assert_close

import regard as rg
from regard import Cells, OneHot, write

B, Q, K, V = 2, 3, 4, 2
PLACES = torch.tensor([[2, -1, 2], [0, 3, 1]])
NOTHING = OneHot(weights=torch.zeros(B, Q, K, dtype=torch.float64))
ONE = OneHot(weights=torch.zeros(B, 1, K, dtype=torch.float64))


def given() -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """A memory (B, K, V), weights (B, Q, K), and what is erased and added (B, Q, V)."""
    memory, add = *examples.tensors(B, K, V), *examples.tensors(B, Q, V)
    return memory, torch.randn(B, Q, K, dtype=torch.float64).softmax(-1), torch.rand(B, Q, V).double(), add


def written_by_loops(memory: Tensor, weights: Tensor, erase: Tensor, add: Tensor) -> Tensor:
    """M_k (1 - w_k e) + w_k a, number by number."""
    memory = memory.clone()
    for row, query, cell, column in itertools.product(range(B), range(erase.shape[1]), range(K), range(V)):
        weight, old = weights[row, query, cell], memory[row, cell, column].clone()
        memory[row, cell, column] = old * (1 - weight * erase[row, query, column]) + weight * add[row, query, column]
    return memory


def one_hot(z: Tensor) -> Tensor:
    return NOTHING.indicator(z)


class TestWrite:
    def test_to_a_mean_is_the_sum_cell_by_cell(self):
        memory, weights, erase, add = given()
        found = write(memory, OneHot(weights=weights), erase, add)
        assert_close(found, written_by_loops(memory, weights, erase, add))

    def test_to_an_event_is_the_same_with_weights_of_one_and_zero(self):
        memory, _, erase, add = given()
        found = write(memory, NOTHING, erase, add, z=PLACES)
        assert_close(found, written_by_loops(memory, one_hot(PLACES), erase, add))
        assert_close(found, write(memory, OneHot(weights=one_hot(PLACES)), erase, add))

    @pytest.mark.parametrize("z", [None, PLACES])
    def test_queries_at_once_are_queries_in_turn(self, z: Tensor | None):
        memory, weights, erase, add = given()
        turns = memory
        for query in range(Q):
            now = slice(query, query + 1)
            positions = OneHot(weights=weights[:, now])
            turns = write(turns, positions, erase[:, now], add[:, now], None if z is None else z[:, now])
        at_once = write(memory, OneHot(weights=weights), erase, add, z)
        assert torch.equal(at_once, turns)
        backwards = write(
            memory, OneHot(weights=weights.flip(1)), erase.flip(1), add.flip(1), None if z is None else z.flip(1)
        )
        assert not torch.equal(at_once, backwards)

    def test_an_event_changes_one_cell_and_no_bit_of_another(self):
        memory = torch.randn(B, K, V)
        memory[0, 1], memory[1, 0] = torch.tensor([torch.nan, -0.0]), torch.tensor([torch.inf, 1e-45])
        before = memory.clone()
        z, one = torch.tensor([[2], [3]]), torch.ones(B, 1, V)
        found = write(memory, NOTHING, 0.5 * one, 7 * one, z=z)
        same = found.view(torch.int32) == before.view(torch.int32)
        assert torch.equal(same.all(-1), NOTHING.indicator(z)[:, 0] == 0)
        assert torch.equal(memory.view(torch.int32), before.view(torch.int32))
        mixed = write(memory, OneHot(weights=one_hot(z).float()), 0.5 * one, 7 * one)
        assert not torch.equal(mixed.view(torch.int32)[found == found], found.view(torch.int32)[found == found])

    def test_nowhere_writes_nothing(self):
        memory, _, erase, add = given()
        memory[:, 0, 0] = torch.nan
        for found in (
            write(memory, NOTHING, erase, add, z=torch.full((B, Q), -1)),
            write(Cells(memory), NOTHING, erase, add, z=torch.full((B, Q), -1)).tensor(),
        ):
            assert torch.equal(found.view(torch.int64), memory.view(torch.int64))
        finite = memory.nan_to_num()
        assert torch.equal(write(finite, NOTHING, erase, add), finite)

    def test_to_erase_all_and_to_erase_nothing(self):
        memory, _, _, add = given()
        z, new = PLACES[:, :1], add[:, :1]
        ones, cell = torch.ones_like(new), torch.arange(B)
        assert torch.equal(write(memory, ONE, ones, new, z)[cell, z[:, 0]], new[:, 0])
        assert torch.equal(write(memory, ONE, 0 * ones, new, z)[cell, z[:, 0]], (memory[cell, z[:, 0]] + new[:, 0]))

    @pytest.mark.parametrize("z", [None, PLACES])
    def test_gradients(self, z: Tensor | None):
        leaves = [each.requires_grad_() for each in given()]
        function = lambda memory, weights, erase, add: write(memory, OneHot(weights=weights), erase, add, z)  # noqa: E731
        assert gradcheck(function, leaves)
        assert gradgradcheck(function, leaves)

    def test_no_gradient_reaches_what_is_written_nowhere(self):
        memory, _, erase, add = (each.requires_grad_() for each in given())
        grads = torch.autograd.grad(write(memory, NOTHING, erase, add, z=PLACES).square().sum(), (erase, add))
        assert all((each[0, 1] == 0).all() and (each[1] != 0).all() for each in grads)

    @pytest.mark.parametrize("z", [None, PLACES])
    def test_rows_can_be_selected_before_or_after(self, z: Tensor | None):
        memory, weights, erase, add = given()
        rows, chosen = torch.tensor([1, 1, 0]), None if z is None else z[[1, 1, 0]]
        early = write(memory[rows], OneHot(weights=weights[rows]), erase[rows], add[rows], chosen)
        assert torch.equal(early, write(memory, OneHot(weights=weights), erase, add, z)[rows])

    @pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
    def test_an_event_leaves_a_memory_its_precision(self, dtype: torch.dtype):
        memory, _, erase, add = given()
        low = write(memory.to(dtype), NOTHING, erase.float(), add.float(), z=PLACES)
        cells = Cells(memory.to(dtype)).write(PLACES, erase.float(), add.float()).tensor()
        assert low.dtype == dtype and torch.equal(low, cells)
        wanted = write(memory, NOTHING, erase, add, z=PLACES)
        assert_close(low.double(), wanted, atol=0.05, rtol=0)

    @pytest.mark.parametrize("batch", [(), (2, 3)])
    def test_any_batch(self, batch: tuple[int, ...]):
        memory, erase, add = torch.randn(*batch, K, V), torch.rand(*batch, 1, V), torch.randn(*batch, 1, V)
        z = torch.full((*batch, 1), 3)
        positions = OneHot(weights=torch.eye(K)[3].expand(*batch, 1, K))
        wanted = torch.cat((memory[..., :3, :], memory[..., 3:, :] * (1 - erase) + add), -2)
        assert_close(write(memory, positions, erase, add), wanted)
        assert_close(write(memory, positions, erase, add, z), wanted)
        assert_close(write(Cells(memory), positions, erase, add, z).tensor(), wanted)


class Plain:
    """What `Cells` does, on a tensor: the road that autograd differentiates by itself."""

    def __init__(self, memory: Tensor):
        self.memory = memory

    def read(self, z: Tensor) -> Tensor:
        return rg.positions.base.take(self.memory, z.unsqueeze(-1), -2)

    def write(self, z: Tensor, erase: Tensor, add: Tensor) -> "Plain":
        self.memory = write(self.memory, NOTHING, erase, add, z=z)
        return self

    def tensor(self) -> Tensor:
        return self.memory

    def select(self, rows: Tensor) -> "Plain":
        return Plain(self.memory[rows])


FIRST, AGAIN = torch.tensor([[1, 1], [0, 3]]), torch.tensor([[1, 2], [3, 3]])
DRAWS = torch.tensor([[[0], [1]], [[1], [3]], [[1], [0]]])
ROWS = torch.tensor([1, 0, 1])


def story(kind: type, memory: Tensor, erase: Tensor, add: Tensor) -> tuple[Tensor, ...]:
    """Reads and writes by turns: of a cell twice, of cells never written, with draws in front, of all, of some rows."""
    cells = kind(memory)
    seen = [cells.read(FIRST)]
    cells.write(PLACES, erase, add)
    seen += [cells.read(FIRST), cells.read(AGAIN), cells.read(DRAWS)]
    cells.write(PLACES[:, :2], erase[:, 1:], add[:, 1:] * seen[1])
    seen += [cells.tensor(), cells.read(AGAIN)]
    chosen = cells.select(ROWS).write(PLACES[ROWS], erase[ROWS], seen[-1][ROWS].sum(1, keepdim=True) * add[ROWS])
    cells.write(PLACES, erase.flip(1), add.flip(1))
    return *seen, chosen.read(FIRST[ROWS]), chosen.tensor(), cells.read(DRAWS[:, :, [0, 0]])


def leaves() -> tuple[Tensor, Tensor, Tensor]:
    """A memory, and what is erased and added, as parameters."""
    memory, _, erase, add = given()
    return memory.requires_grad_(), erase.requires_grad_(), add.requires_grad_()


def total(seen: tuple[Tensor, ...]) -> Tensor:
    """A number that depends on everything that was seen, each time otherwise."""
    return sum((each.square() * (1 + place)).sum() for place, each in enumerate(seen))


def stopped(gradient: Tensor) -> Tensor:
    """A hook that stops a pass."""
    raise RuntimeError("half way")


class TestCells:
    def test_they_are_the_tensor(self):
        memory, erase, add = leaves()
        for found, wanted in zip(story(Cells, memory, erase, add), story(Plain, memory, erase, add), strict=True):
            assert torch.equal(found, wanted)

    def test_their_gradients_are_those_of_the_tensor(self):
        arguments = leaves()
        found, wanted = (torch.autograd.grad(total(story(kind, *arguments)), arguments) for kind in (Cells, Plain))
        assert_close(found, wanted)

    def test_gradients(self):
        assert gradcheck(lambda *arguments: story(Cells, *arguments), leaves())

    @pytest.mark.parametrize("which", range(9))
    def test_the_gradient_of_one_thing_that_was_seen(self, which: int):
        """What comes later leaves it as it was."""
        arguments = leaves()
        found, wanted = (
            torch.autograd.grad(story(kind, *arguments)[which].square().sum(), arguments, allow_unused=True)
            for kind in (Cells, Plain)
        )
        for ours, plain, like in zip(found, wanted, arguments, strict=True):
            nothing = torch.zeros_like(like)
            assert_close(nothing if ours is None else ours, nothing if plain is None else plain)

    def test_a_step_backwards_that_forgot_to_erase_would_be_wrong(self, monkeypatch: pytest.MonkeyPatch):
        arguments = leaves()
        wanted = torch.autograd.grad(total(story(Plain, *arguments)), arguments)
        right = Tensor.scatter_
        forgotten = lambda self, dim, index, new: right(self, dim, index, new if torch.is_grad_enabled() else 2 * new)  # noqa: E731
        seen = total(story(Cells, *arguments))
        monkeypatch.setattr(Tensor, "scatter_", forgotten)
        found = torch.autograd.grad(seen, arguments)
        assert (found[0] - wanted[0]).abs().max() > 1e-2

    def test_two_passes_give_the_same(self):
        arguments = leaves()
        seen = total(story(Cells, *arguments))
        first = torch.autograd.grad(seen, arguments, retain_graph=True)
        assert all(map(torch.equal, first, torch.autograd.grad(seen, arguments, retain_graph=True)))
        seen.backward(retain_graph=True)
        seen.backward()
        for leaf, wanted in zip(arguments, first, strict=True):
            assert torch.equal(leaf.grad, 2 * wanted)

    @pytest.mark.parametrize("some", [[0], [1], [2], [1, 2], [2, 0]])
    def test_the_gradient_of_some_inputs_and_then_of_all(self, some: list[int]):
        arguments = leaves()
        wanted = torch.autograd.grad(total(story(Plain, *arguments)), arguments)
        seen = total(story(Cells, *arguments))
        part = torch.autograd.grad(seen, [arguments[each] for each in some], retain_graph=True)
        assert_close(part, tuple(wanted[each] for each in some))
        assert_close(torch.autograd.grad(seen, arguments), wanted)

    def test_a_pass_that_stops_half_way_spoils_no_later_one(self):
        memory, erase, add = leaves()
        cells = Cells(memory).write(PLACES, erase, add)
        early, late = cells.read(FIRST).sum(), cells.write(PLACES, erase, add).read(FIRST).sum()
        wanted = [torch.autograd.grad(each, memory, retain_graph=True)[0] for each in (early, late)]
        hook = add.register_hook(stopped)
        with pytest.raises(RuntimeError, match="half way"):
            late.backward(retain_graph=True)
        hook.remove()
        assert_close([torch.autograd.grad(each, memory, retain_graph=True)[0] for each in (early, late)], wanted)

    def test_a_learned_beginning(self):
        """One parameter for all rows."""
        start, z = torch.zeros(1, K, V, requires_grad=True), torch.tensor([[1, 1], [2, 0]])
        Cells(start.expand(B, K, V)).read(z).sum().backward()
        assert torch.equal(start.grad[0, :, 0], torch.tensor([1.0, 2.0, 1.0, 0.0]))

    def test_the_tensor_that_it_begins_as_stays(self):
        memory, _, erase, add = given()
        before = memory.clone()
        cells = Cells(memory)
        seen = cells.read(PLACES.clamp(min=0)), cells.tensor()
        kept = [each.clone() for each in seen]
        cells.write(PLACES, erase, add)
        assert torch.equal(memory, before) and all(map(torch.equal, seen, kept))
        memory.zero_()
        assert not (cells.tensor() == 0).all()

    def test_what_is_selected_goes_its_own_way(self):
        memory, _, erase, add = given()
        cells = Cells(memory)
        chosen = rg.select(cells, torch.tensor([1, 1]))
        chosen.write(PLACES, erase, add)
        assert torch.equal(cells.tensor(), memory) and chosen.shape == (2, K, V)
        assert not torch.equal(chosen.tensor(), memory[[1, 1]])

    def test_a_read_without_gradients_cuts_nothing_off(self):
        memory, erase, add = leaves()
        cells = Cells(memory).write(PLACES, erase, add)
        with torch.no_grad():
            assert not cells.read(FIRST).requires_grad and not cells.tensor().requires_grad
        with torch.inference_mode():
            cells.read(FIRST)
        wanted = torch.autograd.grad(total((write(memory, NOTHING, erase, add, z=PLACES),)), (memory, erase, add))
        assert_close(torch.autograd.grad(total((cells.tensor(),)), (memory, erase, add)), wanted)

    def test_a_write_without_gradients_is_a_new_beginning(self):
        memory, erase, add = leaves()
        cells = Cells(memory)
        with torch.no_grad():
            cells.write(PLACES, erase, add)
        cells.write(PLACES, erase, add)
        start = write(memory, NOTHING, erase, add, z=PLACES).detach()
        wanted = torch.autograd.grad(total((write(start, NOTHING, erase, add, z=PLACES),)), (erase, add))
        found = torch.autograd.grad(total((cells.tensor(),)), (memory, erase, add), allow_unused=True)
        assert found[0] is None
        assert_close(found[1:], wanted)

    def test_no_place_and_no_query(self):
        cells = Cells(torch.ones(B, K, V))
        none, nothing = torch.zeros(B, 0, dtype=torch.long), torch.zeros(B, 0, V)
        assert cells.read(none).shape == (B, 0, V) and cells.read(none.expand(5, B, 0)).shape == (5, B, 0, V)
        assert (cells.write(none, nothing, nothing).tensor() == 1).all()

    @pytest.mark.parametrize("read", [rg.mean, rg.sample, rg.mode, rg.straight_through, rg.relaxed(0.5)])
    def test_they_stand_where_values_do(self, read):
        query, keys, values = examples.inputs()
        mask, answers = rg.padding(torch.tensor([2, 4]), K), []
        for memory in (values.requires_grad_(), Cells(values)):
            torch.manual_seed(1)
            out = rg.attend(query.expand(5, *query.shape), keys, memory, read=read, mask=mask)
            answers.append((out.context, *torch.autograd.grad(out.context.square().sum(), values)))
        assert_close(*answers)

    def test_a_select_of_what_an_attention_looks_at(self):
        query, keys, values = examples.inputs()
        attention, rows = rg.Attention(), torch.tensor([1, 1, 0])
        seen = rg.select(attention.prepare(keys, Cells(values)), rows)
        assert_close(
            attention(query[rows], seen).context, attention(query, attention.prepare(keys, values)).context[rows]
        )

    @pytest.mark.parametrize("copied", [copy.copy, copy.deepcopy, lambda cells: pickle.loads(pickle.dumps(cells))])
    def test_copies_hold_the_numbers_alone(self, copied):
        memory, erase, add = leaves()
        cells = Cells(memory).write(PLACES, erase, add)
        other = copied(cells)
        assert torch.equal(other.tensor(), cells.tensor())
        other.write(PLACES, erase, add)
        assert not torch.equal(other.tensor(), cells.tensor())
        assert torch.autograd.grad(copied(cells).tensor().sum(), memory, allow_unused=True) == (None,)

    def test_under_autocast(self):
        memory, _, erase, add = (each.float() for each in given())
        leaf = memory.clone().requires_grad_()
        with torch.autocast("cpu", torch.bfloat16):
            low = (add @ torch.eye(V)).requires_grad_()
            seen = Cells(leaf).write(PLACES, erase, low).tensor()
        assert seen.dtype == torch.float32 and low.dtype == torch.bfloat16
        seen.sum().backward()
        assert low.grad.dtype == torch.bfloat16 and leaf.grad.isfinite().all()


@pytest.mark.unchecked
class TestErrors:
    @pytest.mark.parametrize(
        ("name", "shape", "wanted"),
        [
            ("erase", (B, Q, V + 1), (B, Q, V)),
            ("add", (B, Q + 1, V), (B, Q, V)),
            ("add", (B + 1, Q, V), (B, Q, V)),
            ("erase", (V,), (B, 1, V)),
            ("positions", (B, Q + 1, K), (B, Q, K)),
            ("positions", (B, Q, K - 1), (B, Q, K)),
            ("z", (1, Q), (B, Q)),
            ("z", (B, Q, 1), (B, Q)),
        ],
    )
    def test_shapes_that_do_not_fit(self, name: str, shape: tuple[int, ...], wanted: tuple[int, ...]):
        shapes = {"positions": (B, Q, K), "erase": (B, Q, V), "add": (B, Q, V), name: shape}
        parts = {
            each: torch.zeros(size, dtype=torch.long if each == "z" else torch.float) for each, size in shapes.items()
        }
        parts["positions"] = OneHot(weights=parts["positions"])
        words = f"{name} expected the shape {wanted} for a memory of shape {(B, K, V)}, but got {shape}."
        with pytest.raises(ValueError, match=f"^{re.escape(words)}$"):
            write(torch.zeros(B, K, V), **parts)
        if name != "positions":
            with pytest.raises(ValueError, match=f"^{re.escape(words)}$"):
                write(Cells(torch.zeros(B, K, V)), **{"z": PLACES} | parts)

    def test_cells_without_a_place(self):
        new = torch.zeros(B, Q, V)
        with pytest.raises(
            TypeError, match=r"^write expected z, one place of each row, for Cells, which no mean is written to\.$"
        ):
            write(Cells(torch.zeros(B, K, V)), NOTHING, new, new)

    @pytest.mark.parametrize("shape", [(3,), (2, 0, 3)])
    def test_no_cells(self, shape: tuple[int, ...]):
        with pytest.raises(
            ValueError, match=r"^Cells expected the shape \(\*B, K, V\) with K of at least 1, but got \("
        ):
            Cells(torch.zeros(shape))

    @pytest.mark.parametrize("shape", [(3,), (3, 1), (2, 3, 1)])
    def test_a_read_of_another_batch(self, shape: tuple[int, ...]):
        with pytest.raises(ValueError, match=r"^z expected the batch \(2,\) of the cells, but got \("):
            Cells(torch.zeros(B, K, V)).read(torch.zeros(shape, dtype=torch.long))

    def test_differentiating_twice(self):
        memory, erase, add = leaves()
        seen = Cells(memory).write(PLACES, erase, add).read(FIRST)
        with pytest.raises(
            RuntimeError,
            match=r"^Cells expected to be differentiated once, but got create_graph=True: a tensor in their place can "
            r"be differentiated again\.$",
        ):
            torch.autograd.grad(seen.sum(), erase, create_graph=True)
        torch.autograd.grad(seen.sum(), erase)
