"""Answer with a sequence that was shown before: by a controller that reads and writes a memory.

Graves et al. 2014, "Neural Turing machines": the memory is addressed softly. A head is a distribution over all cells,
found by content, mixed with where it was, moved and sharpened; it reads their mean, and writes to all of them. Zaremba
and Sutskever 2015, "Reinforcement learning neural Turing machines": it is addressed hard. A head is a pointer that
moves by a cell, reads or writes that one, and learns by which moves the answers became better; so a step costs the
same however large the memory is.

- `soft` is learned by backpropagation through all cells.
- `hard` draws its moves; several draws of a sequence are compared with each other (`leave_one_out`), each move by the
  cost of the answers after it, or one with what a critic expects. Sequences are short at first.
- `content` is soft addressing without moves, and `none` an LSTM without memory.

    regard train recall                                       copy by soft addressing: minutes on one core
    regard train recall --address hard --task reverse
    regard compare recall                                     none, content, soft and hard side by side

To reach: copies of sequences six times as long as any in training, without a wrong bit.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor, nn

import regard as rg
from regard.app import flags
from regard.app.data.generators.tasks import CHANNELS, ITEM, TASKS, Drawn, Episode
from regard.app.data.sequences import sequences
from regard.app.data.splits import Splits
from regard.app.facts import Facts, read_facts
from regard.app.memory.answering import READS, Prediction, inputs, predict, prepare, written  # noqa: F401
from regard.app.memory.curriculum import Lengths
from regard.app.memory.heads import Hard, Look, Soft
from regard.app.report.report import Picture
from regard.app.report.tape_figures import tape
from regard.app.report.text_figures import png
from regard.app.training.schedules import adam, clipped
from regard.recipes.base import COSTS, Measure, Metric

METRIC = Metric("valid_cost", "min", "nats a bit", label="The cost", unit="nats")

NAMED_BY, QUICK = ("task", "address"), {"epochs": 4}

COLUMNS = (
    Measure("test_wrong", 1, "wrong bits", "", "Of a test {noun}, which is longer than those of training."),
    Measure("test_error", 100, "test error", "%", "Share of the test {noun}s with a wrong bit, ± {spread}."),
    *COSTS,
)

KINDS = {
    "soft": "Reads and writes all cells, by content and by moves from where it was.",
    "hard": "Reads one cell and writes one: pointers that move, by draws in training.",
    "content": "Reads and writes all cells, by their content alone.",
    "none": "An LSTM without memory.",
}

FLOOR = 0.05
"""The weight of the entropy that moves lack, in nats."""


@dataclass
class Config:
    """What a run is a function of."""

    seed: int = 0
    """Of the weights, the sequences and the draws."""
    data: str = "generated"
    """generated, by the task; or a file of JSON lines, {"input": [[0, 1, ...], ...], "output": [[...], ...]}."""
    task: Literal["copy", "reverse", "repeat", "associative", "sort", "ngrams"] = "copy"
    """What is to be answered, of generated sequences."""
    address: Literal["soft", "hard", "content", "none"] = "soft"
    """How the memory is addressed."""
    controller: Literal["feedforward", "lstm"] | None = None
    """What controls it; if not given, an LSTM for pointers and where there is no memory, else a layer."""
    feedback: bool | None = None
    """Whether the controller is shown what was read the step before; if not given, unless pointers read."""
    hidden: int = 100
    """Units of the controller."""
    cells: int = 128
    """Of the memory; a longer sequence gets as many as it has steps."""
    width: int = 20
    """Numbers in a cell."""
    shift: int = 3
    """By how many places a soft head may move: with 3, back, not at all, or forth."""
    pointers: Literal[1, 2] = 2
    """Of hard addressing: one that reads and writes, or one for each."""
    jumps: tuple[Literal["start", "match"], ...] = ()
    """Where a pointer may jump: to the first cell, or to the one most like what is shown."""
    draws: int = 8
    """Of the moves of each sequence, in hard training."""
    estimator: Literal["leave-one-out", "actor-critic"] = "leave-one-out"
    """What a draw is compared with: the others, or what a critic expects."""
    sticky: float = 0.6
    """How often half of the draws repeat their last move."""
    entropy: float = 1.0
    """What the entropy of the moves of a step is kept at, in nats, at first; it falls as sequences grow longer."""
    start: int = 3
    """Vectors of a sequence at first, at most, while moves are drawn."""
    bits: int = 8
    """Of a vector that is shown."""
    longest: int = 20
    """Vectors of a sequence in training, at most; items, of associative recall, and tens of bits, of ngrams."""
    epochs: int = 10
    """Times so many sequences."""
    each: int = 3200
    """Sequences of an epoch, new ones every time."""
    batch: int = 32
    """Sequences of a step, all of one length."""
    learning_rate: float = 4e-3
    """The highest; it rises over a fiftieth of the steps, and then falls to zero by a cosine."""
    clip: float = 1.0
    """The largest norm of a gradient."""

    def __post_init__(self) -> None:
        flags.check_training(self, "hidden", "cells", "width", "shift", "bits", "longest", "start", "each")
        flags.share(self, "sticky")
        flags.above_zero(self, "clip")
        if self.draws < 2 and self.estimator == "leave-one-out":
            raise ValueError(f"--draws expected at least 2, as draws are compared, but got {self.draws}")
        if self.shift > self.cells:
            raise ValueError(f"--shift expected at most the {self.cells} cells of the memory, but got {self.shift}")
        stored = self.longest * (ITEM if self.task == "associative" else 1)
        if self.address != "none" and self.data == "generated" and self.task != "ngrams" and stored > self.cells:
            raise ValueError(f"--cells expected at least the {stored} vectors to be stored, but got {self.cells}")


def data(config: Config) -> Splits:
    """Sequences of the task, those to choose by and to judge by longer than the others; or those of a file."""
    if config.data != "generated":
        return sequences(Path(config.data))
    task, bits = TASKS[config.task], 1 if config.task == "ngrams" else config.bits
    train, longest = Drawn(task, config.each, config.longest, bits), task.longer * config.longest
    valid, test = (Drawn(task, 100, longest, bits, seed) for seed in (1, 2))
    about = f"{config.task} of {bits} bits, up to {config.longest} in training and {longest} after it"
    return Splits(train, valid, test, f"generated sequences: {about}", shape=(bits,))


def known(config: Config, weights: Mapping[str, Tensor]) -> Splits:
    """The width of what is shown."""
    none = Drawn(TASKS[config.task], 0, 1, 1)
    return Splits(none, none, none, "", shape=tuple(read_facts(weights)["shape"]))


def tested(config: Config, weights: Mapping[str, Tensor]) -> Splits:
    """Sequences as wide as those that were learned, to test on."""
    (bits,) = known(config, weights).shape
    return data(config) if config.data == "generated" else sequences(Path(config.data), bits)


class Output(NamedTuple):
    """What a machine answered to sequences of T steps, and where it looked; S draws are in front in training."""

    logits: Tensor
    """Of the bits, (B, T, W)."""
    hidden: Tensor
    """The controller's, (B, T, H)."""
    looks: Sequence[Look]
    """Of each step; none without a memory."""


