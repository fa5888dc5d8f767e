"""Text from outside: what becomes the same, where lines end, and that no more is read than is asked for."""

import io
import re
import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from regard.app.text.reading import clean, lines, printable, raw_lines, stream_lines

SPACES = [chr(n) for n in range(0x110000) if chr(n).isspace()]
LINE_ENDS = ["\n", "\r\n", "\r"]


@pytest.mark.parametrize(
    "text",
    ["a\tb", "a\u00a0b", "a\u3000b", "a  b", "a\u2028b", "a\u0085b", "\ufeffa b", " a b\r", "a\u2009\u202f b",
     "a\x0b\x0cb", "a\u200b b", "\u200ea b\u200f", "a\x00 b", "\u2060a\u00ad b\x1b"],
)  # fmt: skip
def test_text_that_looks_the_same_is_the_same(text: str):
    assert clean(text) == "a b"


def test_composed_and_decomposed_letters_are_the_same():
    assert clean("gru\u0308n") == "grün" == clean("gr\u00fcn") and clean("\u212b") == "\u00c5"


def test_what_looks_different_stays_different():
    persian, family = "می\u200cخواهم", "👨\u200d👩"
    for text in (persian, family, "ﬁ", "²", "A", "-", "ſ"):
        assert clean(text) == text


@given(st.text())
def test_clean_text_is_composed_has_single_spaces_and_stays_as_it_is(text: str):
    found = clean(text)
    assert clean(found) == found == unicodedata.normalize("NFC", found) == found.strip()
    assert not [letter for letter in found if letter.isspace() and letter != " "] and "  " not in found


@given(
    st.lists(st.text(st.characters(codec="utf-8", exclude_categories=["Cc", "Cf", "Cn", "Z"]), min_size=1)), st.data()
)
def test_words_are_the_same_whichever_spaces_are_between(words: list[str], data: st.DataObject):
    spaces = st.text(st.sampled_from(SPACES), min_size=1)
    written = "".join(data.draw(spaces) + unicodedata.normalize("NFD", word) for word in words) + data.draw(spaces)
    assert clean(written) == " ".join(unicodedata.normalize("NFC", word) for word in words)


def test_a_byte_that_is_no_utf_8_is_named():
    with pytest.raises(ValueError, match=r"^expected text in UTF-8, but got the byte 0xe9$"):
        clean("caf\udce9")


@given(
    st.lists(st.tuples(st.text(st.characters(codec="utf-8", exclude_characters="\r\n")), st.sampled_from(LINE_ENDS)))
)
def test_lines_end_in_lf_crlf_or_cr_and_nowhere_else(parts: list[tuple[str, str]]):
    # CR and then LF would be one end, not two, so an empty line cannot follow a CR with an LF.
    parts = [(text or "x", end) for text, end in parts]
    data = "".join(text + end for text, end in parts).encode()
    assert list(raw_lines(io.BytesIO(data))) == [text.lstrip("\ufeff") for text, _ in parts]
    assert lines(data, "") == [clean(text) for text, _ in parts]


@pytest.mark.parametrize("end", LINE_ENDS)
def test_the_last_line_needs_no_end(end: str):
    whole = f"a b{end}{end}c".encode()
    assert lines(whole, "") == lines(whole + end.encode(), "") == ["a b", "", "c"]
    assert lines(b"", "") == [] and lines(end.encode(), "") == [""]


def test_byte_order_marks_are_dropped_also_of_files_that_were_joined():
    assert lines("\ufeffein\n".encode() * 2, "") == ["ein", "ein"]
    assert list(raw_lines(io.BytesIO("\ufeff1\tGo\n\ufeff\n".encode()))) == ["1\tGo", ""]


@pytest.mark.parametrize(
    ("data", "line", "byte"),
    [
        ("ja\nfür".encode("latin-1"), 2, "fc"),
        ("a\rb\rfür\r".encode("latin-1"), 3, "fc"),
        ("über".encode("utf-16"), 1, "ff"),
        (b"a\n\n\xed\xa0\x80", 3, "ed"),
        ("ü".encode()[:1], 1, "c3"),
    ],
)
def test_text_in_another_encoding_is_named_with_its_line(data: bytes, line: int, byte: str):
    sentence = f"x.txt, line {line}: expected text in UTF-8, but got the byte 0x{byte}"
    with pytest.raises(ValueError, match=f"^{re.escape(sentence)}$"):
        lines(data, "x.txt")


class Pipe(io.RawIOBase):
    """A stream that gives a line at a time, as somebody types who waits for each answer."""

    def __init__(self, *typed: bytes):
        self.typed, self.taken = list(typed), 0

    def readable(self) -> bool:
        return True

    def readinto(self, buffer) -> int:
        data = self.typed[self.taken] if self.taken < len(self.typed) else b""
        self.taken += 1
        buffer[: len(data)] = data
        return len(data)


def test_a_line_is_given_before_the_next_is_read_and_before_a_fault():
    pipe = Pipe(b"one\n", "zwei\u2028 ü\n".encode(), b"thr\xfce\n", b"four\n")
    found = stream_lines(io.BufferedReader(pipe))
    assert next(found) == "one" and pipe.taken == 1
    assert next(found) == "zwei ü" and pipe.taken == 2
    with pytest.raises(ValueError, match=r"^standard input, line 3: expected text in UTF-8, but got the byte 0xfc$"):
        next(found)


def test_the_lines_before_a_fault_are_given_also_from_one_buffer():
    found = stream_lines(io.BytesIO(b"one\ntwo\n\xfc"))
    assert [next(found), next(found)] == ["one", "two"]


def test_the_stream_stays_open():
    stream = io.BytesIO(b"one\ntwo")
    found = stream_lines(stream)
    next(found)
    del found
    assert not stream.closed and list(stream_lines(stream)) == []


def test_what_cannot_be_printed_is_spelled_out():
    assert printable("Grüße/a b.png") == "Grüße/a b.png"
    assert printable("a\x1b[2J\udcff\n\u200b") == r"a\x1b[2J\udcff\n\u200b"
