"""The translate recipe: each attention reads, writes and learns; what is shown of it."""

from dataclasses import replace

import pytest
import torch
from tiny_translate import SMALL, SPLITS, attentions, batch, made, made_of
from torch import Tensor
from torch.testing import assert_close

import regard as rg
from regard.app.data import Pairs, Splits
from regard.app.data.generators.dates import dates
from regard.app.report import looking
from regard.app.text.bleu import bleu, counts
from regard.app.text.networks import Decoded, State
from regard.app.text.translating import translated
from regard.app.text.vocabulary import END, subwords
from regard.app.training.evaluation import averages
from regard.app.training.run import OpenedRun
from regard.recipes import translate
from regard.recipes.base import open_recipe
from regard.recipes.translate import Config, Model


@attentions
def test_a_step_of_training_reaches_every_weight_and_lowers_the_loss(attention: str):
    model = made(attention, dropout=0.0, smoothing=0.0)
    optimizer = torch.optim.Adam(model.parameters(), 0.01)
    losses = []
    for _ in range(4):
        optimizer.zero_grad()
        cost, _ = translate.loss(model, batch(16))
        cost.backward()
        optimizer.step()
        losses.append(cost.item())
    still = {name for name, weight in model.named_parameters() if weight.grad is None or not weight.grad.any()}
    assert still == set()
    assert losses[-1] < losses[0] - 0.05


@attentions
def test_steps_one_by_one_are_all_steps_at_once(attention: str):
    """What decoding says of each word of a translation costs what `evaluate` says it does."""
    model, pairs = made(attention).eval(), batch()
    with torch.no_grad():
        state, words, costs = model.begin(pairs["source"]), torch.ones(6, dtype=torch.long), []
        for word in pairs["target"].unbind(1):
            log_probs, state = model.step(words, state)
            assert_close(log_probs.exp().sum(-1), torch.ones(6))
            costs.append(-log_probs.gather(1, word.unsqueeze(1)))
            words = word
        present = pairs["target"] > 0
        assert_close(torch.cat(costs, 1)[present], translate.evaluate(model, pairs)["loss"], rtol=1e-4, atol=1e-5)


@attentions
def test_a_sentence_of_a_batch_is_as_if_it_were_alone(attention: str):
    model, pairs = made(attention).eval(), batch()
    assert len(set((pairs["source"] > 0).sum(-1).tolist())) > 1, "or nothing is tested"
    with torch.no_grad():
        together, _ = model(pairs)
        for n in range(6):
            alone, _ = model(SPLITS.test.batch(torch.tensor([n])))
            places = alone.weights.shape[-1]
            assert_close(alone.features[0], together.features[n], rtol=1e-4, atol=1e-5)
            assert_close(alone.weights[0], together.weights[n, :, :places], rtol=1e-4, atol=1e-5)
            assert (together.weights[n, :, places:] == 0).all()


@attentions
def test_a_state_can_be_reordered(attention: str):
    model, rows = made(attention).eval(), torch.tensor([3, 3, 0])
    with torch.no_grad():
        state, words = model.begin(batch()["source"]), torch.ones(6, dtype=torch.long)
        for word in (5, 7):
            _, state = model.step(words, state)
            words = torch.full((6,), word)
        wanted, _ = model.step(words, state)
        found, _ = model.step(words[rows], rg.select(state, rows))
    assert_close(found, wanted[rows])
    assert not torch.allclose(wanted[3], wanted[0])


@pytest.mark.unchecked
@attentions
def test_bfloat16_costs_about_the_same(attention: str):
    model, pairs = made(attention).eval(), batch()
    with torch.no_grad():
        plain = translate.evaluate(model, pairs)["loss"].mean()
        with torch.autocast("cpu", torch.bfloat16):
            assert_close(translate.evaluate(model, pairs)["loss"].mean(), plain, rtol=0.01, atol=0)
    with torch.autocast("cpu", torch.bfloat16):
        translate.loss(model.train(), pairs)[0].backward()
    assert all(weight.grad.isfinite().all() for weight in model.parameters())


