"""What `variance` measures: every estimator, and what it is tried on, units that each look at one patch of a digit.

    scores = queries . keys(patches) / sqrt(V),   z_n ~ softmax(scores_n),   cost = -log p(label | mean_n values[z_n])

The network is trained for a few seconds by `leave_one_out`, each time with other units out of 64, so that any number
of them can classify; then it is frozen.
"""

from collections.abc import Callable, Iterator
from functools import partial
from typing import TypeVar

import torch
from torch import Tensor, nn

import regard as rg
from regard.app.data import Split

PLACES, PATCH, SIZE = 16, 7, 32
"""An image is cut into 16 patches of 7x7 pixels; keys and values have 32 numbers."""
UNITS, CLASSES = 64, 10
STEPS, BATCH, RATE = 300, 64, 3e-3
"""Of training, and of fitting each baseline, critic and control."""
Loss = Callable[[Tensor], Tensor]
"""From scores (R, B, N, K), R times the same, to losses (R, B, ...) whose gradients are R independent estimates."""
Cost = Callable[[Tensor], Tensor]
"""From what the units read, (*S, B, N, V), to costs (*S, B) or (*S, B, N)."""
Part = TypeVar("Part", bound=nn.Module)


class Network(nn.Module):
    """Keys and values of the patches, the queries of the units, and what classifies the mean of what they read."""

    def __init__(self):
        super().__init__()
        self.queries = nn.Parameter(torch.randn(UNITS, SIZE) / 2)
        self.key, self.value = nn.Linear(PATCH**2, SIZE), nn.Linear(PATCH**2, SIZE)
        self.key_place, self.value_place = (nn.Parameter(torch.randn(PLACES, SIZE) / 2) for _ in range(2))
        self.classify = nn.Sequential(nn.Linear(SIZE, SIZE), nn.ReLU(), nn.Linear(SIZE, CLASSES))


class Scene:
    """The network before a batch of images: what its units see there, and what their choices cost.

    scores (B, N, K), values (B, K, V), truth (B, 1, classes), and `known` (B, 2 V): what may be known of the images
    before the draw. `paid` counts the costs that were computed.
    """

    def __init__(self, network: Network, split: Split, indices: Tensor, units: Tensor):
        batch, kind = split.batch(indices), network.queries.dtype
        patches = batch["image"].to(kind).unfold(2, PATCH, PATCH).unfold(3, PATCH, PATCH)  # (B, 1, 4, 4, 7, 7)
        patches = patches.reshape(-1, PLACES, PATCH**2)  # (B, K, 49)
        keys = network.key(patches) + network.key_place
        self.scores = rg.scaled_dot(network.queries[units].expand(len(keys), -1, -1), keys)
        self.values = torch.relu(network.value(patches) + network.value_place)
        self.truth = nn.functional.one_hot(batch["label"], CLASSES).to(kind).unsqueeze(1)
        expected = rg.softmax(self.scores).expect(self.values)
        self.known = torch.cat((self.values.mean(1), expected.mean(1)), -1)
        self.classify, self.paid = network.classify, 0

    def draw(self, scores: Tensor) -> tuple[Tensor, Tensor]:
        """What the units read, (*S, B, N, V), and the log-probability of each one's choice, (*S, B, N)."""
        context, _, log_prob = rg.sample(rg.softmax(scores), self.values)
        return context, log_prob

    def together(self, context: Tensor) -> Tensor:
        """The one cost of all units, (*S, B): the cross-entropy at the mean of what they read."""
        return self.apart(context.mean(-2, keepdim=True)).squeeze(-1)

    def apart(self, context: Tensor) -> Tensor:
        """One cost a unit, (*S, B, N), as if it were alone."""
        self.paid += context[..., 0].numel()
        return -(self.classify(context).log_softmax(-1) * self.truth).sum(-1)

    def running(self, context: Tensor) -> Tensor:
        """One cost a step, (*S, B, T), if the units look one after another: at the mean of what was read so far."""
        return self.apart(running_mean(context))

    def before(self, context: Tensor) -> Tensor:
        """What is known before each step's draw, (*S, B, T, 3 V + T): the images, what was read, and the step."""
        read = nn.functional.pad(running_mean(context)[..., :-1, :], (0, 0, 1, 0))
        known = self.known.unsqueeze(1).expand(*read.shape[:-1], -1)
        step = torch.eye(read.shape[-2], dtype=read.dtype).expand(*read.shape[:-1], -1)
        return torch.cat((known, read, step), -1)


