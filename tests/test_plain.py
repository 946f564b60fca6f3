import os

import pytest
from matplotlib.figure import Figure

from condswin.errors import BadFileError
from condswin.plain import cell, label, plain, span


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("volume-1.nii.gz", "volume-1.nii.gz"),
        ("Leber Übersicht 肝", "Leber Übersicht 肝"),
        ("a\nb\r\x1b[2J", r"a\nb\r\x1b[2J"),
        ("gnp.\u202eexe", r"gnp.\u202eexe"),
        (os.fsdecode(b"caf\xe9"), r"caf\udce9"),
    ],
)
def test_nothing_in_a_line_moves_a_cursor_or_fails_to_print(text, shown):
    assert plain(text) == shown
    assert plain(text).encode()


def test_long_texts_lose_their_middle():
    assert plain("a" * 300 + ".h5", 20) == "a" * 10 + "…" + "a" * 6 + ".h5"
    assert plain("a" * 20, 20) == "a" * 20


@pytest.mark.parametrize("text", [r"$\frac{1}{$", "$x$", "a$b", r"\$a\$", "$$$"])
def test_figures_show_dollars(text):
    figure = Figure()
    shown = figure.text(0.5, 0.5, label(text))
    assert shown._preprocess_math(shown.get_text()) == (text, False)
    figure.savefig(os.devnull, format="png")


def test_cells_of_markdown_hold_names_letter_by_letter():
    assert cell("colin27_coronal.h5") == "colin27_coronal.h5"
    assert cell("<b>|`x`|_y_[z](u)") == r"\<b\>\|\`x\`\|\_y\_\[z\](u)"


def test_messages_name_files_in_one_line():
    assert str(BadFileError("a\nb\x1b.h5", "is empty")) == r"a\nb\x1b.h5: is empty"


@pytest.mark.parametrize(
    ("low", "high", "digits", "sign", "said"),
    [
        (1.0, 2.0, 3, "", "1 to 2"),
        (24.041, 24.043, 4, "", "24.041 to 24.043"),
        (24.04, 24.04, 4, "", "24.04"),
        (5.0000001, 5.0000002, 4, "+", "+5.0000001 to +5.0000002"),
        (-0.5, 0.25, 4, "+", "-0.5 to +0.25"),
        (0.1, 0.10000000000000002, 3, "", "0.10000000000000001 to 0.10000000000000002"),
        (0.0, 1e-30, 3, "", "0 to 1e-30"),
        (3, 7, 3, "", "3 to 7"),
    ],
)
def test_the_ends_of_an_interval_are_told_apart(low: float, high: float, digits: int, sign: str, said: str) -> None:
    assert span(low, high, digits, sign) == said
