"""The parse recipe: what its parts compute, what it measures, and that it learns what there is to learn."""

import itertools
import math
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor
from torch.testing import assert_close

import regard as rg
from regard.app import data as datasets
from regard.app.data.generators.grammar import grammar
from regard.app.report import looking
from regard.app.text.parsing import Vocabulary
from regard.app.training import loop as training
from regard.app.training.evaluation import averages, evaluate
from regard.app.training.fabric import Fit
from regard.app.training.run import OpenedRun
from regard.recipes import parse
from regard.recipes.base import open_recipe
from regard.recipes.parse import Config, Parsed

OVERS = ("projective", "nonprojective", "softmax")
SMALL = Config(words=16, letters=8, filters=16, hidden=24, layers=2, arcs=24, relations=16)


@pytest.fixture(scope="module")
def splits() -> datasets.Splits:
    return datasets.treebank()


def made(splits: datasets.Splits, over: str = "softmax", **settings) -> parse.Model:
    torch.manual_seed(0)
    return parse.Model(replace(SMALL, over=over, **settings), splits)


def batch(splits: datasets.Splits, count: int = 8) -> dict[str, Tensor]:
    return splits.test.batch(torch.arange(count))


@pytest.mark.parametrize("over", OVERS)
def test_what_is_said_of_each_word_and_each_sentence(over: str, splits: datasets.Splits):
    values, sentences = parse.evaluate(made(splits, over).eval(), batch(splits)), splits.test.lengths[:8]
    words = int(sentences.sum())
    assert values["uas"].shape == values["las"].shape == (words,)
    assert values["uas_without_punctuation"].shape == values["las_without_punctuation"].shape == (words - 8,)
    assert values["error"].shape == values["tree"].shape == (8,)
    assert (values["las"] <= values["uas"]).all()
    assert over == "softmax" or (values["tree"] == 1).all()


class Answers:
    """A model that answers with these heads (B, K) and relations (B, K)."""

    def __init__(self, heads: Tensor, relations: Tensor):
        self.heads, self.relations = heads, relations

    def __call__(self, batch: dict[str, Tensor]) -> Parsed:
        weights = torch.nn.functional.one_hot(self.heads.clamp_min(0), self.heads.shape[1]).float()
        nothing = torch.zeros(*self.heads.shape, 1)
        return Parsed(rg.positions.OneHot(weights * (self.heads >= 0).unsqueeze(-1)), nothing, nothing)

    def relate(self, words: Tensor, heads: Tensor) -> Tensor:
        return torch.nn.functional.one_hot(self.relations.clamp_min(0), len(datasets.trees.RELATIONS)).float()


def test_words_count_as_in_the_shared_task():
    sentences = [
        datasets.Sentence(("Time", "flies", "."), ("NOUN", "VERB", "PUNCT"), (2, 0, 2), ("nsubj", "root", "punct")),
        datasets.Sentence(("Go",), ("VERB",), (0,), ("root",)),
    ]
    gold = datasets.Trees(sentences).batch(torch.arange(2))
    assert gold["heads"].tolist() == [[1, 1, 1], [0, -1, -1]]
    heads, relations = torch.tensor([[1, 1, 0], [0, -1, -1]]), gold["relations"].clone()
    relations[0, 0] = datasets.trees.RELATIONS.index("obj")
    values = {name: each.tolist() for name, each in parse.evaluate(Answers(heads, relations), gold).items()}
    assert values == {
        "uas": [1, 1, 0, 1],
        "las": [0, 1, 0, 1],
        "uas_without_punctuation": [1, 1, 1],
        "las_without_punctuation": [0, 1, 1],
        "error": [1, 0],
        "tree": [1, 1],
    }


def test_which_heads_are_a_tree():
    heads = torch.tensor(list(itertools.product(range(-1, 4), repeat=4)))
    present = heads >= 0
    heads = heads[(present.gather(1, heads.clamp_min(0)) | ~present).all(1)]
    found = parse._is_tree(heads)
    for row, tree in zip(heads.tolist(), found.tolist(), strict=True):
        roots = [i for i, head in enumerate(row) if head == i]
        ends = [word for word, head in enumerate(row) if head >= 0]
        for _ in row:
            ends = [row[word] for word in ends]
        assert tree == (ends == [] or (len(roots) == 1 and set(ends) == set(roots))), "no words are a tree of none"
    assert 100 < found.sum() < len(found) / 2


def test_sentences_are_read_from_their_own_ends():
    """As torch's own LSTM in both directions over packed sentences."""
    ours, lengths = parse.Recurrent(5, 4), torch.tensor([6, 1, 3])
    words = torch.randn(3, 6, 5)
    theirs = torch.nn.LSTM(5, 4, batch_first=True, bidirectional=True)
    weights = {f"{name}": value for name, value in ours.forth.state_dict().items()}
    weights |= {f"{name}_reverse": value for name, value in ours.back.state_dict().items()}
    theirs.load_state_dict(weights)
    packed = torch.nn.utils.rnn.pack_padded_sequence(words, lengths, batch_first=True, enforce_sorted=False)
    expected, _ = torch.nn.utils.rnn.pad_packed_sequence(theirs(packed)[0], batch_first=True)
    present = torch.arange(6) < lengths.unsqueeze(-1)
    assert_close(ours(words, lengths)[present], expected[present])


