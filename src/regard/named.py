"""Every mechanism of the literature that works here, as one table: a score, a distribution over where, and a read.

`regard list` prints the table and `regard cite NAME` the paper of a row. A row also makes what it names:

>>> additive = find("additive")
>>> print(additive)
additive: Additive, softmax, mean
>>> attention = additive.make(query_dim=4, key_dim=6, hidden_dim=8)

Importing this module loads neither torch nor the parts: a row holds their names until it makes something.
"""

import math
import re
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import regard
from regard.checks import unknown


class Part:
    """A public name of regard: as it is, or called with sizes (words of `Named.make`) and settings.

    >>> print(Part("softmax"), Part("Bilinear", "query_dim", "key_dim"), Part("top_k", k=8))
    softmax Bilinear top_k(k=8)
    """

    def __init__(self, name: str, *sizes: str, **settings: Any):
        self.name = name
        self.sizes = sizes
        self.settings = settings

    def __str__(self) -> str:
        settings = ", ".join(f"{name}={value}" for name, value in self.settings.items())
        return f"{self.name}({settings})" if settings else self.name

    def make(self, sizes: dict[str, int], **triple: Any) -> Any:
        """The part itself."""
        part = getattr(regard, self.name)
        settings = {name: _made(value, sizes) for name, value in self.settings.items()} | triple
        return part(*(sizes[size] for size in self.sizes), **settings) if self.sizes or settings else part


class Learned(Part):
    """A parameter of those sizes, all of which begins as the number `start`.

    >>> print(Learned("zeros", "places", start=0.0).make({"places": 2}).tolist())
    [0.0, 0.0]
    """

    def make(self, sizes: dict[str, int], **triple: Any) -> Any:
        import torch

        return torch.nn.Parameter(torch.full([sizes[size] for size in self.sizes], self.settings["start"]))


def _made(value: Any, sizes: dict[str, int]) -> Any:
    return value.make(sizes) if isinstance(value, Part) else value


ATTENTION = Part("Attention")


@dataclass(frozen=True)
class Named:
    """One mechanism: its name, its triple, where it was written, and what it is."""

    name: str
    score: Part | str
    over: Part
    read: Part
    paper: str
    """Its key in papers.bib."""
    where: str
    """The equation or the section of the paper."""
    what: str
    """What it is, in a few words."""
    whole: Part = ATTENTION
    """What joins the triple."""

    def __str__(self) -> str:
        return f"{self.name}: {self.score}, {self.over}, {self.read}"

    @property
    def source(self) -> str:
        """Who wrote it and where, such as Luong 2015, equation 8."""
        author, year = re.match(r"([a-z]+)(\d+)", self.paper).groups()  # pyright: ignore[reportOptionalMemberAccess]
        return f"{author.capitalize()} {year}, {self.where}"

    @property
    def bibtex(self) -> str:
        """The BibTeX entry of its paper."""
        return papers()[self.paper]

    def make(
        self, query_dim: int, key_dim: int, hidden_dim: int = 128, places: int = 1024, heads: int = 8
    ) -> Callable[..., Any]:
        """The mechanism, ready to be called; a size that it has no use for is left aside.

        It is an `Attention` or a `MultiHead`, both modules, or for the glimpse, the window and the pointer a `look`
        with its policy, which is called with `(query, sensor=sensor)`; of the window the sensor is the values of the
        pixels, (*B, places, V), of a square image. The query of the pointer is a pair, what its moves are read off,
        (*B, Q, query_dim), and the place where it is, (*B, Q); its sensor is what lies at the places, a tensor
        (*B, places, V) or `Cells`.
        """
        sizes = {"query_dim": query_dim, "key_dim": key_dim, "hidden_dim": hidden_dim}
        sizes |= {"places": places, "heads": heads}
        if self.whole.name == "look":
            policy = {"Coordinate": _glimpse, "GaussianGrid": _window, "Pointer": _pointer}[self.over.name]
            return partial(regard.look, policy=policy(query_dim, places), read=self.read.make(sizes))
        score, over, read = (_made(part, sizes) for part in (self.score, self.over, self.read))
        return self.whole.make(sizes, score=score, over=over, read=read)


def _glimpse(query_dim: int, places: int) -> Callable[[Any], Any]:
    from torch import nn

    network = nn.Sequential(nn.Linear(query_dim, 2), nn.Tanh())
    return lambda query: regard.Coordinate(network(query), 0.2)


def _window(query_dim: int, places: int) -> Callable[[Any], Any]:
    from torch import nn

    network, side = nn.Linear(query_dim, 4), math.isqrt(places)

    def policy(query: Any) -> Any:
        centre, scale = network(query).split((2, 2), -1)
        stride, width = scale.exp().split(1, -1)
        return regard.GaussianGrid(centre, stride, width, 5, (side, side))

    return policy


def _pointer(query_dim: int, places: int) -> Callable[[Any], Any]:
    from torch import nn

    network = nn.Linear(query_dim, 3)

    def policy(query: Any) -> Any:
        vector, place = query
        targets = (place.unsqueeze(-1) + regard.offsets(3).to(place)) % places
        return regard.Pointer(scores=network(vector), targets=targets, count=places)

    return policy


