"""Every mechanism of the table leaves Python: by torch.export, with sizes that were not traced, and by ONNX.

`FIXED` and `NO_ONNX` are all that cannot, and why.
"""

import re
import subprocess
import sys
import warnings
from functools import cache
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn
from torch.export import Dim
from torch.testing import assert_close

import regard as rg
from regard.named import TABLE, Named, find

pytestmark = [
    pytest.mark.unchecked,
    # torch's own, of its exporter.
    pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning"),
]

IN_TURN = "a step for every query, each of which depends on where the one before it looked"
RECURSION = "a recursion along the sequence, which a program unrolls"
LABELS = "labels in the place of places, of which there are as many as its parameters have"
COUNTS = "sums of places in pairs, a level for each doubling of their number, which a program unrolls"
FIXED = {
    "addressing": ({"queries"}, IN_TURN),
    "location-aware": ({"queries"}, IN_TURN),
    "coverage": ({"queries"}, IN_TURN),
    "monotonic": ({"queries", "places"}, RECURSION),
    "chunkwise": ({"queries", "places"}, RECURSION),
    "infinite-lookback": ({"queries", "places"}, RECURSION),
    "rationale": ({"places"}, RECURSION),
    "chain": ({"places"}, LABELS),
    "semi-markov": ({"places"}, LABELS),
    "subset": ({"places"}, COUNTS),
    "without-replacement": ({"places"}, COUNTS),
    "attention-sampling": ({"places"}, COUNTS),
}
"""{mechanism: the lengths that its program keeps as they were traced, and why}."""

NO_ONNX = ["segments", "rationale", "chain", "semi-markov", "ctc", "tree", "constituency"]
"""Those that have no ONNX program."""
SQUARE = "tree", "constituency"
"""Those whose words are the queries and the places."""
OURS = "it takes a kernel of ours, as its plain road is a gradient, which torch.export cannot trace"
"""Why they have none."""
DRAWING = ["variational", "gumbel-softmax", "straight-through", "without-replacement", "subset", "attention-sampling"]
"""Those that draw in evaluation too: two runs agree in the weights alone."""

MOST = 32
TRACED, OTHERS = (3, 4, 11), ((2, 5, 12), (5, 3, 20))
"""The batch, the queries and the places: as traced, and two others."""
KEPT = 3, 5
"""The queries and the places of a program that keeps them."""


class Attend(nn.Module):
    """query, keys and values to the context and the weights, and what was drawn."""

    def __init__(self, row: Named):
        super().__init__()
        places = KEPT[1] if row.name in ("chain", "semi-markov") else MOST
        self.attention = row.make(query_dim=8, key_dim=8, hidden_dim=6, places=places, heads=2)

    def forward(self, query: Tensor, keys: Tensor, values: Tensor) -> tuple[Tensor, ...]:
        out = self.attention(query, self.attention.prepare(keys, values), weights=True)
        return (out.context, out.weights) if out.z is None else (out.context, out.weights, out.z, out.log_prob)


def made(row: Named) -> Attend:
    model = Attend(row).eval()
    for parameter in model.parameters():
        nn.init.normal_(parameter, std=0.5)
    return model


def inputs(row: Named, batch: int, queries: int, places: int) -> tuple[Tensor, Tensor, Tensor]:
    fixed = FIXED.get(row.name, (set(), ""))[0]
    queries = KEPT[0] if "queries" in fixed else queries
    places = KEPT[1] if "places" in fixed else places
    queries = places if row.name in SQUARE else queries
    return torch.randn(batch, queries, 8), torch.randn(batch, places, 8), torch.randn(batch, places, 8)


def dynamic(fixed: set[str], square: bool = False, least: int = 8) -> dict[str, dict[int, Dim]]:
    limits = {"batch": (1, 64), "queries": (1, 64), "places": (least, MOST)}
    batch, queries, places = (Dim(name, min=low, max=high) for name, (low, high) in limits.items())
    query = {0: batch} | ({} if "queries" in fixed else {1: places if square else queries})
    keys = {0: batch} | ({} if "places" in fixed else {1: places})
    return {"query": query, "keys": keys, "values": keys}


def exported(row: Named, model: nn.Module, fixed: set[str]) -> torch.export.ExportedProgram:
    return torch.export.export(model, inputs(row, *TRACED), dynamic_shapes=dynamic(fixed, row.name in SQUARE))