def test_scores_of_arcs_and_roots():
    arcs, words = parse.Arcs(7, SMALL).eval(), torch.randn(2, 4, 7)
    scores, (dependents, heads) = arcs(words), (part(words) for part in (arcs.dependent, arcs.head))
    for i, j in itertools.product(range(4), repeat=2):
        expected = (arcs.compare(dependents[:, i]) * heads[:, j]).sum(-1)
        assert_close(scores[:, i, j], arcs.root(dependents[:, i]).squeeze(-1) if i == j else expected)


def test_scores_of_relations():
    relate, words = parse.Relations(7, SMALL).eval(), torch.randn(1, 3, 7)
    torch.nn.init.normal_(relate.root)
    heads = torch.tensor([[1, 1, 0]])
    scores = relate(words, heads)
    dependents, above = relate.dependent(words)[0], relate.head(words)[0]
    matrices = relate.compare.weight.unflatten(0, (-1, SMALL.relations))  # (R, width, width)
    for i, head in enumerate((above[1], relate.root, above[0])):
        expected = torch.einsum("rhd,d,h->r", matrices, dependents[i], head)
        assert_close(scores[0, i], expected + relate.alone(torch.cat((dependents[i], head))))


@pytest.mark.parametrize("over", OVERS)
def test_padding_changes_nothing(over: str, splits: datasets.Splits):
    model = made(splits, over).eval()
    together = model(batch(splits))
    for n, length in enumerate(splits.test.lengths[:8].tolist()):
        alone = model(splits.test.batch(torch.tensor([n])))
        assert_close(together.positions.mean[n, :length, :length], alone.positions.mean[0], rtol=1e-4, atol=1e-5)
        assert (together.positions.mean[n, length:] == 0).all()
        assert_close(together.words[n, :length], alone.words[0], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("over", OVERS)
def test_the_loss_is_that_of_the_true_heads_and_relations(over: str, splits: datasets.Splits):
    model, gold = made(splits, over, dropout=0.0, word_dropout=0.0, tagging=0.5), batch(splits)
    total, logs = parse.loss(model, gold)
    parsed, words = model(gold), int(splits.test.lengths[:8].sum())
    log_prob = parsed.positions.log_prob(gold["heads"])
    if over == "softmax":
        places = parsed.positions.mean.gather(-1, gold["heads"].clamp_min(0).unsqueeze(-1)).squeeze(-1)
        assert_close(log_prob[gold["heads"] >= 0], places.log()[gold["heads"] >= 0])
    else:
        assert log_prob.shape == (8,)
    arcs = -log_prob[log_prob > -math.inf].sum() / words
    present = gold["heads"] >= 0
    relations, tags = (
        torch.nn.functional.cross_entropy(logits[present], gold[name][present])
        for logits, name in ((model.relate(parsed.words, gold["heads"]), "relations"), (parsed.tags, "tags"))
    )
    assert_close(logs["arcs"], arcs)
    assert_close(logs["relations"], relations)
    assert_close(total, arcs + relations + 0.5 * tags)


def test_trees_that_cross_teach_a_projective_distribution_their_relations_alone(splits: datasets.Splits):
    crossing = datasets.Trees([sentence for sentence in grammar(200, seed=7) if "who" in sentence.words][:6])
    for over, share in (("projective", 1.0), ("nonprojective", 0.0)):
        model = made(splits, over)
        total, logs = parse.loss(model, crossing.batch(torch.arange(6)))
        total.backward()
        learns = model.score.compare.weight.grad.abs().sum() > 0
        assert logs["impossible"] == share and learns == (over == "nonprojective")
        assert (logs["arcs"] > 0) == (over == "nonprojective") and torch.isfinite(total)
        assert model.relate.compare.weight.grad.abs().sum() > 0
        assert all(torch.isfinite(weight.grad).all() for weight in model.parameters() if weight.grad is not None)


def test_a_vocabulary_knows_what_was_seen():
    vocabulary = Vocabulary(torch.tensor([-7, 3, 9, 3, 3, 9]), least=2)
    assert vocabulary(torch.tensor([[3, 9], [-7, 100], [-100, 4]])).tolist() == [[1, 2], [0, 0], [0, 0]]
    assert len(vocabulary) == 3
    assert torch.equal(vocabulary.state_dict()["seen"], torch.tensor([3, 9]))


def test_words_are_known_from_twice_on_and_forgotten_in_training(splits: datasets.Splits):
    once = datasets.Sentence(("Fox", "fox", "zyzzyva"), ("NOUN",) * 3, (0, 1, 1), ("root", "dep", "dep"))
    train = datasets.Trees([once])
    forms = parse.Forms(replace(SMALL, word_dropout=0.5), train)
    assert (forms.word.weight == 0).all(), "what is rare does not begin as noise"
    torch.nn.init.normal_(forms.word.weight)
    assert len(forms.known) == 2, "fox, whatever its capitals"
    given = train.batch(torch.zeros(400, dtype=torch.long))
    vectors = forms.eval()(given)[..., : SMALL.words]
    assert_close(vectors[0], forms.word.weight[[1, 1, 0]])
    forgotten = (forms.train()(given)[:, :2, : SMALL.words] == forms.word.weight[0]).all(-1).float().mean()
    assert 0.4 < forgotten < 0.6


def test_letters_and_their_order_make_a_spelling(splits: datasets.Splits):
    forms = parse.Forms(SMALL, splits.train).eval()
    spelled = [torch.tensor([[*map(ord, word)] + [0] * (6 - len(word))]) for word in ("fox", "xof", "box", "fo")]
    vectors = [forms.spelling(each) for each in spelled]
    assert_close(vectors[0], forms.spelling(spelled[0][:, :4]))
    assert all(not torch.allclose(vectors[0], other) for other in vectors[1:])
    assert_close(
        forms.spelling(torch.tensor([[0x2603]])), forms.spelling(torch.tensor([[0x1F600]])), msg="both unknown"
    )


@pytest.mark.parametrize(
    "settings", [{"hidden": 0}, {"layers": 0}, {"batch": 0}, {"dropout": 1.0}, {"word_dropout": -0.1}]
)
def test_settings_that_make_no_sense_are_refused(settings: dict):
    with pytest.raises(ValueError, match=f"--{next(iter(settings))} expected"):
        Config(**settings)


def shuffle(words: Tensor) -> Tensor:
    """The words of all sentences of a batch mixed."""
    mixed = words.clone()
    mixed[words >= 0] = words[words >= 0][torch.randperm(int((words >= 0).sum()))]
    return mixed


def final(over: str, splits: datasets.Splits, shuffled: bool = False) -> dict[str, float]:
    """The averages on other sentences after training for a few seconds."""
    config = replace(SMALL, over=over, learning_rate=1e-2, dropout=0.1)
    model = made(splits, over, dropout=0.1)
    optimizer, scheduler = parse.optimiser(model, config, steps=100)
    generator = torch.Generator().manual_seed(0)
    for _ in range(100):
        gold = splits.train.batch(torch.randint(len(splits.train), (32,), generator=generator))
        if shuffled:
            gold["words"] = shuffle(gold["words"])
        optimizer.zero_grad()
        parse.loss(model, gold)[0].backward()
        optimizer.step()
        scheduler.step()
    return averages(OpenedRun(open_recipe(parse), SMALL, splits, model), splits.valid)


@pytest.mark.parametrize("over", OVERS)
def test_it_learns(over: str, splits: datasets.Splits):
    means = final(over, splits)
    assert means["uas"] >= means["las"] > 0.85
    assert means["tree"] == 1 or over == "softmax"


def test_it_does_not_learn_what_is_not_there(splits: datasets.Splits):
    assert final("softmax", splits, shuffled=True)["las"] < 0.6


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of one short epoch."""
    run = tmp_path_factory.mktemp("runs") / "parse" / "tiny"
    training.train(parse, replace(SMALL, over="projective", epochs=1, batch=100), run, Fit(progress="none"))
    return run


def test_what_was_trained_is_measured_and_drawn(run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(looking, "SHOWN", 3)
    found = evaluate(run)
    assert 0.2 < found["test_uas"] < 1 and found["test_tree"] == 1
    again = evaluate(run, data="generated")
    assert again == found
    paths = looking.show(run, tmp_path)
    assert len(paths) == looking.SHOWN + 1
    page = (tmp_path / "report.html").read_text()
    assert page.count("data:image/png;base64,") >= looking.SHOWN
    assert "heads are right" in page and "Where it failed" in page
    assert "share of the validation words with a wrong head or relation" in page


def test_a_run_parses_other_sentences_with_the_words_it_knows(run: Path, tmp_path: Path):
    from test_data_conllu import conllu

    for part in ("train", "dev", "test"):
        (tmp_path / f"xx-{part}.conllu").write_text(conllu(grammar(300 if part == "test" else 3, seed=2)))
    assert evaluate(run, data=str(tmp_path)) == evaluate(run)


def test_a_picture_says_what_is_wrong(splits: datasets.Splits):
    model = made(splits, "projective").eval()
    first, *_ = parse.look(model, batch(splits))
    words, gold = first.title.split(), splits.test.batch(torch.tensor([0]))
    right = int(parse.evaluate(model, gold)["uas"].sum())
    assert first.text.startswith(f"{right} of {len(words)} heads are right")
    assert first.text.count(" below ") == len(words) - right
    assert first.png.startswith(b"\x89PNG")
