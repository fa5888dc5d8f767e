"""The answer recipe: where its parts look, what it is told, how it is measured, and that it learns what there is."""

from dataclasses import replace

import pytest
import torch
from torch import Tensor
from torch.testing import assert_close

import regard as rg
from regard.app import data as datasets
from regard.attention import Attended
from regard.recipes import answer
from regard.recipes.answer import Config
from regard.recipes.base import open_recipe

OVERS = ("softmax", "sigmoid", "segments", "chain")
SMALL = Config(hidden=16, batch=16)


@pytest.fixture(scope="module")
def splits() -> datasets.Splits:
    return answer.data(SMALL)


def made(over: str, splits: datasets.Splits, **settings) -> answer.Model:
    torch.manual_seed(0)
    return answer.Model(replace(SMALL, over=over, **settings), splits)


def batch(splits: datasets.Splits, count: int = 8) -> dict[str, Tensor]:
    return splits.test.batch(torch.arange(count))


def weights(output: answer.Output) -> Tensor:
    return torch.cat([look.weights for look in output.looks], -2)


@pytest.mark.parametrize("over", OVERS)
def test_what_is_said_of_each_question(over: str, splits: datasets.Splits):
    values = answer.evaluate(made(over, splits).eval(), batch(splits))
    assert set(values) == {"error", "facts", "sequence", "recall"}
    assert all(value.shape == (8,) and value.min() >= 0 and value.max() <= 1 for value in values.values())


@pytest.mark.parametrize("over", OVERS)
def test_shorter_stories_of_a_batch_are_as_if_they_were_alone(over: str, splits: datasets.Splits):
    model, questions = made(over, splits).eval(), batch(splits)
    together = model(questions)
    assert weights(together).shape == (8, 2, questions["facts"].shape[1])
    for n in range(8):
        alone = model(splits.test.batch(torch.tensor([n])))
        assert_close(alone.answers[0], together.answers[n])
        facts = weights(alone).shape[-1]
        assert_close(weights(alone)[0], weights(together)[n, :, -facts:])
        assert (weights(together)[n, :, :-facts] == 0).all()
    assert len({int(look.ne(0).any(-2).sum()) for look in weights(together)}) > 1, "or nothing is tested"


@pytest.mark.parametrize("over", OVERS)
def test_training_does_not_see_which_facts_are_marked(over: str, splits: datasets.Splits):
    gradients = []
    for marks in (0, 1):
        model, questions = made(over, splits), splits.train.batch(torch.arange(16))
        questions["supporting"] = (questions["supporting"] + marks) * (1 - marks)
        torch.manual_seed(1)
        answer.loss(model, questions)[0].backward()
        gradients.append([weight.grad for weight in model.parameters() if weight.grad is not None])
    for one, other in zip(*gradients, strict=True):
        assert torch.equal(one, other)
    assert any(gradient.abs().sum() > 0 for gradient in gradients[0])


@pytest.mark.parametrize("over", OVERS)
def test_every_weight_has_a_gradient(over: str, splits: datasets.Splits):
    model = made(over, splits)
    answer.loss(model, splits.train.batch(torch.arange(64)))[0].backward()
    still = {name for name, weight in model.named_parameters() if weight.grad is None or not weight.grad.any()}
    assert still == set()


def test_the_chain_is_that_of_the_paper(splits: datasets.Splits):
    """The marginals of two hops are the sums of exp(q_1 . x_i + q_2 . x_j + x_i . W x_j) over all j != i."""
    model, questions = made("chain", splits).eval(), splits.test.batch(torch.tensor([3]))
    for hop in model.hops:
        torch.nn.init.normal_(hop.weight)
    torch.nn.init.normal_(model.attention.over.compare.weight)
    keys = model.remember(questions["facts"]).keys[0]  # (N, hidden)
    first, second = (hop(model.question(questions["question"]))[0] for hop in model.hops)
    compare = model.attention.over.compare.weight
    pairs = (keys @ first)[:, None] + keys @ second + keys @ compare @ keys.T
    pairs = pairs.fill_diagonal_(-torch.inf).flatten().softmax(0).view(len(keys), -1)
    assert_close(weights(model(questions))[0], torch.stack((pairs.sum(1), pairs.sum(0))), rtol=1e-4, atol=1e-6)


def test_a_hop_goes_on_from_what_the_hop_before_read(splits: datasets.Splits):
    model, questions = made("softmax", splits).eval(), batch(splits)
    memory, query = model.remember(questions["facts"]), model.question(questions["question"])
    first, second = model(questions).looks
    for look in (first, second):
        scores = (memory.keys @ query.unsqueeze(-1)).squeeze(-1).masked_fill(~memory.mask[:, 0], -torch.inf)
        assert_close(look.weights[:, 0], scores.softmax(-1))
        query = query + (look.weights @ memory.values)[:, 0]


def test_only_the_latest_facts_are_remembered(splits: datasets.Splits):
    model, questions = made("softmax", splits, facts=3).eval(), batch(splits)
    before = model(questions).answers
    assert weights(model(questions)).shape[-1] == 3
    questions["facts"][:, :-3] = 1
    assert_close(model(questions).answers, before)
    questions["facts"][:, -3:] = 1
    assert not torch.allclose(model(questions).answers, before)


