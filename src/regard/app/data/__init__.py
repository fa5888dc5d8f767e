"""Where examples come from: real digits, scattered or plain, folders of pictures, sentences with their trees or their
translations, texts with labels, and questions about stories."""

from regard.app.data.babi import questions as questions
from regard.app.data.babi import questions_to_test as questions_to_test
from regard.app.data.captions import Captions as Captions
from regard.app.data.captions import captioned as captioned
from regard.app.data.captions import captions_to_test as captions_to_test
from regard.app.data.captions import no_captions as no_captions
from regard.app.data.conllu import treebank as treebank
from regard.app.data.conllu import trees_to_test as trees_to_test
from regard.app.data.folder import Pictures as Pictures
from regard.app.data.folder import pictures as pictures
from regard.app.data.folder import pictures_to_test as pictures_to_test
from regard.app.data.generators.composed import Composed as Composed
from regard.app.data.generators.scatter import Scattered as Scattered
from regard.app.data.images import images_to_test as images_to_test
from regard.app.data.images import load as load
from regard.app.data.labelled import Labelled as Labelled
from regard.app.data.labelled import labelled as labelled
from regard.app.data.labelled import labelled_to_test as labelled_to_test
from regard.app.data.labelled import no_texts as no_texts
from regard.app.data.mnist import digits as digits
from regard.app.data.mnist import digits_to_test as digits_to_test
from regard.app.data.pairs import Pairs as Pairs
from regard.app.data.pairs import pairs_to_test as pairs_to_test
from regard.app.data.pairs import translations as translations
from regard.app.data.splits import Split as Split
from regard.app.data.splits import Splits as Splits
from regard.app.data.splits import hold_out as hold_out
from regard.app.data.splits import spelled_by as spelled_by
from regard.app.data.stories import Question as Question
from regard.app.data.stories import Stories as Stories
from regard.app.data.trees import Sentence as Sentence
from regard.app.data.trees import Trees as Trees
