"""Every row of the table makes what it names, and cites a paper that is there in full."""

import inspect
import re
import subprocess
import sys

import pytest
import torch
from torch.testing import assert_close

import regard as rg
from regard import estimators
from regard.named import BY_NAME, TABLE, Named, cite, find, papers

B, Q, K, D, V = 2, 3, 12, 8, 4
ATTENTIONS = [row for row in TABLE if row.whole.name != "look"]


def queries(row: Named) -> int:
    return K if row.name in ("tree", "constituency") else Q


def run(row: Named) -> rg.Attended:
    attention = row.make(query_dim=D, key_dim=D, hidden_dim=6, places=K, heads=2)
    values = torch.randn(B, K, D if row.name == "multi-head" else V, requires_grad=True)
    return attention(torch.randn(B, queries(row), D), attention.prepare(torch.randn(B, K, D), values))


@pytest.mark.parametrize("row", ATTENTIONS, ids=lambda row: row.name)
def test_each_row_makes_an_attention_that_runs(row: Named):
    out = run(row)
    assert out.context.shape == (B, queries(row), D if row.name == "multi-head" else V)
    assert out.context.isfinite().all()
    out.context.sum().backward()


@pytest.mark.parametrize("row", ATTENTIONS, ids=lambda row: row.name)
def test_a_row_draws_an_event_exactly_where_its_read_says_so(row: Named):
    drawn = run(row).z is not None
    assert drawn == (row.read.name in ("sample", "hard", "straight_through", "importance"))


def test_the_glimpse_looks_at_an_image():
    glance = find("glimpse").make(query_dim=D, key_dim=D)
    seen = glance(torch.randn(B, D), sensor=rg.Glimpses(torch.rand(B, 1, 20, 20), size=4, scales=2))
    assert seen.context.shape == (B, 2, 1, 4, 4)
    assert seen.z is not None
    assert seen.log_prob is not None
    assert seen.log_prob.requires_grad


def test_the_window_reads_an_image():
    window = find("window").make(query_dim=D, key_dim=D, places=400)
    seen = window(torch.randn(B, D), sensor=torch.rand(B, 400, V))
    assert seen.context.shape == (B, 25, V) and seen.weights.shape == (B, 25, 400)
    assert seen.z is None and seen.context.requires_grad


@pytest.mark.parametrize("kind", [torch.Tensor, rg.Cells])
def test_the_pointer_moves_on_a_tape(kind: type):
    move, place = find("pointer").make(query_dim=D, key_dim=D, places=K), torch.tensor([[0], [K - 1]])
    tape = torch.arange(K, dtype=torch.float).view(1, K, 1).expand(B, K, V)
    tape = rg.Cells(tape) if kind is rg.Cells else tape
    for _ in range(6):
        seen = move((torch.randn(B, 1, D), place), sensor=tape)
        assert ((seen.z - place + 1) % K <= 2).all()
        assert torch.equal(seen.context, seen.z.unsqueeze(-1).expand(B, 1, V).float())
        assert seen.log_prob.requires_grad and seen.weights.shape == (B, 1, K)
        place = seen.z


def test_the_pointer_stays_within_its_places():
    move = find("pointer").make(query_dim=D, key_dim=D, places=2)
    seen = move((torch.randn(1, 50, D), torch.arange(50).remainder(2).unsqueeze(0)), sensor=torch.randn(1, 2, V))
    assert set(seen.z.flatten().tolist()) == {0, 1}
    assert_close(seen.weights.sum(-1), torch.ones(1, 50))


def test_different_sizes_of_query_and_key_fit_where_the_score_has_parameters():
    attention = find("additive").make(query_dim=3, key_dim=5)
    assert attention(torch.randn(Q, 3), attention.prepare(torch.randn(K, 5), torch.randn(K, V))).context.shape == (Q, V)


def test_the_triple_that_is_printed_is_the_one_that_is_made():
    attention = find("local-p").make(query_dim=D, key_dim=D)
    assert str(find("local-p")) == "local-p: Additive, local(radius=10, centre=Predicted), mean"
    assert isinstance(attention.score, rg.Additive)
    assert isinstance(attention.over, rg.local)
    assert isinstance(attention.over.centre, rg.Predicted)
    assert attention.read is rg.mean


def test_names_are_unique_and_can_be_typed():
    assert len(BY_NAME) == len(TABLE)
    assert all(re.fullmatch(r"[a-z][a-z-]*[a-z]", name) for name in BY_NAME)


def faults(entry: str) -> list[str]:
    """What a BibTeX entry lacks."""
    fields = dict(re.findall(r"^  (\w+) *= \{(.+)\},?$", entry, re.MULTILINE))
    wanted = {"author", "title", "year", "url", "booktitle" if entry.startswith("@inproceedings") else "journal"}
    lacking = sorted(wanted - set(fields))
    if entry.count("{") != entry.count("}"):
        lacking.append("a brace")
    key = re.match(r"@\w+\{([a-z]+)(\d+)\w+,\n", entry)
    if not key or key[2] != fields.get("year") or key[1] not in fields.get("author", "").split(",")[0].lower():
        lacking.append("a key made of first author and year")
    return lacking


@pytest.mark.parametrize("key", papers())
def test_each_paper_is_complete(key: str):
    assert faults(papers()[key]) == []


def test_an_incomplete_paper_would_be_found():
    entry = papers()["kim2017structured"]
    assert faults(entry.replace("2017}", "2016}")) == ["a key made of first author and year"]
    assert faults(re.sub(r"  title.*\n", "", entry)) == ["title"]
    assert faults(entry.removesuffix("}")) == ["a brace"]


def test_each_row_has_a_paper_and_each_paper_a_row_or_an_estimator():
    others = set(papers()) - {row.paper for row in TABLE}
    assert len(others) < len(papers()) and {row.paper for row in TABLE} <= set(papers())
    for paper in others:  # they are of estimators, which cite them
        author, year = re.match(r"([a-z]+)(\d+)", paper).groups()
        assert re.search(rf"{author.capitalize()}\b.{{0,30}}{year}", inspect.getsource(estimators)), paper


def test_a_row_says_where_it_was_written():
    assert find("location").source == "Luong 2015, equation 8"


def test_cite_takes_a_mechanism_or_a_paper():
    assert cite("soft") == cite("hard") == cite("xu2015") == papers()["xu2015show"]
    assert cite("additive") == papers()["bahdanau2015neural"]


def test_an_unknown_name_is_answered_with_the_nearest():
    with pytest.raises(ValueError, match=r"unknown mechanism 'sparsmax': did you mean 'sparsemax'\?"):
        find("sparsmax")
    with pytest.raises(ValueError, match=r"unknown mechanism or paper 'bahdanau2014': did you mean 'bahdanau2015'\?"):
        cite("bahdanau2014")
    with pytest.raises(ValueError, match="unknown mechanism 'zzz': there are additive, addressing, attention-"):
        find("zzz")


def test_the_table_can_be_read_without_torch():
    program = "import sys, regard.named as named; named.cite('soft'); print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout == "False\n"