def test_gaps_make_facts_older_in_training_alone(splits: datasets.Splits):
    questions = batch(splits, 64)
    for gaps, differ in ((0.0, False), (0.5, True)):
        model = made("softmax", splits, gaps=gaps)
        model.key.words.weight.data.zero_()
        model.key_age.weight.data.copy_(torch.arange(25.0).unsqueeze(-1).expand(-1, 16))
        memory = model.remember(questions["facts"])
        ages, present = memory.keys[..., 0], memory.mask[:, 0]  # (B, N)
        facts = ages.shape[1]
        exact = torch.arange(facts - 1.0, -1, -1).clamp_max(24).expand_as(ages)
        assert torch.equal(ages[present], exact[present]) != differ
        assert (ages >= exact)[present].all() and (ages.diff(dim=-1) <= 0)[present[:, :-1]].all()
        assert torch.equal(model.eval().remember(questions["facts"]).keys[..., 0][present], exact[present])


def test_longer_sentences_than_in_training_are_read():
    vectors = torch.cat((torch.zeros(1, 4), torch.eye(4)))
    sentences = answer.Sentences(vectors, longest=2)
    sentences.places.data.copy_(torch.tensor([2.0, 3.0]).unsqueeze(-1).expand(2, 4))
    assert sentences(torch.tensor([[1, 2, 3, 0]])).tolist() == [[2, 3, 3, 0]]


class Fixed(answer.Model):
    """A model that looks at known facts: (B, hops) of the N latest."""

    def __init__(self, chosen: list[list[int]], facts: int):
        torch.nn.Module.__init__(self)
        self.chosen = torch.nn.functional.one_hot(torch.tensor(chosen), facts).float().split(1, 1)  # (B, 1, N) each

    def forward(self, batch: dict[str, Tensor]) -> answer.Output:
        answers = torch.tensor([[1.0, 0.0]]).expand(len(batch["label"]), -1)
        return answer.Output(answers, [Attended(hop, formed=rg.OneHot(weights=hop)) for hop in self.chosen])


def test_which_facts_count_as_found():
    questions = {
        "label": torch.tensor([0, 1, -1, 0, 0, 0]),
        "supporting": torch.tensor([[3, 0], [3, 0], [3, 0], [9, 0], [0, -1], [0, -1]]),
    }
    chosen = [[0, 3], [3, 0], [0, 1], [0, 3], [3, 3], [3, 0]]  # of four facts, the last of which is the latest
    values = answer.evaluate(Fixed(chosen, facts=4), questions)
    assert values["error"].tolist() == [0, 1, 1, 0, 0, 0]
    assert values["facts"].tolist() == [1, 1, 0, 0, 1, 0], "the last looks at one more"
    assert values["sequence"].tolist() == [1, 0, 0, 0, 0, 0]
    assert values["recall"].tolist() == [1, 1, 0.5, 0.5, 1, 1]


@pytest.mark.parametrize("over", OVERS)
def test_pictures_say_where_each_hop_looked(over: str, splits: datasets.Splits):
    pictures = answer.look(made(over, splits).eval(), batch(splits))
    assert len(pictures) == 8
    assert pictures[0].title.startswith("where is the ") and pictures[0].png[1:4] == b"PNG"
    for picture in pictures:
        assert picture.text.startswith("Answered ") and "hop 2 looks at “" in picture.text
        assert picture.text.count("supporting “") == 1 and " and “" in picture.text


@pytest.mark.parametrize("settings", [{"hops": 0}, {"facts": 0}, {"hidden": 0}, {"gaps": 1.0}, {"gaps": -0.1}])
def test_settings_that_make_no_sense_are_refused(settings: dict):
    with pytest.raises(ValueError, match=f"--{next(iter(settings))} expected"):
        Config(**settings)


@pytest.mark.parametrize(("task", "hops", "expected"), [(1, None, 1), (2, None, 2), (2, 4, 4)])
def test_there_are_as_many_hops_as_supporting_facts(task: int, hops: int | None, expected: int):
    model = made("chain", answer.data(Config(task=task)), task=task, hops=hops)
    assert len(model.hops) == expected


def final_error(over: str, splits: datasets.Splits, shuffled: bool = False) -> dict[str, float]:
    """The error on other questions after training for a few seconds."""
    config = Config(task=1, over=over)
    torch.manual_seed(0)
    model = answer.Model(config, splits)
    optimizer, scheduler = open_recipe(answer).optimiser(model, config, steps=120)
    order = torch.randperm(len(splits.train), generator=torch.Generator().manual_seed(0))
    for step in range(120):
        questions = splits.train.batch(torch.randint(len(order), (config.batch,)))
        if shuffled:
            questions["label"] = splits.train.labels[order[torch.arange(config.batch) + step]]
        optimizer.zero_grad()
        answer.loss(model, questions)[0].backward()
        optimizer.step()
        scheduler.step()
    with torch.no_grad():
        values = answer.evaluate(model.eval(), batch(splits, 500))
    return {name: value.mean().item() for name, value in values.items()}


@pytest.mark.parametrize("over", ["softmax", "chain"])
def test_it_learns(over: str):
    values = final_error(over, answer.data(Config(task=1)))
    assert values["error"] < 0.2 and values["facts"] > 0.8


def test_it_does_not_learn_what_is_not_there():
    assert final_error("softmax", answer.data(Config(task=1)), shuffled=True)["error"] > 0.6