def running_mean(context: Tensor) -> Tensor:
    """The mean of what was read up to each step, (*S, B, T, V)."""
    return context.cumsum(-2) / torch.arange(1, context.shape[-2] + 1).unsqueeze(-1)


def reinforce(scene: Scene, cost: Cost, predict: Callable[[Tensor], float | Tensor], scores: Tensor) -> Tensor:
    """The surrogate of `reinforce` with a baseline that may know the costs."""
    context, log_prob = scene.draw(scores)
    paid = cost(context)
    return rg.reinforce(log_prob, paid, predict(paid))


def leave_one_out(scene: Scene, cost: Cost, draws: int, scores: Tensor) -> Tensor:
    """The surrogate of `leave_one_out`, or of `reinforce` without a baseline, averaged over draws."""
    context, log_prob = scene.draw(scores.expand(draws, *scores.shape))
    return rg.leave_one_out(log_prob, cost(context)).mean(0)


def actor_critic(scene: Scene, cost: Cost, value: Callable, trace: float, scores: Tensor) -> Tensor:
    """The surrogate of `actor_critic`, the units looking one after another."""
    context, log_prob = scene.draw(scores)
    return rg.actor_critic(log_prob, cost(context), value(scene.before(context)), trace=trace)


def exactly(scene: Scene, scores: Tensor) -> Tensor:
    """The expected cost (R, B), by going through all places of all units."""
    return _given(scene, scores, scene.values.new_empty(*scores.shape[:-2], 0, SIZE))


def _given(scene: Scene, scores: Tensor, read: Tensor) -> Tensor:
    """The expected cost (*S, B) if the first units have read (*S, B, n, V)."""
    unit = read.shape[-2]
    if unit == scores.shape[-2]:
        return scene.together(read)
    positions = rg.softmax(scores[..., unit : unit + 1, :])

    def cost(z: Tensor) -> Tensor:
        more = torch.cat((read.expand(len(z), *read.shape), positions.gather(scene.values, z)), -2)
        return _given(scene, scores.expand(len(z), *scores.shape), more).unsqueeze(-1)

    return rg.enumerate_exactly(positions, cost).squeeze(-1)


def nothing(cost: Tensor) -> float:
    """No baseline."""
    return 0.0


def fit(part: Part, network: Network, split: Split, units: Callable[[], Tensor], loss: Callable) -> Part:
    """The part after a few hundred steps of Adam on the loss of scenes of training images."""
    optimiser = torch.optim.Adam(part.parameters(), RATE)
    for _ in range(STEPS):
        scene = Scene(network, split, torch.randint(len(split), (BATCH,)), units())
        optimiser.zero_grad()
        loss(scene).backward(inputs=list(part.parameters()))
        optimiser.step()
    return part.requires_grad_(False)


def trained(split: Split) -> Network:
    """The network, in float64, after training with 1, 2, 4, ... or 64 of its units, drawn anew each step."""

    def some() -> Tensor:
        return torch.randperm(UNITS)[: 2 ** int(torch.randint(UNITS.bit_length(), ()))]

    def loss(scene: Scene) -> Tensor:
        context, log_prob = scene.draw(scene.scores.expand(4, -1, -1, -1))
        cost = scene.together(context)
        return (cost + rg.leave_one_out(log_prob, cost)).mean()

    network = Network()
    return fit(network, network, split, some, loss).double()


def baseline(network: Network, split: Split, units: Tensor) -> rg.Learned:
    """A learned baseline of the one cost, from what is known of the images."""

    def loss(scene: Scene) -> Tensor:
        return (part(scene.known) - scene.together(scene.draw(scene.scores)[0])).square().mean()

    part = rg.Learned(2 * SIZE, SIZE).double()
    return fit(part, network, split, lambda: units, loss)


class Critic(nn.Module):
    """What is still to be paid before each step's draw, (*S, B, T): the number of costs to come times a `Learned`."""

    def __init__(self, to_come: Tensor):
        super().__init__()
        self.to_come = to_come
        self.each = rg.Learned(3 * SIZE + len(to_come), SIZE).double()

    def forward(self, before: Tensor) -> Tensor:
        return self.to_come * self.each(before)


