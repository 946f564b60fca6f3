from pathlib import Path

from condswin.config.reference import reference

ROOT = Path(__file__).parents[2]


def test_the_committed_page_is_current() -> None:
    assert (ROOT / "docs" / "reference" / "parameters.md").read_text() == reference(), (
        "condswin params reference > docs/reference/parameters.md"
    )


def test_keys_have_type_default_and_meaning() -> None:
    page = reference()
    assert "| `epochs` | integer > 0 | `20` | Passes over the training slices. |" in page
    assert "## `segmentation.train.schedule`" in page
    assert "| `embedding` | `128` | `128` | `32` | `32` | Channels of the first stage. |" in page
    for line in page.splitlines():
        if line.startswith("| `"):
            assert not line.endswith("|  |"), line
