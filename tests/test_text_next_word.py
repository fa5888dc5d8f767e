"""What a language model looks back at, and the words that it says."""

import pytest
import torch
from torch import nn
from torch.testing import assert_close

import regard as rg
from regard.app.text.next_word import SHARPNESS, Cache, Guesses, LookBack, nothing


def test_each_state_looks_at_those_before_it_and_no_further():
    torch.manual_seed(0)
    back, states = LookBack(rg.scaled_dot, window=3, read=rg.mean, parts=False), torch.randn(2, 6, 4)
    look, by = back(states, nothing(2, 3, 4))
    assert torch.equal(by, states)
    for t in range(6):
        keys = states[:, max(0, t - 3) : t]
        wanted = torch.zeros(2, 4)
        if t:
            weights = (keys @ states[:, t, :, None]).squeeze(-1).div(2).softmax(-1)
            wanted = (weights.unsqueeze(-1) * keys).sum(1)
        assert_close(look.context[:, t], wanted)


@pytest.mark.parametrize("parts", [False, True])
def test_a_text_in_pieces_is_the_text(parts: bool):
    torch.manual_seed(0)
    back, states = LookBack(rg.scaled_dot, window=4, read=rg.mean, parts=parts), torch.randn(2, 9, 6)
    whole, _ = back(states, nothing(2, 4, 6))
    state = nothing(2, 4, 6)
    parted = []
    for piece in states.split(3, 1):
        look, _ = back(piece, state)
        parted.append(look.context)
        past = torch.cat((state.past, piece), 1)[:, -4:]
        state = state._replace(past=past, seen=(state.seen + 3).clamp(max=4))
    assert_close(torch.cat(parted, 1), whole.context)


def test_parts_are_found_read_and_told_by():
    states = torch.randn(1, 5, 6)
    keys, values, by = LookBack(rg.dot, 2, rg.mean, parts=True).split(states)
    assert_close(torch.cat((keys, values, by), -1), states)


def test_texts_that_begin_know_nothing():
    state = nothing(2, 3, 4)._replace(past=torch.ones(2, 3, 4), seen=torch.tensor([3, 3]))
    kept = state.kept(torch.tensor([True, False]))
    assert kept.seen.tolist() == [0, 3] and kept.past[0].sum() == 0 and torch.equal(kept.past[1], state.past[1])


def test_all_words_as_samples_are_the_softmax():
    torch.manual_seed(0)
    guesses = Guesses(nn.Embedding(20, 8), torch.arange(20), samples=20)
    known, target = torch.randn(50, 8), torch.randint(20, (50,))
    assert_close(guesses.cost(known, target), nn.functional.cross_entropy(guesses(known), target, reduction="none"))


def test_samples_come_near_the_softmax():
    """The cost by many samples tends to that by all words: the correction of each score is right."""
    torch.manual_seed(0)
    guesses = Guesses(nn.Embedding(400, 4), torch.randint(1000, (400,)), samples=399)
    nn.init.normal_(guesses.vectors.weight, std=0.5)
    known, target = torch.randn(64, 4), torch.randint(400, (64,))
    exact = guesses.eval().cost(known, target)
    guesses.train()
    sampled = torch.stack([guesses.cost(known, target) for _ in range(200)]).mean(0)
    assert_close(sampled, exact, rtol=0.03, atol=0.03)


def test_words_come_again_as_the_paper_says():
    """Equations 2 to 4, word by word; the first state has nothing to look at, nor has one after words that are none."""
    torch.manual_seed(0)
    words, share = torch.tensor([0, 3, 1, 2, 3, 1]), 0.2
    known, log_probs = torch.randn(6, 4), torch.randn(6, 5).log_softmax(-1)
    asked = torch.ones(6, dtype=torch.bool)
    found = Cache(share)(log_probs, known, words, asked)
    assert_close(found.exp().sum(-1), torch.ones(6))
    assert_close(found[:2], log_probs[:2])  # of places 0 and 1 none before is a word
    for t in range(2, 6):
        scores = SHARPNESS * nn.functional.cosine_similarity(known[t], known[1:t], dim=-1)
        again = torch.zeros(5)
        for weight, word in zip(scores.softmax(-1), words[2 : t + 1], strict=True):
            again[word] += weight
        assert_close(found[t].exp(), (1 - share) * log_probs[t].exp() + share * again)
    some = torch.tensor([False, True, False, False, True, False])
    assert_close(Cache(share)(log_probs[some], known, words, some), found[some])