def papers() -> dict[str, str]:
    """{key: BibTeX entry} of every paper, from papers.bib."""
    text = Path(__file__).with_name("papers.bib").read_text(encoding="utf-8")
    entries = ["@" + entry.strip() for entry in text.split("\n@")[1:]]
    return {entry[entry.index("{") + 1 : entry.index(",")]: entry for entry in entries}


def find(name: str) -> Named:
    """The mechanism of that name.

    Raises ValueError, with the nearest name, if there is none.

    >>> find("aditive")
    Traceback (most recent call last):
    ValueError: unknown mechanism 'aditive': did you mean 'additive'?
    """
    if name not in BY_NAME:
        raise ValueError(unknown("mechanism", name, BY_NAME))
    return BY_NAME[name]


def cite(name: str) -> str:
    """The BibTeX entry of a mechanism, or of a paper such as bahdanau2015.

    Raises ValueError, with the nearest name, if there is none.

    >>> cite("additive") == cite("bahdanau2015")
    True
    """
    if name in BY_NAME:
        return BY_NAME[name].bibtex
    entries = {re.sub(r"(\d)\D*$", r"\1", key): entry for key, entry in papers().items()}
    if name not in entries:
        raise ValueError(unknown("mechanism or paper", name, [*BY_NAME, *entries]))
    return entries[name]


DOT, SCALED_DOT = Part("dot"), Part("scaled_dot")
ADDITIVE = Part("Additive", "query_dim", "key_dim", "hidden_dim")
GENERAL = Part("Bilinear", "query_dim", "key_dim")
SOFTMAX, MEAN, SAMPLE, HARD = Part("softmax"), Part("mean"), Part("sample"), Part("hard")
MULTI_HEAD, LOOK = Part("MultiHead", "query_dim", "heads"), Part("look")
LINKS = Learned("zeros", "places", "places", start=0.0)
SHARPNESS = Learned("learned", start=8.0)
PREDICTED = Part("Predicted", "query_dim", "hidden_dim")

