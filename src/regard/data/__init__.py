"""Where examples come from: real digits, scattered or plain, folders of pictures, sentences with their trees or their
translations, and questions about stories."""

from regard.data.babi import questions as questions
from regard.data.conllu import treebank as treebank
from regard.data.folder import Pictures as Pictures
from regard.data.folder import pictures as pictures
from regard.data.load import load as load
from regard.data.mnist import digits as digits
from regard.data.pairs import Pairs as Pairs
from regard.data.pairs import translations as translations
from regard.data.scatter import Scattered as Scattered
from regard.data.splits import Split as Split
from regard.data.splits import Splits as Splits
from regard.data.splits import hold_out as hold_out
from regard.data.stories import Question as Question
from regard.data.stories import Stories as Stories
from regard.data.trees import Sentence as Sentence
from regard.data.trees import Trees as Trees
