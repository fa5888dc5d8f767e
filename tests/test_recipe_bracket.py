"""The recipe bracket: what each decoder looks at, that constrained ones write trees, that a chart learns in seconds,
and its use."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor
from torch.testing import assert_close

import regard as rg
from regard.app import cli
from regard.app.compare import costs
from regard.app.text.brackets import read_brackets
from regard.app.text.charts import chart_cost, gold_labels
from regard.app.training.fabric import Fit
from regard.app.training.loop import train
from regard.app.training.run import open_run
from regard.recipes import bracket
from regard.recipes.base import open_recipe
from regard.recipes.bracket import Config

DECODERS = ["additive", "monotonic", "hard", "none", "chart"]
SMALL = Config(words=8, shapes=4, hidden=8, layers=1, scoring=8, epochs=1, soft=0.0)
QUIET = Fit(accelerator="cpu", threads=1, progress="none")
decoders = pytest.mark.parametrize("decoder", DECODERS)


def made(**settings) -> tuple[bracket.Model, dict[str, Tensor]]:
    """A model and a batch of six."""
    config = replace(SMALL, **settings)
    splits = bracket.data(config)
    return bracket.Model(config, splits), splits.train.batch(torch.arange(6))


@pytest.fixture(scope="module")
def chart(tmp_path_factory: pytest.TempPathFactory) -> Path:
    run = tmp_path_factory.mktemp("bracket") / "chart"
    train(
        bracket,
        replace(SMALL, decoder="chart", hidden=24, words=24, scoring=16, epochs=4, learning_rate=0.02, dropout=0.1),
        run,
        QUIET,
    )
    return run


@decoders
def test_every_weight_learns(decoder: str):
    model, batch = made(decoder=decoder)
    total, _ = bracket.loss(model, batch)
    total.backward()
    assert total.isfinite()
    assert all(weights.grad is not None and weights.grad.isfinite().all() for weights in model.parameters())


@decoders
def test_padding_changes_nothing(decoder: str):
    model, batch = made(decoder=decoder)
    model.eval()
    wider = {
        name: torch.cat((batch[name], torch.full((6, 2), fill)), 1)
        for name, fill in {"words": 0, "shapes": 0, "tags": -1, "marks": 0}.items()
    }
    assert_close(bracket.loss(model, batch | wider)[0], bracket.loss(model, batch)[0])
    assert model.trees(batch | wider)[0] == model.trees(batch)[0]


@pytest.mark.parametrize("decoder", DECODERS[:-1])
def test_steps_in_turn_are_those_of_all_at_once(decoder: str):
    """What the next step is told from is the same when the decoder writes and when it is taught."""
    model, batch = made(decoder=decoder)
    model.eval()
    (output, _), _ = model(batch)
    words, _ = model.encoder(batch)
    state, before = model.writer.begin(words, batch["words"] > 0), torch.ones(6, dtype=torch.long)
    for place in range(batch["steps"].shape[1]):
        log_probs, state = model.step(before, state)
        real = batch["steps"][:, place] > 0
        wanted = model.writer.label(output.features[:, place]).log_softmax(-1)
        assert_close(log_probs[real], wanted[real])
        before = batch["steps"][:, place]


@pytest.mark.parametrize("decoder", DECODERS[:-1])
def test_constrained_trees_are_well_formed(decoder: str):
    """Of a model that has learned nothing."""
    model, batch = made(decoder=decoder, constrained="yes")
    assert bracket.evaluate(model.eval(), batch)["malformed"].sum() == 0
    model.constrained = False
    assert bracket.evaluate(model, batch)["malformed"].sum() > 0


@pytest.mark.parametrize("decoder", ["hard", "monotonic"])
def test_hard_decoders_read_one_word_a_step(decoder: str):
    model, batch = made(decoder=decoder)
    (output, _), _ = model.eval()(batch)
    assert output.look.z.shape == batch["steps"].shape and (output.look.z < batch["words"].shape[1]).all()
    if decoder == "monotonic":
        assert (output.look.z.masked_fill(output.look.z < 0, 1_000).diff(dim=-1) >= 0).all()


def test_a_chart_costs_what_the_trees_with_its_brackets_are_worth():
    """By going through all binary trees: those that have each bracket with its label and no other label."""
    scores = torch.randn(1, 4, 4, 3, dtype=torch.float64)
    chains = torch.tensor([[[0, 3, 2], [1, 3, 1]]])
    positions = rg.constituency(3)(scores)
    support = positions.enumerate_support()[:-1, 0]
    gold = gold_labels(chains, 4)[0]
    right = ((support < 0) | (support == gold)).all(-1).all(-1) & (support[:, 1, 3] == 1)
    chance = positions.log_prob(support.unsqueeze(1)).exp()[right].sum()
    assert 0 < right.sum() < len(support)
    assert_close(chart_cost(scores, torch.ones(1, 4, dtype=torch.bool), chains), -chance.log().unsqueeze(0))


@decoders
def test_what_an_answer_costs_is_counted(decoder: str):
    model, batch = made(decoder=decoder)
    assert costs.multiply_adds(costs.inference(open_recipe("bracket"), model, batch)) > batch["words"].numel() * 8 * 8


def test_a_chart_learns_the_grammar(chart: Path):
    opened = open_run(chart)
    batch = opened.splits.test.batch(torch.arange(100))
    sums = {name: (float(each.sum()), float(len(each))) for name, each in bracket.evaluate(opened.model, batch).items()}
    found = bracket.conclude(sums)
    assert found["f1"] > 80 and found["malformed"] == 0 and found["f1_evalb"] > 80
    assert max(bracket.badness(bracket.evaluate(opened.model, batch))) <= 1


@pytest.mark.parametrize("decoder", ["additive", "chart"])
def test_pictures(decoder: str):
    model, batch = made(decoder=decoder)
    pictures = bracket.look(model.eval(), batch)
    assert len(pictures) == 6 and all(picture.png[1:4] == b"PNG" for picture in pictures)
    assert (pictures[0].matrix is None) == (decoder == "chart")
    one = {name: each[:1] for name, each in batch.items()}
    matrix = bracket.glance(model, one)
    assert decoder == "chart" or (matrix is not None and list(matrix.target)[-1] == "end")


@pytest.mark.unchecked
def test_lines_in_and_trees_out(chart: Path, capsys: pytest.CaptureFixture[str]):
    assert cli.main(["predict", str(chart), "the old fox saw a dog .", "dogs ( quietly )"]) == 0
    lines = capsys.readouterr().out.strip().splitlines()
    assert [tree.words for tree in read_brackets(lines)] == [
        ("the", "old", "fox", "saw", "a", "dog", "."),
        ("dogs", "-LRB-", "quietly", "-RRB-"),
    ]


def test_bad_texts_are_named():
    model, _ = made(decoder="chart")
    for text in ("", "a " * 251):
        with pytest.raises(ValueError, match="expected a text of 1 to 250 words"):
            bracket.prepare(model, text)


def test_a_run_without_data_knows_its_words(chart: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    for part in ("train", "dev"):
        (tmp_path / f"{part}.ptb").write_text("(S (NP (DT the) (NN fox)) (VP (VBD slept)))")
    (tmp_path / "test.ptb").write_text("(S (NP (DT the) (NN fox)) (VP (VBD slept)) (. .))")
    assert cli.main(["evaluate", str(chart), "--data", str(tmp_path), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["f1"] >= 0


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        ({"draws": 1}, "--draws expected at least 2"),
        ({"longest": 0}, "--longest expected"),
        ({"clip": 0.0}, "--clip expected"),
    ],
)
def test_what_cannot_be_is_said(settings: dict, sentence: str):
    with pytest.raises(ValueError, match=sentence):
        replace(SMALL, **settings)
