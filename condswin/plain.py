"""Texts from files, file names and parameters, made safe to show: nothing in them is acted upon by what shows them."""

import re

# What Markdown acts upon; underscores within a word are none of it.
_MARKDOWN = re.compile(r"[\\`*\[\]<>|&$~]|(?<![^\W_])_|_(?![^\W_])")


def plain(text: object, width: int = 0) -> str:
    """A text as one line of printable characters.

    Control characters could move a terminal's cursor or break a line, format characters turn the order of letters
    round, and names that are not UTF-8 cannot be printed at all. Each is shown as its escape (`\\x1b`, `\\n`).

    Args:
        text: Any; a path, for one.
        width: Most characters; a longer text loses its middle. 0 for no limit.
    """
    line = "".join(char if char.isprintable() else char.encode("unicode_escape").decode() for char in str(text))
    if not width or len(line) <= width:
        return line
    end = (width - 1) // 2
    return f"{line[: width - 1 - end]}…{line[len(line) - end :]}"


def label(text: object, width: int = 60) -> str:
    """A text as matplotlib shows it letter by letter: between dollars it would read formulas."""
    return plain(text, width).replace("$", r"\$")


def cell(text: object, width: int = 80) -> str:
    """A text as a cell of a Markdown table shows it letter by letter."""
    return _MARKDOWN.sub(r"\\\g<0>", plain(text, width))


def span(low: float, high: float, digits: int = 3, sign: str = "") -> str:
    """An interval in as many digits as tell its ends apart, or one figure where they are equal.

    Args:
        low: Its lower end.
        high: Its upper end.
        digits: Fewest digits that count.
        sign: `+` to show that of positive figures too.
    """
    ends = ("", "")
    while ends[0] == ends[1] and digits <= 17:  # no more tell two floats apart
        ends = f"{low:{sign}.{digits}g}", f"{high:{sign}.{digits}g}"
        digits += 1
        if low == high:
            break
    return ends[0] if ends[0] == ends[1] else f"{ends[0]} to {ends[1]}"