class Model(nn.Module):
    """A controller with a memory."""

    def __init__(self, config: Config, splits: Splits):
        super().__init__()
        (bits,) = splits.shape
        shown, hidden, width = bits + CHANNELS, config.hidden, config.width
        self.config, self.facts = config, Facts(shape=[bits])
        heads = {
            "soft": lambda: Soft(hidden, width, config.shift, content_alone=False),
            "content": lambda: Soft(hidden, width, config.shift, content_alone=True),
            "hard": lambda: Hard(hidden, shown, width, config.pointers, config.jumps, config.sticky),
            "none": lambda: None,
        }
        self.heads: Any = heads[config.address]()
        hard, given = config.address == "hard", config.feedback
        self.feedback = self.heads is not None and (not hard if given is None else given)
        seen, by = shown + width * self.feedback, config.controller or ("lstm" if hard else "feedforward")
        self.lstm = nn.LSTMCell(seen, hidden) if by == "lstm" or not self.heads else None
        self.layer = None if self.lstm else nn.Linear(seen, hidden)
        answering = {"hard": width, "none": hidden}.get(config.address, hidden + width)
        self.answer = nn.Linear(answering, bits)
        self.critic = rg.Learned(hidden, hidden) if config.estimator == "actor-critic" else None
        self.lengths = Lengths(config.start if hard and config.data == "generated" else config.longest, config.longest)

    def forward(self, shown: Tensor) -> Output:
        """What it answers to sequences (B, T, D)."""
        count, length, _ = shown.shape
        state: Any = self.heads.begin(count, max(self.config.cells, length)) if self.heads else None
        control, hiddens, reads, looks = None, [], [], []
        for each in shown.unbind(1):
            seen = torch.cat((each, state.read), -1) if self.feedback else each
            if self.lstm is not None:
                control = self.lstm(seen, control)
                hiddens.append(control[0])
            else:
                hiddens.append(self.layer(seen).tanh())  # pyright: ignore[reportOptionalCall]
            if self.heads:
                state, look = self.heads(hiddens[-1], each, state)
                reads.append(state.read)
                looks.append(look)
        hidden = torch.stack(hiddens, 1)
        known = [torch.stack(reads, 1)] if reads else []
        known += [] if self.config.address == "hard" else [hidden]  # or it would answer while the pointers are lost
        return Output(self.answer(torch.cat(known, -1)), hidden, looks)


