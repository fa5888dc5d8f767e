"""The recipe read: what each reader looks at and answers by, that they learn in seconds to read a village's stories,
own data from the command line, and bad input by name."""

import json
import re
from dataclasses import replace
from pathlib import Path
from typing import get_args, get_type_hints

import pytest
import torch
from torch import Tensor
from torch.testing import assert_close

import regard as rg
from regard.app import cli
from regard.app.compare import costs
from regard.app.data.cloze import MARKERS, clozes
from regard.app.data.generators.village import village
from regard.app.data.splits import spelled_by
from regard.app.text.comprehension import among_names, around, picked
from regard.app.text.vectors import lexicon
from regard.app.training.fabric import Fit
from regard.app.training.loop import train
from regard.app.training.run import open_run
from regard.recipes import read
from regard.recipes.base import open_recipe
from regard.recipes.read import Config

READERS = get_args(get_type_hints(Config)["reader"])
LOOKS = [(name, how) for name in READERS for how in ("soft", "hard") if (name, how) != ("uniform", "hard")]
SMALL = Config(hidden=8, size=10, epochs=1, soft=0.0)
QUIET = Fit(accelerator="cpu", threads=1, progress="none")


@pytest.fixture(scope="module")
def splits():
    found = clozes()
    return spelled_by(found, lexicon(" ".join(each.words).lower() for each in found.train.questions))


@pytest.fixture
def made(splits):
    def make(**settings) -> tuple[read.Model, dict[str, Tensor]]:
        """A model and a batch of eight."""
        model = read.Model(replace(SMALL, **settings), splits)
        return model, splits.train.batch(torch.arange(8), torch.Generator().manual_seed(0))

    return make


@pytest.fixture(scope="module")
def village_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    file = tmp_path_factory.mktemp("village") / "stories.jsonl"
    file.write_text("\n".join(village(1200, seed=7)))
    return file


@pytest.fixture(scope="module")
def run(village_file: Path) -> Path:
    """A run of a reader that reads one name."""
    folder = village_file.parent / "hard"
    config = replace(SMALL, data=str(village_file), attention="hard", hidden=24, size=24, soft=0.7, epochs=7)
    train(read, replace(config, learning_rate=0.01, dropout=0.0), folder, QUIET)
    return folder


@pytest.mark.parametrize(("reader", "attention"), LOOKS)
def test_every_weight_learns(made, reader: str, attention: str):
    model, batch = made(reader=reader, attention=attention)
    total, _ = read.loss(model, batch)
    total.backward()
    learned = {name for name, weights in model.named_parameters() if weights.grad is not None}
    assert learned == {name for name, _ in model.named_parameters()} and total.isfinite()
    values = read.evaluate(model.eval(), batch)
    assert all(value.shape == (8,) for value in values.values())
    assert (values["words_read"] >= 1).all() and (values["words_read"] <= batch["story"]).all()


@pytest.mark.parametrize(("reader", "attention"), LOOKS)
def test_padding_changes_nothing(made, reader: str, attention: str):
    model, batch = made(reader=reader, attention=attention)
    model.eval()
    fill = torch.zeros(8, 3, dtype=torch.long)
    wider = batch | {"words": torch.cat((batch["words"], fill), 1), "names": torch.cat((batch["names"], fill - 1), 1)}
    assert_close(model(wider).chances, model(batch).chances)
    one = {
        name: value[3:4, : int((batch["words"][3] > 0).sum())] if value.dim() > 1 else value[3:4]
        for name, value in batch.items()
    }
    assert_close(model(one).chances[0], model(batch).chances[3])


@pytest.mark.parametrize("reader", READERS)
def test_other_markers_are_other_names_for_the_same(made, reader: str):
    """Where the markers' vectors are permuted as they are, so are the chances."""
    model, batch = made(reader=reader)
    model.eval()
    chances, order = model(batch).chances, torch.randperm(MARKERS)
    names = torch.where(batch["names"] < 0, -1, order[batch["names"].clamp(min=0)])
    assert not torch.allclose(model(batch | {"names": names}).chances[:, order], chances)
    model.markers.data[order] = model.markers.data.clone()
    assert_close(model(batch | {"names": names}).chances[:, order], chances)


