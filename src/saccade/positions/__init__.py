"""Distributions over where to look, one file for each kind of event."""

from saccade.positions.alignment import Alignment
from saccade.positions.band import Band
from saccade.positions.base import Positions
from saccade.positions.chain import Chain, Segments, SemiMarkov
from saccade.positions.chunkwise import Chunkwise
from saccade.positions.coordinate import Coordinate
from saccade.positions.independent import Independent
from saccade.positions.onehot import OneHot
from saccade.positions.replacement import WithoutReplacement
from saccade.positions.subset import Subset
from saccade.positions.tree import Tree

__all__ = [
    "Alignment",
    "Band",
    "Chain",
    "Chunkwise",
    "Coordinate",
    "Independent",
    "OneHot",
    "Positions",
    "Segments",
    "SemiMarkov",
    "Subset",
    "Tree",
    "WithoutReplacement",
]
