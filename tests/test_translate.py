"""The translate recipe: each attention reads, writes and learns; what is decoded; a run at work; what is refused."""

import html
import io
import json
import os
import re
import signal
import sys
from dataclasses import replace
from pathlib import Path
from typing import get_args

import pytest
import torch
from tiny_run import contents
from torch import Tensor, nn
from torch.testing import assert_close

import saccade as sc
from saccade import cli, looking, parallel, runs, training
from saccade.bleu import bleu, counts
from saccade.data import Pairs, Splits
from saccade.data.dates import dates
from saccade.data.vocabulary import END, Characters, subwords
from saccade.failure import Interrupted
from saccade.learning import read_learning
from saccade.looking import averages
from saccade.recipes import translate
from saccade.recipes.translate import Config, Model
from saccade.translating import restored, translated

ATTENTIONS = get_args(Config.__annotations__["attention"])
RECURRENT = [name for name in ATTENTIONS if name != "self"]
SMALL = Config(hidden=16, batch=16, layers=2, heads=2, epochs=2)
QUIET = training.Fit(accelerator="cpu", progress="none")
attentions = pytest.mark.parametrize("attention", ATTENTIONS)


def made_of(count: int) -> Splits:
    source, target = dates(count, seed=0)
    letters = Characters(sorted(set("".join(source + target))))
    split = Pairs(source, target, letters)
    return Splits(split, split, split, "some dates")


SPLITS = made_of(48)


def made(attention: str, **settings) -> Model:
    torch.manual_seed(0)
    return Model(replace(SMALL, attention=attention, **{"soft": 0.0, **settings}), SPLITS)


def batch(count: int = 6) -> dict[str, Tensor]:
    return SPLITS.test.batch(torch.arange(count))


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
        found, _ = model.step(words[rows], sc.select(state, rows))
    assert_close(found, wanted[rows])
    assert not torch.allclose(wanted[3], wanted[0])


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


def test_the_gradient_of_recurring_weights_is_that_of_each_step():
    ours = translate.Recurring(3, 2, bias=False).double()
    plain = nn.Linear(3, 2, bias=False).double()
    plain.load_state_dict(ours.state_dict())
    added, start = torch.randn(2, 4, 5, 2, dtype=torch.float64).unbind(0)
    results = []
    for each in (ours, plain):
        given, last = added.clone().requires_grad_(), start[:, 0].clone().requires_grad_()
        words, before = ours.begin(given) if each is ours else (given, None)
        for word in words.unbind(1):
            step = torch.cat((last, last[:, :1].sin()), -1)
            last = (word + (each(step) if before is None else each(step, before))).tanh()
        last.square().sum().backward()
        results.append((last, given.grad, each.weight.grad))
    for one, other in zip(*results, strict=True):
        assert_close(one, other)
    assert results[0][2].abs().sum() > 0


def test_recurring_weights_have_no_second_gradient_rather_than_a_wrong_one():
    linear = translate.Recurring(2, 2, bias=False)
    added, before = linear.begin(torch.randn(1, 2, 2, requires_grad=True))
    last = (added[:, 1] + linear((added[:, 0] + linear(torch.ones(1, 2), before)).sin(), before)).sin().sum()
    (gradient,) = torch.autograd.grad(last, linear.weight, create_graph=True)
    with pytest.raises(RuntimeError, match="once_differentiable"):
        gradient.sum().backward()


def latent(attention: str) -> tuple[Model, dict[str, Tensor], translate.Seen, translate.State]:
    """A model without dropout in float64, and what it made of a batch."""
    model, pairs = made(attention, dropout=0.0).double(), batch(3)
    model.network.seen.weight.data *= 20  # or it hardly matters where a word looks
    seen, state = model(pairs)
    return model, pairs, seen, state