def critic(network: Network, split: Split, units: Tensor, every_step: bool) -> Critic:
    """A critic of a cost at every step, or of the one at the last."""
    steps = len(units)

    def loss(scene: Scene) -> Tensor:
        context, _ = scene.draw(scene.scores)
        cost = rg.to_go(scene.running(context)) if every_step else scene.together(context).unsqueeze(-1)
        return ((part(scene.before(context)) - cost) / part.to_come).square().mean()

    part = Critic(torch.arange(steps, 0, -1) if every_step else torch.ones(steps))
    return fit(part, network, split, lambda: units, loss)


class Control(nn.Module):
    """A control for `relax`, (*S, B): a network of what relaxed places read, and of the truth."""

    def __init__(self):
        super().__init__()
        self.network = nn.Sequential(nn.Linear(SIZE + CLASSES, 2 * SIZE), nn.Tanh(), nn.Linear(2 * SIZE, 1)).double()

    def forward(self, scene: Scene, places: Tensor) -> Tensor:
        read = (places @ scene.values).mean(-2)
        truth = scene.truth.squeeze(1).expand(*read.shape[:-1], -1)
        return self.network(torch.cat((read, truth), -1)).squeeze(-1)


def control(network: Network, split: Split, units: Tensor, temperature: float) -> Control:
    """A control fitted by the variance of the estimate, as the docstring of `relax` says."""

    def loss(scene: Scene) -> Tensor:
        scores = scene.scores.detach().requires_grad_()
        cost = rg.relax(
            rg.softmax(scores),
            lambda places: scene.together(places @ scene.values),
            lambda places: part(scene, places),
            temperature,
        )
        (gradient,) = torch.autograd.grad(cost.sum(), scores, create_graph=True)
        return gradient.square().sum() / BATCH

    part = Control()
    return fit(part, network, split, lambda: units, loss)


def baselines(scene: Scene, network: Network, split: Split, units: Tensor) -> dict[str, Callable]:
    """The baselines of the library, which know the costs of 1024 training images."""
    with torch.no_grad():
        seen = Scene(network, split, torch.arange(1024), units)
        usual = seen.together(seen.draw(seen.scores)[0])
    average, learned = rg.MovingAverage(), baseline(network, split, units)
    greedy = rg.SelfCritical(lambda: scene.together(rg.mode(rg.softmax(scene.scores), scene.values)[0]))
    for step in usual.split(len(scene.scores)):
        average(step)
    return {
        "no baseline": nothing,
        "Constant": rg.Constant(usual.mean().item()),
        "MovingAverage": lambda cost: torch.stack([average(step) for step in cost]),
        "Learned": lambda cost: learned(scene.known).expand_as(cost),
        "SelfCritical": lambda cost: greedy().expand_as(cost),
    }


def estimators(scene: Scene, network: Network, split: Split, units: Tensor) -> Iterator[tuple[str, bool, Loss]]:
    """Each estimator of the library: its name, whether its docstring says that it is unbiased, and its loss."""

    def cost(places: Tensor) -> Tensor:
        return scene.together(places @ scene.values)

    yield "enumerate_exactly", True, partial(exactly, scene)
    for name, predict in baselines(scene, network, split, units).items():
        yield f"reinforce, {name}", True, partial(reinforce, scene, scene.together, predict)
    for draws in (2, 4, 8):
        yield f"leave_one_out, {draws} draws", True, partial(leave_one_out, scene, scene.together, draws)
    value = critic(network, split, units, every_step=False)
    for trace in (1.0, 0.5):
        name = f"actor_critic, trace {trace:g}"
        yield name, trace == 1, partial(actor_critic, scene, scene.together, value, trace)
    free = partial(control(network, split, units, temperature=0.5), scene)
    yield "rebar(0.5)", True, lambda scores: rg.rebar(rg.softmax(scores), cost, temperature=0.5)
    yield "relax(0.5)", True, lambda scores: rg.relax(rg.softmax(scores), cost, free, temperature=0.5)
    for read in (rg.straight_through, rg.relaxed(0.5), rg.relaxed(1.0)):
        name = f"relaxed({read.temperature:g})" if isinstance(read, rg.relaxed) else "straight_through"
        yield name, False, lambda scores, read=read: scene.together(read(rg.softmax(scores), scene.values)[0])
