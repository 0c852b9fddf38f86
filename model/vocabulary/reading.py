"""Words as CLIP's tokenizer reads them: two that it cannot distinguish are one here.

The tokenizer mends a text (quotes, composed letters, characters of HTML, damaged UTF-8), makes it lower case
and cuts it into runs of letters, digits and signs, between which space means nothing. `as_read` gives these
runs, so it is equal for two words exactly if their tokens are, and a prompt made of it has the tokens of the
word's own; but for the tokenizer's own words, such as <end_of_text>, which are plain text here.
"""

import functools
import html
import re
import unicodedata
from collections.abc import Callable

_ENDINGS = r"'s|'t|'re|'ve|'m|'ll|'d"
_RUN = re.compile(
    rf"{_ENDINGS}|[a-z]+|[0-9]|[^\sa-z0-9]+"
)  # of ASCII, for which nothing needs to be imported
_WORDS_KEPT = 1 << 14
_MENDED = 8  # times at most; a text escaped more often than that stays as it then is


@functools.lru_cache(maxsize=_WORDS_KEPT)  # callers send the same names with every picture
def as_read(word: str) -> str:
    """The runs of characters that the tokenizer cuts a word into, with single spaces between.

    Empty for a word of space alone, however it is written.
    """
    if word.isascii() and "&" not in word:
        return " ".join(_RUN.findall(word.lower()))
    find, mend = _of_unicode()
    for _ in range(_MENDED):
        # what came of it may be an escaped text again, and two words have to meet at last
        mended = " ".join(html.unescape(mend(word)).split()).lower()
        if mended == word:
            break
        word = mended
    return " ".join(find(word))


@functools.cache
def _of_unicode() -> tuple[Callable[[str], list[str]], Callable[[str], str]]:
    """What finds the runs of any text, and what mends it."""
    import ftfy  # both take long to import, and plain words need neither
    import regex

    runs = regex.compile(rf"{_ENDINGS}|[\p{{L}}]+|[\p{{N}}]|[^\s\p{{L}}\p{{N}}]+", regex.IGNORECASE)
    return runs.findall, ftfy.fix_text


def is_foreign(word: str) -> bool:
    """Whether most of its letters are of no Latin script, and so of no language that CLIP knows well."""
    if word.isascii():
        return False
    letters = [letter for letter in word if letter.isalpha()]
    latin = sum(
        unicodedata.name(letter, "").startswith(("LATIN", "FEMININE", "MASCULINE")) for letter in letters
    )
    return 2 * latin < len(letters)