def each_place(model: Model, pairs: dict[str, Tensor], seen: translate.Seen, state: translate.State):
    """log p(z) and log p(word | z) for every place, (K, B, T), by the definition."""
    values = state.memory.values.unsqueeze(2)  # (B, K, 1, D)
    features = (values + model.network.own(seen.hidden).unsqueeze(1)).tanh()  # (B, K, T, D)
    words = (features @ model.words.weight.T + model.bias).log_softmax(-1)
    words = words.gather(-1, pairs["target"][:, None, :, None].expand(-1, words.shape[1], -1, -1)).squeeze(-1)
    return seen.weights.log().permute(2, 0, 1), words.transpose(0, 1)


def test_exact_is_the_sum_over_all_places():
    model, pairs, seen, state = latent("exact")
    prior, likelihood = each_place(model, pairs, seen, state)
    present = pairs["target"] > 0
    wanted = -(prior + likelihood).logsumexp(0)[present]
    found = translate.by_all_places(model, seen, state, pairs["target"], 0.0)
    assert_close(found[present], wanted)
    assert (found[~present] == 0).all()


def test_the_bound_is_above_the_exact_cost_and_equal_for_the_true_posterior(monkeypatch: pytest.MonkeyPatch):
    model, pairs, seen, state = latent("variational")
    prior, likelihood = each_place(model, pairs, seen, state)
    present, exact = pairs["target"] > 0, -(prior + likelihood).logsumexp(0)
    model.config.draws = 1500
    bound = translate.by_posterior(model, seen, state, pairs["target"], 0.0)
    assert (bound - exact)[present].mean() > 0.02
    true = sc.OneHot(scores=(prior + likelihood).permute(1, 2, 0))
    monkeypatch.setattr(type(model.posterior), "forward", lambda *_: sc.Attended(seen.features, formed=true))
    tight = translate.by_posterior(model, seen, state, pairs["target"], 0.0)
    assert_close(tight[present].mean(), exact[present].mean(), rtol=3e-3, atol=0)


def test_draws_are_compared_with_each_other_word_by_word(monkeypatch: pytest.MonkeyPatch):
    """On average over the draws, the gradient in the scores is that of the expected cost of each word."""
    model, pairs, seen, state = latent("hard")
    prior, likelihood = each_place(model, pairs, seen, state)
    scores = prior.permute(1, 2, 0).detach().requires_grad_()
    expected = (scores.softmax(-1) * -likelihood.permute(1, 2, 0).detach()).sum(-1)
    (wanted,) = torch.autograd.grad(expected[pairs["target"] > 0].sum(), scores)
    positions = sc.OneHot(scores=scores)
    looks = [sc.Attended(seen.features, z=positions.sample(), formed=positions)]
    features = model.network.given(looks[0].z, seen, state.memory)
    model.config.draws = 20000
    cost = translate.by_draws(model, seen._replace(looks=looks, features=features), state, pairs["target"], 0.0)
    (found,) = torch.autograd.grad(cost.sum(), scores, retain_graph=True)
    assert (found - wanted).abs().max() < 0.05 * wanted.abs().max()
    plain = model.cost(seen, features, pairs["target"])
    assert_close(cost, plain)
    of = (model.words.weight, model.network.own.weight, state.memory.values)
    both = [torch.autograd.grad(each.sum(), of, retain_graph=True) for each in (cost, plain)]
    assert_close(*both, msg="the draws that were not read train nothing but where to look")


def test_hard_reads_one_place_and_is_fed_what_it_read():
    model, pairs = made("hard", dropout=0.0), batch()
    seen, state = model(pairs)
    z = torch.cat([look.z for look in seen.looks], -1)
    assert_close(seen.features, model.network.given(z, seen, state.memory))
    assert (z != torch.cat([look.positions.mode for look in seen.looks], -1)).any()
    seen, _ = model.eval()(pairs)
    assert all((look.z == look.positions.mode).all() for look in seen.looks)


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
        gradients = {name: weights.grad for name, weights in model.named_parameters()}
        alike.append(all(torch.equal(gradients[name], weights.grad) for name, weights in shared.items()))
        assert all(gradient.abs().sum() > 0 for gradient in gradients.values()), "several processes need all of them"
    assert alike == [True] * 4 + [False] * 12
    assert (model.eval()(pairs)[0].looks[0].z is None) == (attention != "hard")


