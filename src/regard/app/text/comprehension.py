"""What readers of stories have in common: what there is to look at, answers by name, and what names tell of each
other."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn
from torch.nn.functional import pad

import regard as rg
from regard.app import explaining
from regard.app.data.cloze import MARKERS
from regard.app.explaining import Explained
from regard.app.text.networks import picked
from regard.app.text.vocabulary import UNKNOWN


class Story(NamedTuple):
    """B stories, each with its question behind it, as there is to look at."""

    words: Tensor
    """The vectors of the words, (B, K, size)."""
    states: Tensor
    """The same words encoded, (B, K, width)."""
    present: Tensor
    """Where there are words, (B, K)."""
    length: Tensor
    """How many of them are the story's, (B,)."""
    blank: Tensor
    """Where the name is left out that is asked for, (B,)."""
    markers: Tensor
    """Of the words that are names, -1 of others, (B, K)."""

    @property
    def inside(self) -> Tensor:
        """Which words are of the story, (B, K)."""
        return torch.arange(self.words.shape[1], device=self.words.device) < self.length.unsqueeze(-1)

    @property
    def names(self) -> Tensor:
        """The markers of the names in the story, -1 elsewhere, (B, K)."""
        return self.markers.where(self.inside, -1)

    @property
    def told(self) -> Tensor:
        """Which names are in the story, (B, names)."""
        return rg.attention_sum(self.inside.float().unsqueeze(1), self.names, MARKERS).squeeze(1) > 0

    @property
    def asked(self) -> Tensor:
        """What is known of the place of the name that is left out, (B, 1, width)."""
        return picked(around(self.states), self.blank.unsqueeze(-1))

    @property
    def both(self) -> Tensor:
        """Each word with what it is encoded as, (B, K, width + size)."""
        return torch.cat((self.states, self.words), -1)

    @property
    def question(self) -> tuple[Tensor, Tensor]:
        """The words of the question, encoded, and last what is asked, (B, Q, width), and which of them there are,
        (B, Q): a question with fewer words than another has them in the last columns."""
        places, there = question_places(self.length, self.present.sum(-1), self.blank)
        words = torch.cat((picked(self.states, places), self.asked), 1)
        return words, pad(there, (0, 1), value=True)

    def named(self, z: Int[Tensor, "*SB 1"]) -> Int[Tensor, "*SB"]:
        """The name at places that were read, -1 where there was none to read."""
        names = self.names.expand(*z.shape[:-1], -1).gather(-1, z.clamp(min=0))
        return names.where(z >= 0, -1).squeeze(-1)


class Output(NamedTuple):
    """What came of B questions; S draws of each are in front while training draws."""

    chances: Tensor
    """Of each name being the answer, (*S, B, names)."""
    answer: Tensor
    """The name that is given, (*S, B)."""
    story: Story
    looks: Sequence[rg.Attended] = ()
    """At the words of the story, one after another."""
    there: Tensor | None = None
    """Which of them are looks of which question, (B, Q); all, if not given."""

    def wrong(self, answer: Int[Tensor, " B"]) -> Float[Tensor, "*SB"]:
        """Whether another name is given."""
        return (self.answer != answer).float()

    @property
    def weights(self) -> Float[Tensor, "B Q K"]:
        """How much of each word each look read."""
        if not self.looks:
            inside = self.story.inside
            return (inside / inside.sum(-1, keepdim=True)).unsqueeze(1)
        weights = torch.cat([read_by(look) for look in self.looks], -2)
        return weights if self.there is None else weights * self.there.unsqueeze(-1)

    @property
    def log_prob(self) -> Float[Tensor, "*SB"]:
        """Of all places that were drawn."""
        drawn = torch.cat([look.log_prob for look in self.looks], -1)  # (*S, B, Q)
        return (drawn if self.there is None else drawn * self.there).sum(-1)

    def pointed(self, answer: Int[Tensor, " B"]) -> Float[Tensor, " B"]:
        """The logarithm of how much the last look looks at the answer, of what it looks at names."""
        sums = rg.attention_sum(self.looks[-1].weights, self.story.names, MARKERS).squeeze(-2)
        return log_share(sums / sums.sum(-1, keepdim=True).clamp(min=1e-9), answer)