def latent(attention: str) -> tuple[Model, dict[str, Tensor], Decoded, State]:
    """A model without dropout in float64, and what it made of a batch."""
    model, pairs = made(attention, dropout=0.0).double(), batch(3)
    model.network.seen.weight.data *= 20  # or it hardly matters where a word looks
    decoded, state = model(pairs)
    return model, pairs, decoded, state


def each_place(model: Model, pairs: dict[str, Tensor], decoded: Decoded, state: State):
    """log p(z) and log p(word | z) for every place, (K, B, T), by the definition."""
    values = state.memory.values.unsqueeze(2)  # (B, K, 1, D)
    features = (values + model.network.own(decoded.hidden).unsqueeze(1)).tanh()  # (B, K, T, D)
    words = (features @ model.words.weight.T + model.bias).log_softmax(-1)
    words = words.gather(-1, pairs["target"][:, None, :, None].expand(-1, words.shape[1], -1, -1)).squeeze(-1)
    return decoded.weights.log().permute(2, 0, 1), words.transpose(0, 1)


def test_exact_is_the_sum_over_all_places():
    model, pairs, decoded, state = latent("exact")
    prior, likelihood = each_place(model, pairs, decoded, state)
    present = pairs["target"] > 0
    wanted = -(prior + likelihood).logsumexp(0)[present]
    found = translate.by_all_places(model, decoded, state, pairs["target"], 0.0)
    assert_close(found[present], wanted)
    assert (found[~present] == 0).all()


def test_the_bound_is_above_the_exact_cost_and_equal_for_the_true_posterior(monkeypatch: pytest.MonkeyPatch):
    model, pairs, decoded, state = latent("variational")
    prior, likelihood = each_place(model, pairs, decoded, state)
    present, exact = pairs["target"] > 0, -(prior + likelihood).logsumexp(0)
    model.config.draws = 1500
    bound = translate.by_posterior(model, decoded, state, pairs["target"], 0.0)
    assert (bound - exact)[present].mean() > 0.02
    true = rg.OneHot(scores=(prior + likelihood).permute(1, 2, 0))
    monkeypatch.setattr(type(model.posterior), "forward", lambda *_: rg.Attended(decoded.features, formed=true))
    tight = translate.by_posterior(model, decoded, state, pairs["target"], 0.0)
    assert_close(tight[present].mean(), exact[present].mean(), rtol=3e-3, atol=0)


def test_draws_are_compared_with_each_other_word_by_word(monkeypatch: pytest.MonkeyPatch):
    """On average over the draws, the gradient in the scores is that of the expected cost of each word."""
    model, pairs, decoded, state = latent("hard")
    prior, likelihood = each_place(model, pairs, decoded, state)
    scores = prior.permute(1, 2, 0).detach().requires_grad_()
    expected = (scores.softmax(-1) * -likelihood.permute(1, 2, 0).detach()).sum(-1)
    (wanted,) = torch.autograd.grad(expected[pairs["target"] > 0].sum(), scores)
    positions = rg.OneHot(scores=scores)
    looks = [rg.Attended(decoded.features, z=positions.sample(), formed=positions)]
    features = model.network.given(looks[0].z, decoded, state.memory)
    model.config.draws = 20000
    cost = translate.by_draws(model, decoded._replace(looks=looks, features=features), state, pairs["target"], 0.0)
    (found,) = torch.autograd.grad(cost.sum(), scores, retain_graph=True)
    assert (found - wanted).abs().max() < 0.05 * wanted.abs().max()
    plain = model.cost(decoded, features, pairs["target"])
    assert_close(cost, plain)
    of = (model.words.weight, model.network.own.weight, state.memory.values)
    both = [torch.autograd.grad(each.sum(), of, retain_graph=True) for each in (cost, plain)]
    assert_close(*both, msg="the draws that were not read train nothing but where to look")


def test_hard_reads_one_place_and_is_fed_what_it_read():
    model, pairs = made("hard", dropout=0.0), batch()
    decoded, state = model(pairs)
    z = torch.cat([look.z for look in decoded.looks], -1)
    assert_close(decoded.features, model.network.given(z, decoded, state.memory))
    assert (z != torch.cat([look.positions.mode for look in decoded.looks], -1)).any()
    decoded, _ = model.eval()(pairs)
    assert all((look.z == look.positions.mode).all() for look in decoded.looks)


