# ruff: noqa: E501 - an equation is one line
"""The pages of the site that are generated: one for every mechanism, and those of the public names.

A mechanism is a row of `regard.named`; what its parts compute stands here as equations, and when they are worth taking
and what they cost in the tables of mechanisms.md. A part that lacks either makes the build fail, and a test.
"""

import io
import re
from contextlib import redirect_stdout
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
SIZES = {"query_dim": 16, "key_dim": 16, "hidden_dim": 32, "places": 24, "heads": 4}
"""Of the example on every page."""

EQUATIONS = {
    "dot": r"s_{qk} = q \cdot k",
    "scaled_dot": r"s_{qk} = \frac{q \cdot k}{\sqrt{D}}",
    "Bilinear": r"s_{qk} = q^\top W k",
    "Cosine": r"s_{qk} = \beta \, \frac{q \cdot k}{|q| \, |k|}",
    "Content": r"s_{qk} = \beta_q \, \frac{(W q) \cdot k}{|W q| \, |k|}",
    "Additive": r"s_{qk} = w^\top \tanh(W q + U k + b)",
    "Location": r"s_q = W q",
    "LocationAware": r"s_{qk} = w^\top \tanh(W q + U k + V (F * \alpha_{q-1})_k + b)",
    "Coverage": r"s_{qk} = w^\top \tanh\Big(W q + U k + v \sum_{q' < q} \alpha_{q'k} + b\Big)",
    "softmax": r"p_k = \frac{e^{s_k}}{\sum_j e^{s_j}}",
    "sparsemax": r"p = \mathrm{argmin}_{p \in \Delta} \; |p - s|^2, \qquad p_k = [s_k - \tau]_+",
    "entmax": r"p_k = [(\alpha - 1) s_k - \tau]_+^{1 / (\alpha - 1)}",
    "top_k": r"p_k \propto e^{s_k} \; \text{for the } k \text{ best places, else } 0",
    "local": r"p_k \propto e^{s_k} \; \text{for } |k - c_q| \le r, \text{ else } 0",
    "addressing": r"w_t = \text{sharpen}\big(\text{shift}(g_t w^c_t + (1 - g_t) w_{t-1})\big)",
    "monotonic": r"\alpha_{qk} = p_{qk} \sum_{j \le k} \alpha_{q-1, j} \prod_{l=j}^{k-1} (1 - p_{ql}), \qquad p = \sigma(s)",
    "sigmoid": r"p_k = \frac{1}{1 + e^{-s_k}} \; \text{for each place by itself}",
    "segments": r"p(z) \propto \exp \Big( \sum_k s_k z_k + a \sum_k [z_k = z_{k+1}] \Big), \quad z \in \{0, 1\}^K",
    "chain": r"p(z) \propto \exp \Big( \sum_t s_{t, z_t} + \sum_t A_{z_t, z_{t+1}} \Big)",
    "semi_markov": r"p(z) \propto \exp \sum_{\text{segments } (t, w, y)} \Big( \sum_{t' = t}^{t + w - 1} s_{t' y} + A_{y' y} + b_{w y} \Big)",
    "ctc": r"p(z) \propto \exp \sum_t s_{t, z_t} \; \text{over labellings } z \text{ that say the targets}",
    "tree": r"p(z) \propto \exp \sum_{\text{words } m} s_{m, z_m} \; \text{over trees } z",
    "constituency": r"p(z) \propto \exp \sum_{\text{spans } (i, j)} s_{i j} \; \text{over binary trees } z",
    "forced_alignment": r"p(z) \propto \exp \sum_t s_{t, z_t} \; \text{over } z \text{ from the first place to the last, by none or one a frame}",
    "rnnt": r"p(z) \propto \exp \Big( \sum_u s_{z_u, u, y_u} + \sum_t s_{t, u_t, \varnothing} \Big)",
    "subset": r"p(S) \propto \exp \sum_{k \in S} s_k, \quad |S| = k",
    "without_replacement": r"p(z_1, \ldots, z_k) = \prod_i \frac{e^{s_{z_i}}}{\sum_{j \notin \{z_1, \ldots, z_{i-1}\}} e^{s_j}}",
    "budget": r"p(z; s - \lambda), \quad \lambda \text{ such that the mode has at most a share of the places}",
    "Coordinate": r"z \sim \mathcal{N}(\mu, \sigma^2), \text{ within the image}",
    "GaussianGrid": r"F_{ik} \propto \exp \Big( -\frac{(k - \mu_i)^2}{2 \sigma^2} \Big), \qquad c = F_y \, X \, F_x^\top",
    "Pointer": r"z = (\text{place} + m) \bmod K, \quad m \sim \text{softmax}(s)",
    "mean": r"c = \sum_k p_k v_k",
    "sample": r"c = v_z, \quad z \sim p",
    "mode": r"c = v_{\hat z}, \quad \hat z = \mathrm{argmax}_z \, p(z)",
    "hard": r"c = v_z, \quad z \sim p \text{ in training}, \; z = \mathrm{argmax} \, p \text{ in evaluation}",
    "relaxed": r"c = \sum_k y_k v_k, \quad y = \text{softmax}\big((s + \text{Gumbel noise}) / t\big)",
    "straight_through": r"c = v_z, \quad \text{with the gradient of } \sum_k p_k v_k",
    "importance": r"c = \sum_{k \in z} w_k v_k, \quad \mathbb{E}[c] = \sum_k p_k v_k",
}
"""What each part computes."""