def test_the_answer_is_one_of_the_names_of_the_story(made):
    for reader in READERS:
        model, batch = made(reader=reader)
        chances = model.eval()(batch).chances
        told = torch.zeros_like(chances).scatter(1, batch["names"].clamp(min=0), 1.0)
        assert_close(chances.sum(-1), torch.ones(8))
        assert (chances[told == 0] == 0).all()


def test_sum_is_the_equations(made):
    """s = softmax of the scores over the names, and P(w) the sum of s where w stands (Kadlec et al. 2016)."""
    model, batch = made(reader="sum")
    model.eval()
    story, output = model.story(batch), model(batch)
    for n in range(8):
        inside = torch.arange(batch["words"].shape[1]) < batch["story"][n]
        places = ((batch["names"][n] >= 0) & inside).nonzero().flatten()
        weights = (story.states[n, places] @ model.attention.score.key.weight.mT @ story.asked[n, 0]).softmax(0)
        for name in batch["names"][n, places].unique():
            wanted = weights[batch["names"][n, places] == name].sum()
            assert_close(output.chances[n, name], wanted)


def test_impatient_looks_once_for_each_word_of_the_question(made):
    """Word by word of one question, the place of the name last, with what was read before."""
    model, batch = made(reader="impatient")
    model.eval()
    output, story = model(batch), model.story(batch)
    length = (batch["words"] > 0).sum(1)
    assert len(output.looks) == int((length - batch["story"]).max())
    assert output.there.sum(1).tolist() == (length - batch["story"]).tolist()
    n = int((length - batch["story"]).argmin())
    asked = [k for k in range(int(batch["story"][n]), int(length[n])) if k != batch["blank"][n]]
    values, told = story.both[n, : batch["story"][n]], torch.zeros(story.both.shape[-1])
    for query in (*story.states[n, asked], story.asked[n, 0]):
        scores = model.attention.score((query + model.known.weight @ told).unsqueeze(0), story.states[n, : len(values)])
        told = (scores.softmax(-1) @ values)[0] + (model.kept.weight @ told).tanh()
    found = told[-10:] + model.naming.joint(torch.cat((told, story.asked[n, 0]))).tanh()
    seen = output.chances[n] > 0
    assert_close(output.chances[n][seen], (model.markers[seen] @ found / 10**0.5).softmax(0))


def test_a_hard_look_reads_one_word(made):
    for reader in ("sum", "attentive"):
        model, batch = made(reader=reader, attention="hard")
        output = model.eval()(batch)
        assert (read.evaluate(model, batch)["words_read"] == 1).all()
        place = output.weights[:, 0].argmax(-1)
        if reader == "sum":
            assert torch.equal(output.answer, batch["names"].gather(1, place.unsqueeze(1)).squeeze(1))
        else:
            assert torch.equal(output.looks[0].context[:, 0], output.story.both[torch.arange(8), place])