@pytest.mark.unchecked
@pytest.mark.parametrize("attention", ["hard", "variational", "exact"])
def test_training_begins_as_that_of_soft_attention(attention: str):
    model, soft, pairs = made(attention, soft=0.25, epochs=4, batch=12), made("additive"), batch()
    soft.load_state_dict(model.state_dict(), strict=False)
    shared, alike = dict(soft.named_parameters()), []
    for step in range(16):  # four epochs of 48 sentences
        for each in (model, soft):
            torch.manual_seed(step)
            each.zero_grad()
            translate.loss(each, pairs)[0].backward()
            translate.after_step(each)
        gradients = {name: weights.grad for name, weights in model.named_parameters()}
        alike.append(all(torch.equal(gradients[name], weights.grad) for name, weights in shared.items()))
        assert all(gradient.abs().sum() > 0 for gradient in gradients.values()), "several processes need all of them"
    assert alike == [True] * 4 + [False] * 12
    assert (model.eval()(pairs)[0].looks[0].z is None) == (attention != "hard")


def test_none_knows_the_sentence_by_one_vector():
    model = made("none").eval()
    assert model.begin(batch()["source"]).memory.keys.shape == (6, 1, 16)


def test_the_weights_of_words_are_those_of_their_subwords():
    learned = subwords(["the red house"] * 9, 24)
    source, target = "the h red", "red the"
    split = Pairs([source], [target], learned)
    model = Model(replace(SMALL, data="files"), Splits(split, split, split, "")).eval()
    pairs = split.batch(torch.tensor([0]))
    names = learned.pieces(pairs["source"][0].tolist())
    assert names == ["▁the", "▁", "h", "▁red", "<end>"]
    (found,) = translate.alignments(model, pairs["source"], pairs["target"])
    assert (found.source, found.target) == (["the", "h", "red", "<end>"], ["red", "the", "<end>"])
    weights = model(pairs)[0].weights[0]
    wanted = torch.stack((weights[:, 0], weights[:, 1] + weights[:, 2], weights[:, 3], weights[:, 4]), 1)
    assert_close(found.weights, wanted)
    split = Pairs([target], [source], learned)
    pairs = split.batch(torch.tensor([0]))
    (found,) = translate.alignments(model, pairs["source"], pairs["target"])
    weights = model(pairs)[0].weights[0]
    assert_close(found.weights[1], (weights[1] + weights[2]) / 2)


@pytest.mark.unchecked
@pytest.mark.parametrize("attention", ["additive", "hard", "segments", "none", "self"])
def test_pictures_say_where_each_word_looked(attention: str):
    model, pairs = made(attention).eval(), batch(2)
    pictures = translate.look(model, pairs)
    assert len(pictures) == 2 and all(picture.png[1:4] == b"PNG" for picture in pictures)
    for picture, source, written in zip(pictures, pairs["source"], model.greedy(pairs["source"]), strict=True):
        assert picture.title == model.vocabulary.decode(source.tolist())
        text = model.vocabulary.decode(written.tolist())
        assert picture.text.startswith(f"Translated as “{text}”, where the data have “")
        assert len(picture.matrix.target) == len(written) + 1
        ended = torch.cat((written, torch.tensor([END]))).unsqueeze(0)
        (alone,) = translate.alignments(model, source[source > 0].unsqueeze(0), ended)
        assert_close(picture.matrix.weights, alone.weights)
        assert picture.matrix.source == alone.source