def read_by(look: rg.Attended) -> Float[Tensor, "*SB Q K"]:
    """How much of each place was read."""
    return look.weights if look.z is None else look.positions.indicator(look.z).float()


def explained(model: Any, batch: Mapping[str, Tensor]) -> Explained:
    """Of a reader, the name by the words of the story that are kept, the others being unknown ones; how much all looks
    read of each; and where the answer stands."""
    output, names = model(batch), batch["names"]
    story, inside = output.story, output.story.inside

    def told(kept: Tensor) -> Tensor:
        seen = kept | ~inside  # the question is always there
        given = {"words": batch["words"].where(seen, UNKNOWN), "names": names.where(seen, -1)}
        return model({**batch, **given}).chances.nan_to_num()  # of no names none is the answer

    def reading(given: Tensor) -> Tensor:
        if model.naming is None:
            return rg.attention_sum(given, story.names, MARKERS).squeeze(-2)
        return model.naming(given @ story.both, story, model.markers)

    def permuted() -> Tensor:
        look = output.looks[0]
        weights, seen = (read_by(look), inside) if model.naming else (look.weights, story.names >= 0)
        return rg.faithfulness.permutation(reading, weights, seen.unsqueeze(1))

    truth, once = inside & (names == batch["answer"][:, None]), len(output.looks) == 1
    return explaining.explained(told, output.weights.mean(-2), inside, truth, permuted=permuted if once else None)


class Naming(nn.Module):
    """The answer is the name of the story whose marker is most like what was read: the product of the marker m with
    v + tanh(W r + U u), over the root of its size, where v are the words that were read, r their states beside them,
    and u is what is asked. Hermann et al. 2015, section 2.2, have the second term alone, which learns to tell names
    apart only when attention finds them already."""

    def __init__(self, read: int, asked: int, size: int, dropout: float):
        super().__init__()
        self.joint, self.dropped = nn.Linear(read + asked, size), nn.Dropout(dropout)

    def forward(
        self, read: Float[Tensor, "*SB 1 V"], story: Story, markers: Float[Tensor, "names size"]
    ) -> Float[Tensor, "*SB names"]:
        """The chances of the names."""
        size, both = markers.shape[1], torch.cat((read, story.asked.expand(*read.shape[:-1], -1)), -1)
        found = read[..., -size:] + self.joint(self.dropped(both)).tanh()
        logits = (found @ markers.mT).squeeze(-2) * size**-0.5
        return logits.masked_fill(~story.told, -torch.inf).softmax(-1)


def around(states: Float[Tensor, "B K D"]) -> Float[Tensor, "B K D"]:
    """What is known of each place without its own word: of encoded words (the states of a direction, then those of the
    other) the one before in the first direction, and the one after in the other.

    >>> around(torch.tensor([[[1.0, 10.0], [2.0, 20.0], [3.0, 30.0]]]))
    tensor([[[ 0., 20.],
             [ 1., 30.],
             [ 2.,  0.]]])
    """
    forth, back = states.chunk(2, -1)
    return torch.cat((pad(forth, (0, 0, 1, -1)), pad(back, (0, 0, -1, 1))), -1)


def standing(names: Int[Tensor, "B K"]) -> tuple[Int[Tensor, "B P"], Int[Tensor, "B P"]]:
    """The places where names stand, from the first on, and their markers: -1 behind the last name of a story.

    >>> standing(torch.tensor([[-1, 7, -1, 5], [-1, -1, 7, -1]]))
    (tensor([[1, 3],
            [2, 0]]), tensor([[ 7,  5],
            [ 7, -1]]))
    """
    known = names >= 0
    places = known.byte().argsort(dim=1, descending=True, stable=True)[:, : int(known.sum(1).max())]
    return places, names.gather(1, places)


