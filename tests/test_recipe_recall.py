"""The recipe recall: its machine is the equations, pointers learn to copy in seconds, and bad input is named."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor
from torch.testing import assert_close

import regard as rg
from regard.app import cli
from regard.app.data.generators.tasks import CHANNELS, TASKS
from regard.app.memory.heads import State
from regard.app.training.fabric import Fit
from regard.app.training.loop import train
from regard.recipes import recall
from regard.recipes.recall import Config

ADDRESSES = list(recall.KINDS)
SMALL = Config(hidden=12, cells=16, width=6, bits=3, longest=4, draws=3, each=40, batch=8)
QUIET = Fit(accelerator="cpu", threads=1, progress="none")


def made(**settings) -> tuple[recall.Model, dict[str, Tensor]]:
    """A model and a batch of eight."""
    config = replace(SMALL, **settings)
    splits = recall.data(config)
    return recall.Model(config, splits), splits.train.batch(torch.arange(8))


@pytest.mark.parametrize("task", TASKS)
@pytest.mark.parametrize("address", ADDRESSES)
def test_every_weight_learns(address: str, task: str):
    model, batch = made(address=address, task=task)
    total, _ = recall.loss(model, batch)
    total.backward()
    assert all(weights.grad is not None for weights in model.parameters()) and total.isfinite()
    values = recall.evaluate(model.eval(), batch)
    assert all(value.shape == (8,) for value in values.values())


def test_soft_addressing_is_the_equations():
    """The second step of a machine, by hand (Graves et al. 2014, equations 2 to 9)."""
    model, _ = made(address="soft")
    heads, first, hidden = model.heads, torch.randn(2, 12), torch.randn(2, 12)
    state, _ = heads(first, first, heads.begin(2, 5))
    before, memory = state.places[0].over, state.memory
    after, look = heads(hidden, hidden, state)
    key, strength = heads.write.score.key(hidden), torch.nn.functional.softplus(heads.write.score.strength(hidden))
    cosine = torch.nn.functional.cosine_similarity(memory, key.unsqueeze(1), dim=-1)
    gates = heads.write.over.gates(hidden)
    gate, moves, power = gates[:, :1].sigmoid(), gates[:, 1:4].softmax(-1), 1 + gates[:, 4:].exp().log1p()
    mixed = gate * (strength * cosine).softmax(-1) + (1 - gate) * before
    moved = sum(moves[:, n : n + 1] * mixed.roll(n - 1, -1) for n in range(3))
    weights = moved**power / (moved**power).sum(-1, keepdim=True)
    assert_close(look.write.mean.squeeze(1), weights)
    erase, add = heads.erase(hidden).sigmoid(), heads.add(hidden)
    wanted = memory * (1 - weights.unsqueeze(-1) * erase.unsqueeze(1)) + weights.unsqueeze(-1) * add.unsqueeze(1)
    assert_close(after.memory, wanted)
    assert_close(after.read, (look.read.mean @ wanted).squeeze(1))


def test_a_pointer_writes_one_cell_and_reads_one():
    model, _ = made(address="hard")
    heads = model.heads.eval()
    state, look = heads(torch.randn(2, 12), torch.randn(2, 3 + CHANNELS), heads.begin(2, 7))
    cells = state.memory.tensor()
    touched = cells.abs().sum(-1) > 0
    assert (touched.sum(-1) == 1).all()
    rows = torch.arange(2)
    assert touched[rows, look.z[:, 0]].all()
    assert_close(state.read, cells[rows, look.z[:, 1]])


@pytest.mark.parametrize(("jump", "place"), [("start", 0), ("match", 2)])
def test_a_pointer_can_jump(jump: str, place: int):
    model, _ = made(address="hard", jumps=(jump,))
    heads = model.heads.eval()
    heads.moves.bias.data = torch.tensor([0.0, 0.0, 0.0, 50.0]).repeat(2)
    memory = torch.randn(1, 7, 6)
    shown = torch.randn(1, 3 + CHANNELS)
    memory[:, 2] = 3 * heads.content(shown)
    state = State(rg.Cells(memory), torch.zeros(1, 6), torch.tensor([[4, 5]]))
    _, look = heads(torch.zeros(1, 12), shown, state)
    assert (look.z == place).all()


def test_sticky_rows_repeat_their_last_move():
    model, _ = made(address="hard")
    heads = model.heads
    heads.sticky.fill_(1.0 - 1e-7)
    state = heads.begin(64, 50)
    state, _ = heads(torch.zeros(64, 12), torch.zeros(64, 5), state)
    moves = state.moves
    state, _ = heads(torch.zeros(64, 12), torch.zeros(64, 5), state)
    repeated = (state.moves == moves).all(-1)
    assert repeated[1::2].all() and not repeated[::2].all()


def test_the_log_probability_is_that_of_the_draw():
    """Its gradient is that of an unbiased estimator: summed over both moves of both pointers, the score is zero."""
    model, _ = made(address="hard")
    heads = model.heads
    state = heads.begin(1, 9)
    hidden = torch.zeros(1, 12)
    pointer = heads._pointer(hidden, torch.zeros(1, 1, 6), state)
    support = pointer.enumerate_support()
    total = pointer.log_prob(support).exp().sum(0)
    assert_close(total, torch.ones(1, 2))


def test_hard_addressing_learns_to_copy(tmp_path: Path):
    config = Config(
        address="hard", batch=8, draws=8, bits=2, longest=5, hidden=48, width=8, each=800, epochs=5, learning_rate=6e-3
    )
    train(recall, config, tmp_path / "run", QUIET)
    shown = [torch.randint(2, (5, 2)).tolist() for _ in range(10)]
    answers = rg.load(tmp_path / "run").predict(shown)
    assert sum(answer.bits == bits for answer, bits in zip(answers, shown, strict=True)) >= 9


@pytest.mark.unchecked
def test_sequences_of_ones_own(tmp_path: Path, capsys: pytest.CaptureFixture):
    file = tmp_path / "swap.jsonl"
    rows = [[[n % 2, n // 2 % 2], [n // 4 % 2, n // 8 % 2]] for n in range(16)]
    rows[3] = [*rows[3], [1, 1]]  # another length
    file.write_text("\n".join(json.dumps({"input": row, "output": row[::-1]}) for row in rows))
    run = tmp_path / "run"
    train(recall, replace(SMALL, data=str(file), bits=2), run, QUIET)
    assert cli.main(["predict", str(run), "[[0, 1], [1, 1], [0, 0]]", "--steps", "2"]) == 0
    answer = json.loads(capsys.readouterr().out)
    assert len(answer) == 2 and all(len(vector) == 2 for vector in answer)
    assert cli.main(["evaluate", str(run)]) == 0


@pytest.mark.unchecked
def test_what_is_longer_than_in_training_is_answered_and_said(tmp_path: Path, capsys: pytest.CaptureFixture):
    train(recall, replace(SMALL, epochs=1), tmp_path / "run", QUIET)
    assert cli.main(["predict", str(tmp_path / "run"), json.dumps([[0, 1, 1]] * 30)]) == 0
    assert "longer than the 4 vectors of training" in capsys.readouterr().out


@pytest.mark.parametrize(("settings", "said"), [
    ({"cells": 3}, "--cells expected at least the 4 vectors to be stored, but got 3"),
    ({"task": "associative", "cells": 11}, "--cells expected at least the 12 vectors"),
    ({"shift": 17}, "--shift expected at most the 16 cells of the memory, but got 17"),
    ({"width": 0}, "--width expected at least 1, but got 0"),
    ({"draws": 1}, "--draws expected at least 2"),
    ({"sticky": 1.0}, "--sticky expected a share from 0 up to 1"),
])  # fmt: skip
def test_bad_settings_are_named(settings: dict, said: str):
    with pytest.raises(ValueError, match=said):
        replace(SMALL, **settings)


@pytest.mark.parametrize(("text", "said"), [
    ("nonsense", r"line 1: expected \{\"input\""),
    ('{"input": [[0, 1]]}', "line 1: expected"),
    ('{"input": [[0, 1], [1]], "output": [[1, 0]]}', "line 1: input expected vectors of 2 bits, but got one of 1"),
    ('{"input": [[0, 1]], "output": [[1]]}', "line 1: output expected vectors of 2 bits, but got one of 1"),
    ('{"input": [[0, 2]], "output": [[1, 0]]}', "line 1: input expected bits of 0 and 1"),
    ('{"input": [], "output": [[1, 0]]}', "line 1: input expected some vectors"),
    ('{"input": [[0, 1]], "output": [[1, 0]]}', "expected at least 10 sequences, but got 1"),
])  # fmt: skip
def test_bad_sequences_are_named(tmp_path: Path, text: str, said: str):
    (tmp_path / "bad.jsonl").write_text(text)
    with pytest.raises(ValueError, match=said):
        recall.data(replace(SMALL, data=str(tmp_path / "bad.jsonl")))


@pytest.mark.unchecked
def test_a_run_is_looked_at(tmp_path: Path):
    for address in ("hard", "content", "none"):
        train(recall, replace(SMALL, address=address, epochs=1), tmp_path / address, QUIET)
        assert cli.main(["look", str(tmp_path / address)]) == 0
        assert (tmp_path / address / "report.html").exists()