def episode(model: Model, batch: Mapping[str, Tensor], longest: int | None = None) -> Episode:
    """The sequences of a batch: those of a task as long as their numbers, or of one length up to `longest`, drawn."""
    if "input" in batch:
        return Episode(batch["input"], batch["target"], batch["asked"])
    numbers = batch["numbers"]
    if longest is not None:
        numbers = numbers[:, : 1 + int(1e3 * numbers[0, -1, -1] % 1 * longest)]
    return TASKS[model.config.task].make(numbers)


def loss(model: Model, batch: dict[str, Tensor]) -> tuple[Tensor, dict[str, Tensor]]:
    """The cost of a bit; of hard addressing that of a sequence, with what trains its moves, whose value is zero."""
    given = episode(model, batch, int(model.lengths.cap))
    if model.config.address != "hard":
        cost = given.costs(model(given.input).logits).sum() / given.asked.sum()
        return cost, {"longest": model.lengths.cap}
    return by_draws(model, given)


def by_draws(model: Any, given: Episode) -> tuple[Tensor, dict[str, Tensor]]:
    """The mean cost of a sequence, what trains the moves, and what keeps them from being sure too early."""
    config, rows = model.config, len(given.input)
    output = model(given.input.repeat_interleave(config.draws, 0))  # draws side by side, every other one sticky
    cost = given.costs(drawn(output.logits, rows))  # (S, B, T)
    log_prob = drawn(torch.stack([look.log_prob for look in output.looks], -1), rows)
    entropy = torch.stack([look.entropy for look in output.looks], -1).mean(-1)  # (S B)
    later = rg.to_go(cost.detach())
    if model.critic is None:
        policy = rg.leave_one_out(log_prob, later)
    else:
        value = drawn(model.critic(output.hidden), rows)
        policy = rg.actor_critic(log_prob, cost.detach(), value.detach()) + (value - later).square()
    lengths = model.lengths
    lacking = (lengths.exploring * config.entropy * config.start / lengths.cap - entropy).relu() * given.input.shape[1]
    total = (cost + policy).sum(-1).mean() + FLOOR * lacking.mean()
    mean = cost.sum() / given.asked.sum() / config.draws
    return total, {"cost": mean, "entropy": entropy.mean(), "longest": lengths.cap}


def drawn(values: Tensor, rows: int) -> Tensor:
    """Values of the draws of rows, (B S, ...), with the draws in front, (S, B, ...)."""
    return values.unflatten(0, (rows, -1)).transpose(0, 1)


@torch.no_grad()
def after_step(model: Model) -> None:
    """Lets longer sequences follow where pointers know those so far, or shorter ones."""
    config, lengths, bits = model.config, model.lengths, model.facts.values["shape"][0]
    if config.address != "hard" or config.data != "generated" or not lengths.is_due():
        return
    task = TASKS[config.task]
    given = task.make(torch.rand(config.batch, int(lengths.cap), task.numbers(bits)))
    wrong = given.wrong(model.eval()(given.input).logits)
    model.train()
    lengths.judge(float(wrong.sum() / given.bits))
    model.heads.sticky *= lengths.exploring


def evaluate(model: Model, batch: dict[str, Tensor]) -> dict[str, Tensor]:
    """Of each sequence, (B,): the `cost` of a bit, how many are `wrong`, and whether any is."""
    given = episode(model, batch)
    logits = model(given.input).logits
    cost, wrong = given.costs(logits).sum(1) / given.asked.sum(1), given.wrong(logits)
    return {"cost": cost, "wrong": wrong, "error": (wrong > 0).float()}


def optimiser(model: nn.Module, config: Config, steps: int) -> tuple[Any, Any]:
    """Adam, its rate rising over a fiftieth of the steps, and its gradients clipped."""
    found, schedule = adam(model.parameters(), config.learning_rate, steps, rising=50)
    return clipped(found, config.clip), schedule


def noun(splits: Splits) -> str:
    """What is remembered."""
    return "sequence"


@torch.no_grad()
def look(model: Model, batch: dict[str, Tensor]) -> list[Picture]:
    """Of each sequence what was shown and answered at every step, and below it which cells were written and read."""
    given = episode(model, batch)
    output, pictures = model(given.input), []
    for n, count in enumerate(given.wrong(output.logits).tolist()):
        tapes = [[each.cells(part)[n] for each in output.looks] for part in ("write", "read")]
        answers = output.logits[n].sigmoid() * given.asked[n].unsqueeze(-1)
        figure = tape(given.input[n], answers, *(torch.stack(each) for each in tapes if each))
        how = "Each column is a step: what is shown, what is answered, and where the heads write and read."
        pictures.append(Picture(f"{count:.0f} wrong bits", how, png(figure)))
    return pictures