def check_answers(row: Named, found: tuple[Tensor, ...], model: Attend, given: tuple[Tensor, ...]) -> None:
    """What was found is what the model answers to the same, given the same event, if it draws one."""
    wanted = model(*given)
    assert_close(found[1], wanted[1], msg=lambda text: f"{row.name}: {text}")
    if row.read.name in ("sample", "straight_through"):
        positions = model.attention(given[0], model.attention.prepare(*given[1:])).positions
        wanted = positions.gather(given[2], found[2]), wanted[1], found[2], positions.log_prob(found[2])
    if row.read.name not in ("relaxed", "importance"):
        assert_close(found, wanted, msg=lambda text: f"{row.name}: {text}")


def alike(rows: list[Named]) -> list[Named]:
    """The first of those that are the same triple by different names."""
    return list({f"{row.score}, {row.over}, {row.read}, {row.whole}": row for row in reversed(rows)}.values())[::-1]


ROWS = alike([row for row in TABLE if row.whole.name != "look"])


@cache
def program_of(name: str) -> tuple[Attend, torch.export.ExportedProgram]:
    """The model of a mechanism, and its program."""
    model = made(find(name))
    return model, exported(find(name), model, FIXED.get(name, (set(), ""))[0])


@pytest.mark.parametrize("name", [row.name for row in ROWS])
def test_each_row_with_sizes_that_were_not_traced(name: str):
    model, program = program_of(name)
    for sizes in OTHERS:
        given = inputs(find(name), *sizes)
        check_answers(find(name), program.module()(*given), model, given)


@pytest.mark.parametrize("name", FIXED)
def test_these_keep_their_lengths(name: str):
    """Told that all sizes may change, the exporter names those that may not."""
    row, sizes = find(name), dynamic(set(), least=2)
    with pytest.raises(torch._dynamo.exc.UserError) as caught:
        torch.export.export(made(row), inputs(row, *TRACED), dynamic_shapes=sizes)
    assert set(re.findall(r"You marked (\w+) as dynamic", str(caught.value))) == FIXED[name][0]


def operators(program: torch.export.ExportedProgram) -> set[str]:
    """The names of all operators of a program."""
    graphs = [each.graph for each in program.graph_module.modules() if isinstance(each, torch.fx.GraphModule)]
    return {str(node.target) for graph in graphs for node in graph.nodes if node.op == "call_function"}


@pytest.mark.parametrize("name", [row.name for row in ROWS])
def test_these_alone_hold_an_operator_of_ours(name: str):
    _, program = program_of(name)
    assert any(each.startswith("regard.") for each in operators(program)) == (name in NO_ONNX)


def test_onnx_lacks_the_operators_of_ours():
    with pytest.raises(torch.onnx.errors.OnnxExporterError, match=r"regard\.tree"):
        run_by_onnx(program_of("tree")[1])


@pytest.mark.parametrize("name", DRAWING[:-1])  # the last takes long, and has the operators of the one before
def test_onnx_draws_anew_in_each_run(name: str):
    model, program = program_of(name)
    run, given = run_by_onnx(program), inputs(find(name), *OTHERS[0])
    one, other = run(*given), run(*given)
    assert not torch.equal(one[0], other[0])
    assert_close(one[1], model(*given)[1], rtol=1e-4, atol=1e-5)


class Together(nn.Module):
    """Several mechanisms on the same arguments, so that ONNX's converter starts once."""

    def __init__(self, rows: list[Named]):
        super().__init__()
        self.models = nn.ModuleList([made(row) for row in rows])

    def forward(self, query: Tensor, keys: Tensor, values: Tensor) -> tuple[Tensor, ...]:
        return tuple(each for model in self.models for each in model(query, keys, values)[:2])


def run_by_onnx(program: torch.export.ExportedProgram, optimize: bool = False):
    """The program as a function that onnxruntime computes, whose own optimizer is enough: that of the converter, which
    is on by default, takes as long as all the rest."""
    onnxruntime = pytest.importorskip("onnxruntime")
    pytest.importorskip("onnxscript")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        converted = torch.onnx.export(program, dynamo=True, verbose=False, optimize=optimize)
    session = onnxruntime.InferenceSession(
        converted.model_proto.SerializeToString(), providers=["CPUExecutionProvider"]
    )
    names = [each.name for each in session.get_inputs()]
    return lambda *given: [
        torch.from_numpy(each)
        for each in session.run(None, {name: part.numpy() for name, part in zip(names, given, strict=True)})
    ]


IN_ONNX = [row for row in ROWS if row.name not in (*NO_ONNX, *DRAWING)]