KINDS = {"score": "score", "over": "distribution over where", "read": "read"}

LOOKS = {
    "glimpse": """
images = torch.rand(1, 1, 60, 60)
sensor = rg.Glimpses(images, size=12)
out = rg.look(torch.zeros(1, 2), lambda query: rg.Coordinate(query, 0.2), sensor, rg.sample)
""",
    "window": """
pixels = torch.rand(1, 24 * 24, 1)  # the values of an image's pixels, row by row
policy = lambda query: rg.GaussianGrid(query, torch.full((1, 1), 0.2), torch.full((1, 1), 1.0), 5, (24, 24))
out = rg.look(torch.zeros(1, 2), policy, pixels, rg.mean)
""",
    "pointer": """
tape = torch.randn(1, 24, 8)
policy = lambda place: rg.Pointer(scores=torch.zeros(1, 1, 3), targets=(place + rg.offsets(3)) % 24, count=24)
out = rg.look(torch.full((1, 1, 1), 7), policy, tape, rg.sample)
""",
}
"""Mechanisms that are a `look`, whose score is a network of the user's own."""


def rows() -> tuple[Any, ...]:
    """The mechanisms."""
    from regard import named

    return named.TABLE


def written(part: Any) -> str:
    """A part as code.

    >>> from regard.named import Part
    >>> written(Part("Additive", "query_dim", "key_dim", "hidden_dim")), written(Part("top_k", k=8))
    ('rg.Additive(16, 16, 32)', 'rg.top_k(k=8)')
    """
    if not hasattr(part, "sizes"):
        return repr(part)
    sizes = [str(SIZES[size]) for size in part.sizes]
    if type(part).__name__ == "Learned":
        return f"torch.nn.Parameter(torch.full(({', '.join([*sizes, ''])}), {part.settings['start']}))"
    settings = [f"{name}={written(value)}" for name, value in part.settings.items()]
    inside = ", ".join([*sizes, *settings])
    return f"rg.{part.name}({inside})" if inside else f"rg.{part.name}"


def code(row: Any) -> str:
    """Ten lines or so that make a mechanism and look with it."""
    head = "import torch\nimport regard as rg\n\ntorch.manual_seed(0)\n"
    if row.name in LOOKS:
        return head + LOOKS[row.name].lstrip("\n")
    words, name = (
        row.over.name in ("tree", "constituency"),
        "MultiHead" if row.whole.name == "MultiHead" else "Attention",
    )
    first = f"{SIZES['query_dim']}, {SIZES['heads']}, " if name == "MultiHead" else ""
    query = "keys" if words else "2 * keys[::3]  # 8 queries, each like one of the keys"
    parts = f"score={written(row.score)}, over={written(row.over)}, read={written(row.read)}"
    joined = f"attention = rg.{name}({first}{parts})"
    if len(joined) > 100:
        indented = ",\n    ".join(re.split(r", (?=over=|read=)", parts))
        joined = f"attention = rg.{name}(\n    {first}{indented},\n)"
    return (
        f"{head}keys, values = torch.randn(24, 16), torch.randn(24, 16)\nquery = {query}\n\n{joined}\n"
        "out = attention(query, attention.prepare(keys, values))\n"
    )


