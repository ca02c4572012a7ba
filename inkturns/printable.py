"""Text that came over the wire, made harmless for a terminal and for a log (F57).

Rules of this file: nothing passes that a terminal may obey or that reorders a line: control characters (C0, C1, ESC),
line breaks, bidirectional overrides, surrogates. Two format characters pass, because words are spelled with them.
"""

from unicodedata import category

__all__ = ["printable"]

JOINERS = "\u200c\u200d"  # in Persian and in the scripts of India


def printable(text: str) -> str:
    """The text, on one line and as long as it was. U+FFFD stands for each character that is left out, a space for each
    kind of space."""
    return text if text.isprintable() else "".join(map(_printable, text))


def _printable(char: str) -> str:
    if char.isprintable() or char in JOINERS:
        return char
    return " " if category(char) == "Zs" else "\ufffd"