def log_share(sums: Float[Tensor, "*SB N"], answer: Int[Tensor, "*B"]) -> Float[Tensor, "*SB"]:
    """The logarithm of the share of the answer, kept from -inf; 0 where no answer is known, -1."""
    answer = answer.expand(sums.shape[:-1])
    share = sums.gather(-1, answer.clamp(min=0).unsqueeze(-1)).squeeze(-1)
    return (share + 1e-9).log().masked_fill(answer < 0, 0)


def question_places(
    story: Int[Tensor, " B"], length: Int[Tensor, " B"], blank: Int[Tensor, " B"]
) -> tuple[Int[Tensor, "B Q"], Bool[Tensor, "B Q"]]:
    """The places of the words of each question but the blank, in the last of as many columns as the longest needs, and
    which of them there are.

    >>> question_places(torch.tensor([3, 4]), torch.tensor([6, 6]), torch.tensor([4, 5]))
    (tensor([[3, 5],
            [3, 4]]), tensor([[ True,  True],
            [False,  True]]))
    """
    back = torch.arange(int((length - story).max()) - 1, 0, -1, device=story.device)
    places = length.unsqueeze(-1) - back
    places = places - (places <= blank.unsqueeze(-1)).long()  # the blank is none of them: those up to it move by one
    return places.clamp(min=0), places >= story.unsqueeze(-1)


def among_names(score: rg.Score, story: Story) -> Float[Tensor, ""]:
    """What it costs to know each name of a story from what stands around it, by the names before it, and by those
    after: minus the logarithm of the attention sum of the same name, in the mean over all that stand there again.

    What looks does not know its own word, and what it looks at has been encoded before that word, or in the other
    direction from behind it: nothing can be read off.
    """
    places, markers = standing(story.names)
    there, query = markers >= 0, picked(around(story.states), places)
    forth, back = picked(story.states, places).chunk(2, -1)
    before = torch.ones(2 * there.shape[1:], dtype=torch.bool, device=there.device).tril(-1)
    costs, counts = [], []
    for keys, seen in ((pad(forth, (0, back.shape[-1])), before), (pad(back, (forth.shape[-1], 0)), before.mT)):
        mask = seen & there.unsqueeze(1)  # (B, P, P)
        again = (mask & (markers.unsqueeze(1) == markers.unsqueeze(2))).any(-1)
        sums = rg.attention_sum(rg.softmax(score(query, keys), mask).mean, markers, MARKERS)
        costs.append(-log_share(sums, markers.where(again, -1)).sum())
        counts.append(again.sum())
    return torch.stack(costs).sum() / torch.stack(counts).sum().clamp(min=1)


def words_of(batch: Mapping[str, Tensor]) -> list[list[str]]:
    """The words of each story and its question, as they are written."""
    return [bytes(text[text > 0].tolist()).decode().split() for text in batch["text"]]


def name_of(words: Sequence[str], markers: Int[Tensor, " K"], marker: int | Int[Tensor, ""]) -> str:
    """How the name with a marker is written.

    >>> name_of(["then", "Ida", "left"], torch.tensor([-1, 7, -1]), 7)
    'Ida'
    """
    return words[int((markers == marker).int().argmax())]


def said(output: Output, batch: Mapping[str, Tensor]) -> list[str]:
    """What is answered, how probably, and whether that is right."""
    rows = zip(words_of(batch), batch["names"], output.answer, output.chances, batch["answer"], strict=True)
    found = []
    for words, names, answer, chances, wanted in rows:
        right = "" if wanted < 0 else ", right" if answer == wanted else f", not {name_of(words, names, wanted)}"
        found.append(f"Answered {name_of(words, names, answer)} ({chances[answer]:.0%}){right}")
    return found