def table_of_costs() -> dict[str, tuple[str, str]]:
    """When a part is worth taking and what it costs, by its name, from the tables of mechanisms.md."""
    found = {}
    for line in (HERE / "mechanisms.md").read_text(encoding="utf-8").split("## Reads")[0].splitlines():
        cells = [each.strip() for each in re.split(r"(?<!\\)\|", line)[1:-1]]
        if len(cells) >= 3 and cells[0].startswith("`"):
            for name in re.findall(r"`(\w+)", cells[0]):
                found.setdefault(name, (cells[1], cells[2]))
    return found


READ_COSTS = {
    "mean": ("training should be easy: it has an ordinary gradient", "O(Q K V)"),
    "sample": ("what was read should be one place for certain", "O(Q V), whatever K is"),
    "hard": ("what is read should be little: it is trained by `reinforce` and its kin", "O(Q V), whatever K is"),
    "relaxed": ("a sample's noise is wanted, and a gradient through it", "O(Q K V)"),
    "straight_through": ("a sample should be read, and a biased gradient is good enough", "O(Q V), backward O(Q K V)"),
    "importance": ("values are dear: pictures, files", "O(Q k V) for k draws"),
}


def picture(row: Any, names: dict[str, Any]) -> str:
    """Where the example looked, as SVG: the glimpse itself, the filters of a window, or the weights."""
    from matplotlib.figure import Figure

    import regard

    out = names["out"]
    if row.name in ("glimpse", "window"):
        figure = Figure(figsize=(5.4, 2.1), layout="constrained")
        axes = figure.subplots()
        if row.name == "glimpse":
            axes.imshow(names["sensor"].read(out.z)[0, 0, 0].numpy(), cmap="gray")
            axes.set_title(f"the glimpse at {[round(each, 2) for each in out.z[0].tolist()]}", fontsize=9)
            axes.axis("off")
        else:
            axes.imshow(out.positions.filters[0][0].numpy(), cmap="Blues", vmin=0, aspect="auto")
            axes.set(xlabel="pixels", ylabel="filters")
    else:
        figure = regard.plot(out)
    file = io.StringIO()
    figure.savefig(file, format="svg", metadata={"Date": None})
    return file.getvalue()[file.getvalue().index("<svg") :]


def run(source: str) -> dict[str, Any]:
    """The names that code leaves."""
    names: dict[str, Any] = {}
    with redirect_stdout(io.StringIO()):
        exec(source, names)
    return names


def parts(row: Any) -> list[tuple[str, str]]:
    """The three parts of a mechanism that have equations, with what they are."""
    score = [] if isinstance(row.score, str) else [("score", row.score.name)]
    return [*score, ("over", row.over.name), ("read", row.read.name)]


def page(row: Any) -> str:
    """The page of a mechanism, in Markdown."""
    source, costs = code(row), table_of_costs() | READ_COSTS
    names = run(source)
    out = names["out"]
    shapes = {"context": out.context, "weights": None if row.name in LOOKS else out.weights, "z": out.z}
    shown = ", ".join(f"`{name}` {tuple(each.shape)}" for name, each in shapes.items() if each is not None)
    lines = [f"# {row.name}", f"{row.what.capitalize()}. {row.source}.", ""]
    for part, name in parts(row):
        lines += [f"{{py:obj}}`{name} <regard.{name}>`, the {KINDS[part]}:", "", f"$$\n{EQUATIONS[name]}\n$$", ""]
    lines += ["```python", source.rstrip("\n"), "```", "", f"Shapes: {shown}.", ""]
    lines += [
        f'<div class="picture" role="img" aria-label="Where {row.name} looked">',
        picture(row, names),
        "</div>",
        "",
    ]
    lines += [
        "An example whose parameters are not trained.",
        "",
        "| part | take it when | cost |",
        "| --- | --- | --- |",
    ]
    for part, name in parts(row):
        when, cost = costs.get(name, ("", ""))
        lines.append(f"| {part} `{name}` | {when} | {cost} |")
    made = f'rg.named.find("{row.name}").make(query_dim=16, key_dim=16)'
    lines += ["", f"The same by its name: `{made}`.", "", "```bibtex", row.bibtex, "```", ""]
    return "\n".join(lines)