# One row each: name, score, over, read, paper, where in it, what it is.
# fmt: off
TABLE = (
    Named("content", Part("Cosine", sharpness=1.0), SOFTMAX, MEAN, "graves2014neural", "equations 5 and 6",
          "the places of a memory that resemble a key"),
    Named("cosine", Part("Cosine", sharpness=SHARPNESS), SOFTMAX, MEAN, "graves2014neural", "equations 5 and 6",
          "the same with a sharpness that is learned"),
    Named("addressing", Part("Content", "query_dim", "key_dim"), Part("addressing", "query_dim"), MEAN,
          "graves2014neural", "section 3.3", "a memory's place by content, and by moves from the place before"),
    Named("additive", ADDITIVE, SOFTMAX, MEAN, "bahdanau2015neural", "equations 5 and 6",
          "a small network scores each pair: the first attention of translation"),
    Named("dot", DOT, SOFTMAX, MEAN, "luong2015effective", "equation 7, dot",
          "the plain product of query and key"),
    Named("general", GENERAL, SOFTMAX, MEAN, "luong2015effective", "equation 7, general",
          "a product with a learned matrix between"),
    Named("concat", ADDITIVE, SOFTMAX, MEAN, "luong2015effective", "equation 7, concat",
          "the additive score, under the name it has beside dot and general"),
    Named("location", Part("Location", "query_dim", "places"), SOFTMAX, MEAN, "luong2015effective", "equation 8",
          "where to look, from the query alone"),
    Named("local-m", ADDITIVE, Part("local", radius=10), MEAN, "luong2015effective", "section 3.2, monotonic",
          "a window that moves on by one place a step"),
    Named("local-p", ADDITIVE, Part("local", radius=10, centre=PREDICTED), MEAN, "luong2015effective",
          "equations 9 and 10", "a window round a predicted place"),
    Named("location-aware", Part("LocationAware", "query_dim", "key_dim", "hidden_dim"), SOFTMAX, MEAN,
          "chorowski2015attention", "equations 8 and 9", "the additive score given where the query before looked"),
    Named("coverage", Part("Coverage", "query_dim", "key_dim", "hidden_dim"), SOFTMAX, MEAN, "see2017get",
          "equations 10 and 11", "the additive score given how much was looked at before, trained by coverage_loss"),
    Named("monotonic", ADDITIVE, Part("monotonic", noise=1.0), MEAN, "raffel2017online", "equations 11 to 14",
          "queries that only go forward: read online once it is trained"),
    Named("chunkwise", ADDITIVE, Part("monotonic", chunk=4, noise=1.0), MEAN, "chiu2018monotonic", "equation 18",
          "a monotonic alignment that reads the last places up to where it stopped, softly"),
    Named("infinite-lookback", ADDITIVE, Part("monotonic", chunk=None, noise=1.0), MEAN, "arivazhagan2019monotonic",
          "the infinite lookback", "a monotonic alignment that reads all places up to where it stopped, softly"),
    Named("attentive-reader", ADDITIVE, SOFTMAX, MEAN, "hermann2015teaching", "section 2.2, the Attentive Reader",
          "the words of a document that matter to a question"),
    Named("attention-sum", DOT, SOFTMAX, MEAN, "kadlec2016text", "equations 1 and 2",
          "the answer is the word that is looked at most, wherever it stands: attention_sum of the weights"),
    Named("soft", ADDITIVE, SOFTMAX, MEAN, "xu2015show", "section 4.2",
          "deterministic soft attention to the parts of an image"),
    Named("hard", ADDITIVE, SOFTMAX, HARD, "xu2015show", "section 4.1",
          "stochastic hard attention, one place a step, trained by reinforce"),
    Named("glimpse", "a location network", Part("Coordinate"), HARD, "mnih2014recurrent", "equation 2",
          "recurrent visual attention: glimpses of an image, trained by reinforce", whole=LOOK),
    Named("window", "a window network", Part("GaussianGrid"), MEAN, "gregor2015draw", "equations 19 to 27",
          "a grid of Gaussian filters over an image, placed, spaced and sharpened by the query", whole=LOOK),
    Named("variational", ADDITIVE, SOFTMAX, SAMPLE, "deng2018latent", "section 3",
          "the prior of a latent alignment, trained by the evidence bound, variational"),
    Named("scaled-dot", SCALED_DOT, SOFTMAX, MEAN, "vaswani2017attention", "equation 1",
          "the product over the square root of its size"),
    Named("multi-head", SCALED_DOT, SOFTMAX, MEAN, "vaswani2017attention", "section 3.2.2",
          "several scaled products side by side, each of its own projections", whole=MULTI_HEAD),
    Named("sparsemax", ADDITIVE, Part("sparsemax"), MEAN, "martins2016softmax", "equation 2",
          "weights that are exactly zero nearly everywhere"),
    Named("entmax", ADDITIVE, Part("entmax", alpha=1.5), MEAN, "peters2019sparse", "section 3",
          "between softmax and sparsemax"),
    Named("top-k", SCALED_DOT, Part("top_k", k=8), MEAN, "zhao2019explicit", "the masking function M(P, k)",
          "softmax over the k best places"),
    Named("sigmoid", ADDITIVE, Part("sigmoid"), MEAN, "kim2017structured", "section 4.2, sigmoid attention",
          "every place by itself: the baseline of structured attention"),
    Named("segments", ADDITIVE, Part("segments", stay=1.0), MEAN, "kim2017structured", "section 3.1",
          "a set of places that like to come in runs: a linear chain over the places"),
    Named("chain", ADDITIVE, Part("chain", transitions=LINKS), MEAN, "lafferty2001conditional", "equation 1",
          "a label for every query, each depending on those of its neighbours"),
    Named("semi-markov", ADDITIVE, Part("semi_markov", max_width=4, transitions=LINKS), MEAN, "sarawagi2004semi",
          "the model", "the same with labels that stay for a span, which its length scores"),
    Named("ctc", ADDITIVE, Part("ctc", targets=(1, 2)), MEAN, "graves2006connectionist", "equation 3",
          "a label for every query, so that together they say a sequence, in runs and with blanks between"),
    Named("tree", SCALED_DOT, Part("tree", projective=True), MEAN, "kim2017structured", "syntactic tree selection",
          "every word reads its head: all dependency trees of a sentence, by their probabilities"),
    Named("constituency", SCALED_DOT, Part("constituency", labels=None), MEAN, "liu2018structured", "section 3",
          "every word reads the ends of the spans that begin with it: all binary trees, by their probabilities"),
    Named("hard-memory", DOT, SOFTMAX, HARD, "zaremba2015reinforcement", "the section on Reinforce",
          "one place of a memory a step, trained by reinforce"),
    Named("pointer", "a network of moves", Part("Pointer"), HARD, "zaremba2015reinforcement",
          "the section on the interfaces", "a place that moves by a few on a tape, trained by reinforce", whole=LOOK),
    Named("gumbel-softmax", ADDITIVE, SOFTMAX, Part("relaxed", temperature=0.5), "jang2017categorical", "equation 2",
          "a relaxed sample, through which gradients flow"),
    Named("straight-through", ADDITIVE, SOFTMAX, Part("straight_through"), "bengio2013estimating", "section 4",
          "a sample forwards, the mean's gradient backwards"),
    Named("subset", ADDITIVE, Part("subset", k=4), SAMPLE, "ahmed2023simple", "proposition 1",
          "an exact draw of a set of k places"),
    Named("rationale", ADDITIVE, Part("budget", over=Part("segments", stay=1.0), share=0.15), HARD,
          "lei2016rationalizing", "the regularizer Omega(z)", "a share of the words, in runs, and nothing beside them"),
    Named("without-replacement", ADDITIVE, Part("without_replacement", k=4), SAMPLE, "kool2019stochastic", "theorem 1",
          "an exact draw of k different places in turn"),
    Named("attention-sampling", ADDITIVE, Part("without_replacement", k=4), Part("importance"),
          "katharopoulos2019processing", "sampling without replacement",
          "a few places drawn, which stand for all: the mean, on average"),
)
# fmt: on

BY_NAME = {row.name: row for row in TABLE}
