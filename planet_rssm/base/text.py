"""Text of other people's, a file's or a program's, made fit to be printed."""

import unicodedata

LONGEST = 400  # characters of another program's words in a line of ours


def escape_controls(text: str) -> str:
    """Return text with each control character but tab and newline as its number.

    Such a character would steer the terminal that it is printed on.
    """
    return "".join(
        sign if sign in "\t\n" or unicodedata.category(sign) != "Cc" else f"\\x{ord(sign):02x}"
        for sign in text
    )


def one_line(text: str) -> str:
    """Return text in one line; of one that is too long, the beginning and the end."""
    text = " ".join(text.split())
    if len(text) <= LONGEST:
        return text
    half = (LONGEST - 5) // 2
    return f"{text[:half]} ... {text[-half:]}"