def gallery_index() -> str:
    """The list of all mechanisms."""
    lines = ["# Gallery", "", "Every mechanism is a score, a distribution and a read.", ""]
    lines += ["| mechanism | what it is | score, over, read |", "| --- | --- | --- |"]
    for row in rows():
        parts_of = ", ".join(part if isinstance(part, str) else part.name for part in (row.score, row.over, row.read))
        lines.append(f"| [{row.name}]({row.name}.md) | {row.what} | {parts_of} |")
    pages = "\n".join(row.name for row in rows())
    return "\n".join([*lines, "", f"```{{toctree}}\n:hidden:\n\n{pages}\n```", ""])


GROUPS = {
    "attention": ("Attention", ("attention", "memory", "multihead", "protocol")),
    "scores": ("Scores", ("scores", "coverage")),
    "over": ("Distributions over where", ("over",)),
    "positions": ("What a distribution answers", ("positions",)),
    "reads": ("Reads and writes", ("reads", "writes", "summary")),
    "estimators": ("Estimators, baselines and losses", ("estimators", "baselines", "losses")),
    "images": ("Images and files", ("images",)),
    "rest": ("Masks, roads, and the rest", ()),
}


def public() -> dict[str, list[str]]:
    """The public names of each group, in the order in which they are listed."""
    text = (HERE.parent / "src" / "regard" / "__init__.pyi").read_text(encoding="utf-8")
    found: dict[str, list[str]] = {group: [] for group in GROUPS}
    for module, name in re.findall(r"^from \.([\w.]+) import \w+ as (\w+)$", text, re.MULTILINE):
        first = module.partition(".")[0]
        group = next((group for group, (_, modules) in GROUPS.items() if first in modules), "rest")
        found[group].append(name)
    return found


def names_page(group: str) -> str:
    """The page of the public names of a group."""
    import inspect

    import regard

    lines = [f"# {GROUPS[group][0]}", ""]
    for name in public()[group]:
        kind = "class" if inspect.isclass(getattr(regard, name)) else "function"
        kind = kind if callable(getattr(regard, name)) else "data"
        members = ":members:\n" if kind == "class" else ""
        lines += [f"```{{eval-rst}}\n.. auto{kind}:: regard.{name}\n   {members}```".replace("\n   ```", "\n```"), ""]
    return "\n".join(lines)


def write_all(folder: Path) -> None:
    """Writes the generated pages into the folders gallery and names; what has not changed is left."""
    pages = {f"gallery/{row.name}.md": page(row) for row in rows()} | {"gallery/index.md": gallery_index()}
    pages |= {f"names/{group}.md": names_page(group) for group in GROUPS}
    listed = "\n".join(GROUPS)
    pages["names/index.md"] = f"# Public names\n\n```{{toctree}}\n{listed}\n```\n"
    for name, text in pages.items():
        file = folder / name
        file.parent.mkdir(exist_ok=True)
        if not file.exists() or file.read_text(encoding="utf-8") != text:
            file.write_text(text, encoding="utf-8")


def as_restructured_text(app: Any, what: str, name: str, thing: Any, options: Any, lines: list[str]) -> None:
    """A docstring so that Sphinx reads it: what means something to it and not to us is escaped, a block that is
    indented after a colon is shown as it stands, and a part has its equation."""
    found: list[str] = []
    for line in lines:
        plain = line.lstrip().startswith(">>>") or bool(found and found[-1].lstrip().startswith(">>>") and line.strip())
        found.append(line if plain else _escaped(line))
    lines[:] = found
    short = name.removeprefix("regard.")
    if short in EQUATIONS:
        first = next((n for n, line in enumerate(lines) if not line.strip()), len(lines))
        lines[first:first] = ["", ".. math::", "", "   " + EQUATIONS[short], ""]


def _escaped(line: str) -> str:
    pieces = re.split(r"(`[^`]*`)", line)
    pieces[::2] = [re.sub(r"([*|]|(?<=\w)_(?!\w))", r"\\\1", piece) for piece in pieces[::2]]
    return "".join(pieces)