@pytest.mark.parametrize("fixed", [set(), {"queries", "places"}], ids=["any length", "fixed length"])
def test_all_other_rows_by_onnxruntime(fixed: set[str]):
    rows = [row for row in IN_ONNX if (row.name in FIXED) == bool(fixed)]
    model, like = Together(rows).eval(), find("monotonic" if fixed else "dot")
    run = run_by_onnx(torch.export.export(model, inputs(like, *TRACED), dynamic_shapes=dynamic(fixed)))
    for sizes in OTHERS:
        given = inputs(like, *sizes)
        found = run(*given)
        for row, one, pair in zip(rows, model.models, zip(found[::2], found[1::2], strict=True), strict=True):
            assert_close(pair, one(*given)[:2], rtol=1e-4, atol=1e-5, msg=lambda text, row=row: f"{row.name}: {text}")


def test_the_additive_example_of_the_readme_by_onnxruntime():
    """With the mask, and the keys projected once."""

    class Reads(nn.Module):
        def __init__(self):
            super().__init__()
            self.attention = rg.Attention(score=rg.Additive(8, 8, 6), over=rg.softmax, read=rg.mean)

        def forward(self, query: Tensor, keys: Tensor, values: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
            out = self.attention(query, self.attention.prepare(keys, values, mask), weights=True)
            return out.context, out.weights

    def given(batch: int, queries: int, places: int) -> tuple[Tensor, ...]:
        mask = rg.padding(torch.arange(batch) * 3, places)
        return *inputs(find("dot"), batch, queries, places), mask

    model, sizes = Reads().eval(), dynamic(set())
    program = torch.export.export(
        model, given(*TRACED), dynamic_shapes=sizes | {"mask": {0: sizes["keys"][0], 2: sizes["keys"][1]}}
    )
    run = run_by_onnx(program, optimize=True)
    for each in (given(*sizes) for sizes in OTHERS):
        assert_close(tuple(run(*each)), model(*each), rtol=1e-4, atol=1e-5)


def test_the_page_tells_what_cannot_and_why():
    page = (Path(__file__).parent.parent / "docs" / "export.md").read_text().partition("## What cannot\n")[2]
    rows = {line for line in page.splitlines() if line.startswith("| ") and not line.startswith(("| ---", "| mech"))}
    without = {f"| {name} | {OURS} |" for name in NO_ONNX}
    assert rows == without | {f"| {name} | {', '.join(sorted(kept))} | {why} |" for name, (kept, why) in FIXED.items()}


class Looks(nn.Module):
    """Attention whose answer is of our own dataclasses, by a kernel of ours."""

    def forward(self, query: Tensor, keys: Tensor, values: Tensor) -> tuple[rg.Attended, Tensor]:
        out = rg.attend(query, keys, values, over=rg.local(1), read=rg.mode)
        return out, rg.attend(query, keys, values, over=rg.segments(1.0)).context


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A saved program, and what it should answer."""
    folder = tmp_path_factory.mktemp("saved")
    given = inputs(find("dot"), 2, 3, 5)
    program = torch.export.export(Looks(), given)
    assert any(each.startswith("regard.") for each in operators(program))
    torch.export.save(program, folder / "program.pt2")
    out, segments = Looks()(*given)
    torch.save((given, out.context, segments), folder / "wanted.pt")
    return folder


LOAD = """
program = torch.export.load("program.pt2")
given, wanted, by_kernel = torch.load("wanted.pt")
out, segments = program.module()(*given)
assert type(out).__name__ == "Attended" and (out.context == wanted).all() and segments.allclose(by_kernel)
print(type(out.positions).__module__.split(".")[0], type(out.state).__name__)
"""


@pytest.mark.parametrize(
    "first",
    [
        "import regard, torch",
        "import torch.export\nimport torch._inductor.package\nimport regard",
    ],
)
def test_a_saved_program_loads_where_regard_was_imported(first: str, saved: Path):
    done = subprocess.run([sys.executable, "-c", first + LOAD], cwd=saved, capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (0, "regard State\n"), done.stderr


def test_without_regard_it_does_not(saved: Path):
    done = subprocess.run([sys.executable, "-c", "import torch" + LOAD], cwd=saved, capture_output=True, text=True)
    assert done.returncode == 1 and "deserializing" in done.stderr


def test_importing_regard_loads_neither_torch_nor_our_modules_until_a_program_is_loaded():
    program = """
import regard, sys
before = {name for name in sys.modules if name.startswith("regard.")}
import torch
import torch.export
between = {name for name in sys.modules if name.startswith("regard.")}
import torch.export.pt2_archive._package
print(sorted(before), sorted(between), "regard.attention" in sys.modules)
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout == "[] [] True\n"