def test_hard_attention_is_trained_softly_at_first(made):
    model, batch = made(attention="hard", soft=0.5)
    steps = int(model.attention.read.left)
    assert steps == round(0.5 * (2000 // 32))
    assert not model.draws and model(batch).answer.shape == (8,)
    for _ in range(steps):
        read.after_step(model)
    assert model.draws and model(batch).answer.shape == (4, 8)
    assert model.eval()(batch).answer.shape == (8,)


def test_what_is_known_around_a_name_does_not_know_the_name(made):
    """Another marker in one place changes nothing of what is known around it, and what is learned there is not read
    off: neither do the keys before it, nor those behind it in the other direction."""
    model, batch = made()
    model.eval()
    place = int((batch["names"][0, : int(batch["story"][0])] >= 0).nonzero()[2])
    names = batch["names"].clone()
    names[0, place] = (names[0, place] + 1) % MARKERS
    one, other = (model.story(batch | {"names": each}).states for each in (batch["names"], names))
    at = torch.tensor([[place]])
    assert torch.equal(picked(around(one[:1]), at), picked(around(other[:1]), at))
    assert not torch.equal(one[0, place], other[0, place])
    assert torch.equal(one[0, :place, :8], other[0, :place, :8])
    end = int((batch["words"][0] > 0).sum())
    assert torch.equal(one[0, place + 1 : end, 8:], other[0, place + 1 : end, 8:])


def test_names_that_stand_once_are_not_asked_for(made):
    model, batch = made()
    story = model.eval().story(batch)
    alone = story._replace(
        markers=torch.where(torch.arange(story.markers.shape[1]) == 1, 5, -1).expand_as(story.markers)
    )
    assert among_names(model.attention.score, alone) == 0 < among_names(model.attention.score, story)


@pytest.mark.parametrize("reader", READERS)
def test_what_an_answer_costs_is_counted(made, reader: str):
    model, batch = made(reader=reader)
    step = costs.inference(open_recipe("read"), model, batch)
    assert costs.multiply_adds(step) > batch["words"].numel() * 8 * 8


def test_a_reader_learns_to_read_the_right_name(run: Path):
    opened = open_run(run)
    split = opened.splits.test
    values = read.evaluate(opened.model, split.batch(torch.arange(len(split))))
    assert values["error"].mean() < 0.2 and (values["words_read"] == 1).all()


TEXT = (
    "The boat belonged to Zoe. It was then that Yorick built the mill. Long ago old Wanda had bought the lamp. "
    "It began to rain. In the evening XXXXX went back to the mill."
)


@pytest.mark.unchecked
def test_a_run_answers_is_evaluated_and_looked_at(run: Path, village_file: Path, capsys: pytest.CaptureFixture):
    assert cli.main(["predict", str(run), TEXT, "--json"]) == 0
    answer = json.loads(capsys.readouterr().out)
    assert answer["answer"] == "Yorick" and answer["words"] == ["Yorick"] and 0.3 < answer["probability"] <= 1
    assert cli.main(["predict", str(run), village(1, seed=9)[0]]) == 0
    assert capsys.readouterr().out.strip() in json.loads(village(1, seed=9)[0])["candidates"]
    assert rg.load(run).predict([TEXT])[0].answer == "Yorick"
    assert cli.main(["evaluate", str(run)]) == 0
    assert cli.main(["evaluate", str(run), "--data", str(village_file)]) == 0
    assert cli.main(["look", str(run)]) == 0
    assert re.search(r"Answered \w+ \(\d+%\)", (run / "report.html").read_text())
    assert cli.main(["look", str(run), "--text", TEXT]) == 0
    assert "Answered Yorick" in (run / "text" / "report.html").read_text()


@pytest.mark.unchecked
def test_bad_input_is_a_sentence_and_a_status(run: Path, tmp_path: Path, capsys: pytest.CaptureFixture):
    assert cli.main(["predict", str(run), "Who was it?", TEXT]) == 1
    caught = capsys.readouterr()
    assert "expected XXXXX in the place of a name, but got 'Who was it?'" in caught.err and caught.out == "Yorick\n"
    (tmp_path / "bad.jsonl").write_text('{"context": "Ida ran ."}\n')
    assert cli.main(["evaluate", str(run), "--data", str(tmp_path / "bad.jsonl")]) == 1
    assert "bad.jsonl, line 1: expected {" in capsys.readouterr().err
    assert cli.main(["train", "read", "--reader", "uniform", "--attention", "hard"]) == 2
    assert "--attention hard expected a reader that looks somewhere" in capsys.readouterr().err


@pytest.mark.parametrize(("settings", "said"), [
    ({"hidden": 0}, "--hidden expected at least 1, but got 0"),
    ({"draws": 1}, "--draws expected at least 2, but got 1"),
    ({"dropout": 1.0}, "--dropout expected a share from 0 up to 1"),
    ({"names": -1.0}, "--names expected at least 0, but got -1.0"),
    ({"clip": 0.0}, "--clip expected a number above zero"),
    ({"reader": "uniform", "attention": "hard"}, "--attention hard expected a reader that looks somewhere"),
])  # fmt: skip
def test_bad_settings_are_named(settings: dict, said: str):
    with pytest.raises(ValueError, match=re.escape(said)):
        replace(SMALL, **settings)