@pytest.mark.unchecked
def test_the_worst_translations_are_those_of_the_least_bleu_and_then_of_the_highest_cost(monkeypatch):
    monkeypatch.setattr(translate, "png", lambda figure: b"")  # of sentences as long as these it takes half a minute
    monkeypatch.setattr(translate, "squares", lambda matrix: None)
    model = made("dot", layers=1).eval()
    optimizer = torch.optim.SGD(model.parameters(), 0.3)
    for _ in range(15):
        optimizer.zero_grad()
        translate.loss(model, batch(24))[0].backward()
        optimizer.step()
    sources, targets = SPLITS.test.sources[:24], SPLITS.test.targets[:24]
    split = Pairs(sources, targets, model.vocabulary)
    order = []
    for source, target in zip(sources, targets, strict=True):
        alone = Pairs([source], [target], model.vocabulary).batch(torch.tensor([0]))
        written = translated(model, [source], beam=1)[0]
        decoded, _ = model(alone)
        cost = model.cost(decoded, decoded.features, alone["target"]).mean().item()
        order.append((bleu(counts(written, [target])), -cost, source))
    assert len({each for each, *_ in order}) < 20, "there are ties"
    found = looking.failures(OpenedRun(open_recipe(translate), replace(SMALL, batch=9), SPLITS, model), split)
    assert [picture.title for picture in found] == [source for *_, source in sorted(order)[:10]]
    assert [picture.text.rpartition("BLEU ")[2] for picture in found] == [
        f"{each:.1f}." for each, *_ in sorted(order)[:10]
    ]
    monkeypatch.setattr(translate, "badness", None)
    first = looking.failures(OpenedRun(open_recipe(translate), replace(SMALL, batch=9), SPLITS, model), split)
    assert [picture.title for picture in first] == sources[:12], "all are wrong, and none is worse"


def test_the_cost_of_a_translation_is_the_mean_of_its_words():
    model = made("dot").eval()
    split = Pairs(SPLITS.test.sources[:3], ["2", "2038-01-01", "20"], model.vocabulary)
    found = translate.evaluate(model, split.batch(torch.arange(3)))["cost"]
    for n, cost in enumerate(found):
        assert_close(cost, translate.evaluate(model, split.batch(torch.tensor([n])))["loss"].mean())


def test_what_is_right_is_not_among_the_worst(monkeypatch):
    model, right = made("dot").eval(), [2, 5, 7]
    none = {name: torch.zeros(16) for name in counts("", [""])}
    values = {"error": torch.ones(16), "cost": torch.arange(16.0), **none}
    values["error"][right] = 0
    split = made_of(16).test
    monkeypatch.setattr(split, "batch", lambda indices, generator: {"number": indices})
    monkeypatch.setattr(
        translate, "evaluate", lambda model, batch: {name: each[batch["number"]] for name, each in values.items()}
    )
    monkeypatch.setattr(looking, "look", lambda recipe, model, split, indices: indices.tolist())
    opened = OpenedRun(open_recipe(translate), SMALL, SPLITS, model)
    assert looking.failures(opened, split) == [15, 14, 13, 12, 11, 10, 9, 8, 6, 4]
    values["error"][:] = 0
    assert looking.failures(opened, split) is None


@attentions
def test_a_glance_is_where_the_words_of_the_translation_look(attention: str):
    model, pairs = made(attention).eval(), batch(1)
    found = translate.glance(model, pairs)
    if attention == "none":
        assert found is None, "there is no choice"
        return
    (wanted,) = translate.alignments(model, pairs["source"], pairs["target"])
    assert_close(found.weights, wanted.weights)
    assert "".join(found.target).removesuffix("<end>") == SPLITS.test.targets[0]


def final_error(attention: str, steps: int, shuffled: bool = False) -> float:
    """The share of other dates that are written wrongly after so many steps."""
    splits = made_of(3000)
    other = Pairs(*dates(100, seed=5), splits.train.vocabulary)
    torch.manual_seed(0)
    config = Config(attention=attention, hidden=64, learning_rate=8e-3, dropout=0.0)
    model = Model(config, splits)
    optimizer, scheduler = translate.optimiser(model, config, steps)
    for _ in range(steps):
        pairs = splits.train.batch(torch.randint(3000, (64,)))
        if shuffled:
            pairs["source"] = pairs["source"][torch.randperm(64)]
        optimizer.zero_grad()
        translate.loss(model, pairs)[0].backward()
        optimizer.step()
        scheduler.step()
    return averages(OpenedRun(open_recipe(translate), SMALL, SPLITS, model), other)["error"]


@pytest.mark.unchecked
def test_it_learns():
    assert final_error("dot", steps=120) < 0.2


@pytest.mark.unchecked
def test_it_does_not_learn_what_is_not_there():
    assert final_error("dot", steps=60, shuffled=True) > 0.95
