"""Where examples come from: real digits, scattered or plain, folders of pictures, sentences with their trees or their
translations, and questions about stories."""

from saccade.data.babi import questions as questions
from saccade.data.conllu import treebank as treebank
from saccade.data.folder import Pictures as Pictures
from saccade.data.folder import pictures as pictures
from saccade.data.load import load as load
from saccade.data.mnist import digits as digits
from saccade.data.pairs import Pairs as Pairs
from saccade.data.pairs import translations as translations
from saccade.data.scatter import Scattered as Scattered
from saccade.data.splits import Split as Split
from saccade.data.splits import Splits as Splits
from saccade.data.splits import hold_out as hold_out
from saccade.data.stories import Question as Question
from saccade.data.stories import Stories as Stories
from saccade.data.trees import Sentence as Sentence
from saccade.data.trees import Trees as Trees