def test_none_knows_the_sentence_by_one_vector():
    model = made("none").eval()
    assert model.begin(batch()["source"]).memory.keys.shape == (6, 1, 16)


def test_words_beyond_the_last_place_are_read_but_not_looked_at(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(translate, "PLACES", 5)
    for attention in ("location", "self"):
        seen, _ = made(attention).eval()(batch())
        assert seen.weights.shape == (6, batch()["target"].shape[1], 5)


@pytest.fixture
def few(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty current directory, and few dates to train on."""
    monkeypatch.setattr("saccade.data.pairs.COUNTS", (64, 16, 16))
    monkeypatch.chdir(tmp_path)
    return tmp_path


def trained(run: Path, config: Config = SMALL) -> Path:
    training.train(translate, config, run, QUIET)
    return run


def interrupted(patch: pytest.MonkeyPatch, run: Path, config: Config, step: int) -> None:
    """Trains until a real signal arrives in the middle of a step."""
    loss, steps = translate.loss, []

    def loss_and_send(model, pairs):
        steps.append(1)
        if len(steps) == step:
            os.kill(os.getpid(), signal.SIGINT)
        return loss(model, pairs)

    patch.setattr(translate, "loss", loss_and_send)
    with pytest.raises(Interrupted):
        trained(run, config)
    patch.setattr(translate, "loss", loss)


@pytest.mark.unchecked
@pytest.mark.parametrize("attention", ["hard", "self"])
def test_an_interrupted_run_ends_as_if_it_had_not_been(attention: str, few: Path, monkeypatch: pytest.MonkeyPatch):
    config = replace(SMALL, attention=attention)
    whole = trained(few / "whole", config)
    interrupted(monkeypatch, few / "run", config, step=6)  # of eight
    assert contents(trained(few / "run", config)) == contents(whole)


@pytest.mark.unchecked
def test_training_stops_when_patience_ends_and_keeps_the_best(few: Path, monkeypatch: pytest.MonkeyPatch):
    scores = iter([10.0, 30.0, 20.0, 25.0, 40.0])
    monkeypatch.setattr(translate, "conclude", lambda sums: {"bleu": next(scores)})
    best = training.train(translate, replace(SMALL, epochs=9, patience=2), few / "run", QUIET)
    assert best["epoch"] == 2 and len(runs.read_metrics(few / "run")) == 4
    before = contents(few / "run")
    assert training.train(translate, replace(SMALL, epochs=9, patience=2), few / "run", QUIET) == best
    assert contents(few / "run") == before, "and is over"


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of sentences: dates as words."""
    folder = tmp_path_factory.mktemp("sentences")
    for part, count in (("train", 64), ("val", 8), ("test", 8)):
        for language, texts in zip(("de", "en"), dates(count, seed=count), strict=True):
            (folder / f"{part}.{language}").write_text("\n".join(texts) + "\n")
    return folder


@pytest.fixture(scope="module")
def run(files: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run on these sentences, of a few steps."""
    return trained(tmp_path_factory.mktemp("runs") / "additive", replace(SMALL, data=str(files), subwords=80))


def spoken(monkeypatch: pytest.MonkeyPatch, capsys, words: list[str], text: bytes) -> tuple[int, str, str]:
    """The status, standard output and standard error of a command that is told this on standard input."""
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(text)))
    status = cli.main(words)
    return status, *capsys.readouterr()


LINES = ["1 April 2038", "", "Thursday, 日本 1", "on " * 100, "   ", "2nd"]


@pytest.mark.unchecked
@pytest.mark.parametrize("beam", ["1", "3"])
def test_lines_are_translated_in_their_order_without_the_data(beam: str, run: Path, monkeypatch, capsys):
    monkeypatch.setattr(translate, "data", lambda config: pytest.fail("it needs no data"))
    words = ["translate", str(run), "--beam", beam]
    status, out, _ = spoken(monkeypatch, capsys, words, "\n".join(LINES).encode())
    found = out.removesuffix("\n").split("\n")
    assert status == 0 and len(found) == len(LINES)
    assert found[1] == found[4] == "" and all(found[n] for n in (0, 2, 3, 5))
    for line, wanted in zip(LINES, found, strict=True):
        assert spoken(monkeypatch, capsys, words, line.encode())[1].removesuffix("\n") == wanted


@pytest.mark.unchecked
def test_nothing_is_translated_as_nothing(run: Path, monkeypatch, capsys):
    assert spoken(monkeypatch, capsys, ["translate", str(run)], b"") == (0, "", "")


@pytest.mark.unchecked
def test_a_run_is_evaluated_and_looked_at(run: Path, few: Path, monkeypatch, capsys):
    status, out, _ = spoken(monkeypatch, capsys, ["evaluate", str(run), "--json"], b"")
    assert status == 0 and {"test_bleu", "test_perplexity", "test_error"} <= set(json.loads(out))
    (few / "run").mkdir()
    for name in ("config.yaml", "model.safetensors", "metrics.csv"):
        (few / "run" / name).write_bytes((run / name).read_bytes())
    status, out, _ = spoken(monkeypatch, capsys, ["look", "run"], b"")
    assert status == 0 and out.split()[-1] == "run/report.html" and len(out.split()) == 1 + 8


@attentions
def test_any_sentence_is_translated_by_any_attention(attention: str, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(translate, "PLACES", 150)
    model = made(attention).eval()
    found = translated(model, ["x" * 200, "", "日", "1 April 2038"], beam=1)
    assert found[1] == "" and len(found) == 4
    assert translated(model, ["1 April 2038"], beam=1) == found[3:]


def refused(monkeypatch, capsys, words: list[str], sentence: str, status: int = 1, text: bytes = b"") -> None:
    found, out, error = spoken(monkeypatch, capsys, words, text)
    assert (found, out, error) == (status, "", f"saccade: {sentence}\n")


@pytest.mark.unchecked
class TestRefused:
    def test_text_in_another_encoding(self, run: Path, monkeypatch, capsys):
        sentence = "standard input, line 2: expected text in UTF-8, but got the byte 0xfc"
        refused(monkeypatch, capsys, ["translate", str(run)], sentence, text="ja\nfür".encode("latin-1"))

    def test_a_beam_of_none(self, run: Path, monkeypatch, capsys):
        refused(monkeypatch, capsys, ["translate", str(run), "--beam", "0"], "--beam expected at least 1, but got 0", 2)

    def test_a_run_that_is_not_there(self, few: Path, monkeypatch, capsys):
        found, _, error = spoken(monkeypatch, capsys, ["translate", "nowhere"], b"")
        assert found == 2 and error.startswith("saccade: unknown run 'nowhere'")

    def test_a_run_of_another_recipe(self, few: Path, monkeypatch, capsys):
        (few / "run").mkdir()
        (few / "run" / "config.yaml").write_text("recipe: answer\n")
        refused(
            monkeypatch, capsys, ["translate", "run"], "run is a run of the recipe answer, which does not translate."
        )

    def test_a_run_without_weights(self, few: Path, monkeypatch, capsys):
        (few / "run").mkdir()
        (few / "run" / "config.yaml").write_text("recipe: translate\n")
        sentence = "run has no model.safetensors yet: its first epoch has not ended."
        refused(monkeypatch, capsys, ["translate", "run"], sentence)

    def damaged(self, run: Path, folder: Path, **changes: Tensor | None) -> None:
        from safetensors.torch import save_file

        weights = runs.read_weights(run) | changes
        (folder / "run").mkdir()
        (folder / "run" / "config.yaml").write_bytes((run / "config.yaml").read_bytes())
        save_file(
            {name: value for name, value in weights.items() if value is not None}, folder / "run/model.safetensors"
        )

    def test_weights_without_a_vocabulary(self, run: Path, few: Path, monkeypatch, capsys):
        self.damaged(run, few, spelling=None)
        sentence = "run/model.safetensors has no vocabulary, which the weights of a translator come with."
        refused(monkeypatch, capsys, ["translate", "run"], sentence)

    def test_a_damaged_vocabulary(self, run: Path, few: Path, monkeypatch, capsys):
        self.damaged(run, few, spelling=torch.tensor([255, 0], dtype=torch.uint8))
        found, _, error = spoken(monkeypatch, capsys, ["translate", "run"], b"")
        assert found == 1 and error.startswith("saccade: the vocabulary of the run is damaged: ")
        assert error.count("\n") == 1

    def test_weights_of_another_size(self, run: Path, few: Path, monkeypatch, capsys):
        self.damaged(run, few, bias=torch.zeros(3))
        found, _, error = spoken(monkeypatch, capsys, ["translate", "run"], b"")
        assert found == 1 and error.startswith("saccade: run/model.safetensors cannot be loaded: ")
        assert error.count("\n") == 1

    def test_a_run_trained_with_another_attention(self, run: Path, files: Path, few: Path, monkeypatch, capsys):
        (few / "runs" / "translate").mkdir(parents=True)
        (few / "runs" / "translate" / "mine").symlink_to(run)
        before = contents(run)
        words = ["train", "translate", "--config", str(run / "config.yaml"), "--attention", "dot", "--name", "mine"]
        sentence = (
            "runs/translate/mine exists already, and with another configuration (attention is additive there and dot "
            "here): give another name."
        )
        refused(monkeypatch, capsys, words, sentence)
        assert contents(run) == before

    @pytest.mark.parametrize("verb", ["evaluate", "train"])
    def test_a_vocabulary_that_does_not_fit_the_run(self, verb: str, files: Path, few: Path, monkeypatch, capsys):
        config = replace(SMALL, data=str(few / "data"), subwords=80)
        (few / "data").mkdir()
        for file in files.iterdir():
            (few / "data" / file.name).write_bytes(file.read_bytes())
        run = few / "runs" / "translate" / "additive-seed0"
        trained(run, replace(config, epochs=1))
        text = (run / "config.yaml").read_text().replace("epochs: 1", "epochs: 2")
        (run / "config.yaml").write_text(text)
        before = contents(run)
        (few / "data" / "train.de").write_text("anders\n" * 64)
        words = ["train", "translate", "--config", str(run / "config.yaml"), "--progress", "none"]
        sentence = (
            "the vocabulary of the data is not that of the run, which was trained on other sentences or languages: "
            "`saccade translate RUN` needs no data."
        )
        refused(monkeypatch, capsys, words if verb == "train" else ["evaluate", str(run)], sentence)
        assert contents(run) == before

    @pytest.mark.parametrize(
        ("flags", "sentence", "status"),
        [
            (["--target", "fr"], "the language 'fr' is not in {files}: there are de, en", 1),
            (["--data", "nowhere"], "data folder nowhere does not exist; expected 'generated' or a folder of sentence "
             "pairs", 1),
            (["--hidden", "15"], "--hidden expected a multiple of 2 and of --heads 4, but got 15", 2),
            (["--draws", "1"], "--draws expected at least 2, as draws are compared, but got 1", 2),
            (["--dropout", "1"], "--dropout expected a share from 0 up to 1, but got 1.0", 2),
            (["--patience", "0"], "--patience expected at least 1, but got 0", 2),
            (["--subwords", "4"], "--subwords expected at least 5, but got 4", 2),
        ],
    )  # fmt: skip
    def test_flags(self, flags: list[str], sentence: str, status: int, files: Path, few: Path, monkeypatch, capsys):
        words = ["train", "translate", "--data", str(files), "--progress", "none", *flags]
        refused(monkeypatch, capsys, words, sentence.format(files=files), status)


def test_other_sentences_are_evaluated_in_the_vocabulary_of_the_run(files: Path, run: Path, tmp_path: Path):
    from saccade import looking

    for file in files.iterdir():
        text = file.read_text() if file.name.startswith("test") else "ganz andere Worte\n" * 9
        (tmp_path / file.name).write_text(text)
    ours, same = (looking.evaluate(run, str(folder)) for folder in (tmp_path, files))
    assert ours == pytest.approx(same)


def test_bleu_of_a_split_is_that_of_its_greedy_translations(run: Path, monkeypatch: pytest.MonkeyPatch):
    from sacrebleu.metrics.bleu import BLEU

    recipe, _, splits, model = runs.open_run(run)
    nearly = [numbers[1:-1] if n % 3 else numbers[:-1] for n, numbers in enumerate(splits.train.target)]
    words = iter(nearly)
    monkeypatch.setattr(Model, "greedy", lambda model, source: [next(words) for _ in source])
    means = averages(recipe, model, splits.train, 16)
    found = [model.vocabulary.decode(numbers.tolist()) for numbers in nearly]
    theirs = BLEU(tokenize="13a").corpus_score(found, [splits.train.targets])
    assert means["bleu"] == pytest.approx(theirs.score, abs=1e-9) and 0 < theirs.score < 100
    assert means["error"] == sum(n % 3 > 0 for n in range(64)) / 64
    assert means["perplexity"] == pytest.approx(torch.tensor(means["loss"]).exp().item())


def test_what_bleu_counts(run: Path):
    model = restored(run)
    assert translate.spaced(model, "a dog, it's.") == ["a", "dog", ",", "it's", "."]
    model.tokenised = True
    assert translate.spaced(model, "a dog , it 's .") == ["a", "dog", ",", "it", "'s", "."]
    assert translate.spaced(made("dot"), "1-2") == ["1", "-", "2"]


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


@pytest.mark.parametrize("attention", ["additive", "hard", "segments", "none", "self"])
def test_pictures_say_where_each_word_looked(attention: str):
    model, pairs = made(attention).eval(), batch()
    pictures = translate.look(model, pairs)
    assert len(pictures) == 6 and all(picture.png[1:4] == b"PNG" for picture in pictures)
    for picture, source, written in zip(pictures, pairs["source"], model.greedy(pairs["source"]), strict=True):
        assert picture.title == model.vocabulary.decode(source.tolist())
        text = model.vocabulary.decode(written.tolist())
        assert picture.text.startswith(f"Translated as “{text}”, where the data have “")
        assert len(picture.matrix.target) == len(written) + 1
        ended = torch.cat((written, torch.tensor([END]))).unsqueeze(0)
        (alone,) = translate.alignments(model, source[source > 0].unsqueeze(0), ended)
        assert_close(picture.matrix.weights, alone.weights)
        assert picture.matrix.source == alone.source


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
        seen, _ = model(alone)
        cost = model.cost(seen, seen.features, alone["target"]).mean().item()
        order.append((bleu(counts(written, target)), -cost, source))
    assert len({each for each, *_ in order}) < 20, "there are ties"
    found = looking.failures(translate, model, split, 9)
    assert [picture.title for picture in found] == [source for *_, source in sorted(order)[:10]]
    assert [picture.text.rpartition("BLEU ")[2] for picture in found] == [
        f"{each:.1f}." for each, *_ in sorted(order)[:10]
    ]
    monkeypatch.delattr(translate, "badness")
    first = looking.failures(translate, model, split, 9)
    assert [picture.title for picture in first] == sources[:12], "all are wrong, and none is worse"


def test_the_cost_of_a_translation_is_the_mean_of_its_words():
    model = made("dot").eval()
    split = Pairs(SPLITS.test.sources[:3], ["2", "2038-01-01", "20"], model.vocabulary)
    found = translate.evaluate(model, split.batch(torch.arange(3)))["cost"]
    for n, cost in enumerate(found):
        assert_close(cost, translate.evaluate(model, split.batch(torch.tensor([n])))["loss"].mean())


def test_what_is_right_is_not_among_the_worst(monkeypatch):
    model, right = made("dot").eval(), [2, 5, 7]
    values = {"error": torch.ones(16), "cost": torch.arange(16.0), **{name: torch.zeros(16) for name in counts("", "")}}
    values["error"][right] = 0
    monkeypatch.setattr(translate, "evaluate", lambda model, batch: values)
    monkeypatch.setattr(looking, "look", lambda recipe, model, split, indices: indices.tolist())
    split = made_of(16).test
    assert looking.failures(translate, model, split, 16) == [15, 14, 13, 12, 11, 10, 9, 8, 6, 4]
    values["error"][:] = 0
    assert looking.failures(translate, model, split, 16) is None


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


@pytest.mark.unchecked
def test_a_run_shows_how_it_learned_where_to_look(run: Path, few: Path, capsys):
    found = read_learning(run)
    assert list(found) == [1, 2] and "".join(found[1].source).startswith(dates(8, seed=8)[0][0].split()[0])
    assert not torch.equal(found[1].weights, found[2].weights)
    assert len(looking.show(run, few)) == 8 + 2 and (few / "pictures" / "learning.png").exists()
    assert "How it learned where to look" in (few / "report.html").read_text()


class TestTextOfTheCommandLine:
    """`saccade look RUN --text SENTENCE`."""

    def test_it_is_translated_and_drawn_without_the_data(self, run: Path, monkeypatch, capsys):
        monkeypatch.setattr(translate, "data", lambda config: pytest.fail("it needs no data"))
        assert cli.main(["look", str(run), "--text", "the 5th of May 日"]) == 0
        drawn, page = map(Path, capsys.readouterr().out.splitlines())
        assert drawn.read_bytes()[1:4] == b"PNG" and {drawn.parent, page.parent} == {run / "text"}
        text = page.read_text()
        (found,) = translated(restored(run), ["the 5th of May 日"], beam=1)
        assert f"Translated as “{found}”." in html.unescape(text) and "the data have" not in text
        headings = re.findall(r'<th scope="col"><label><input [^>]*><span>(.*?)</span>', text)
        assert headings == ["the", "5th", "of", "May", "&lt;unknown&gt;", "&lt;end&gt;"]

    @pytest.mark.unchecked
    @pytest.mark.parametrize("words", [["--text", " "], ["--text", ""], ["--text", "rot", "--data", "generated"]])
    def test_it_must_be_a_sentence_alone(self, words: list[str], run: Path, capsys):
        assert cli.main(["look", str(run), *words]) == 2
        sentence = f"saccade: --text expected a sentence and no --data beside it, but got {words[1]!r}\n"
        assert capsys.readouterr().err == sentence


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
    return averages(translate, model, other, 100)["error"]


def test_it_learns():
    assert final_error("dot", steps=120) < 0.2


def test_it_does_not_learn_what_is_not_there():
    assert final_error("dot", steps=60, shuffled=True) > 0.95


class TestComparison:
    """`saccade compare translate --attentions ...`."""

    @pytest.fixture(autouse=True)
    def here(self, monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
        """An empty current directory; what is trained is trained in this process, and what is timed, briefly."""
        monkeypatch.chdir(tmp_path)
        monkeypatch.setattr(translate, "data", lambda config: made_of(24))
        monkeypatch.setattr(looking, "SHOWN", 2)
        monkeypatch.setattr(looking, "WORST", 2)
        alone = lambda expected, *_: [parallel._train(each, lambda *_: None) for each in expected]  # noqa: E731
        monkeypatch.setattr(parallel, "train_all", alone)

    def test_one_table_and_one_report(self, capsys):
        words = ["--attentions", "hard,none,hard", "--hidden", "16", "--epochs", "1", "--batch", "12", "--json"]
        assert cli.main(["compare", "translate", *words]) == 0
        found = json.loads(capsys.readouterr().out)
        assert [row["model"] for row in found["rows"]] == ["hard", "none"]
        assert all(row["test_bleu"] >= 0 and row["test_perplexity"] > 1 for row in found["rows"])
        page = Path(found["report"]).read_text()
        for heading in (
            "Where hard looked",
            "Where none looked",
            "Where hard failed most",
            "How it learned where to look",
            "sentences/s",
            "for each sentence",
        ):
            assert heading in page
        figures = page.count('<figure class="matrix"')
        assert figures == 9, "two sentences that are seen, two that are wrong, of two, and where hard learned to look"

    @pytest.mark.unchecked
    def test_there_must_be_such_an_attention(self, capsys):
        assert cli.main(["compare", "translate", "--attentions", "none,entmaxx"]) == 2
        assert capsys.readouterr().err == "saccade: unknown attention 'entmaxx': did you mean 'entmax'?\n"
