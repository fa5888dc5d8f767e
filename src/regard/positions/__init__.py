"""Distributions over where to look, one file for each kind of event."""

from regard.positions.alignment import Alignment
from regard.positions.band import Band
from regard.positions.base import Positions
from regard.positions.chain import Chain, Segments
from regard.positions.chunkwise import Chunkwise
from regard.positions.constituency import Constituency
from regard.positions.coordinate import Coordinate
from regard.positions.ctc import CTC, ForcedAlignment
from regard.positions.gaussian_grid import GaussianGrid
from regard.positions.independent import Independent
from regard.positions.onehot import OneHot
from regard.positions.pointer import Pointer
from regard.positions.replacement import WithoutReplacement
from regard.positions.rnnt import RNNT
from regard.positions.semi_markov import SemiMarkov
from regard.positions.subset import Subset
from regard.positions.tree import Tree

__all__ = [
    "CTC",
    "RNNT",
    "Alignment",
    "Band",
    "Chain",
    "Chunkwise",
    "Constituency",
    "Coordinate",
    "ForcedAlignment",
    "GaussianGrid",
    "Independent",
    "OneHot",
    "Pointer",
    "Positions",
    "Segments",
    "SemiMarkov",
    "Subset",
    "Tree",
    "WithoutReplacement",
]
