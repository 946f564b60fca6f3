import pytest
from pydantic import ValidationError

from condswin.config.task import IngestConfig

FOLDERS = {"train": "singlecoil_train", "val": "knee/singlecoil_val", "test": "singlecoil_train/held out/"}


@pytest.mark.parametrize(
    ("folder", "split"),
    [
        ("singlecoil_train", "train"),
        ("knee/singlecoil_train/batch 1", "train"),
        ("knee/singlecoil_val", "val"),
        ("singlecoil_val", None),
        ("brain/singlecoil_val", None),
        ("a/singlecoil_train/held out/b", "test"),
        ("singlecoil_train/knee/singlecoil_val", "val"),
        ("held out", None),
        ("singlecoil_train2", None),
        ("", None),
    ],
)
def test_a_folder_belongs_to_the_longest_name_in_its_path(folder: str, split: str | None) -> None:
    assert IngestConfig(folders=FOLDERS).split_of(folder) == split


def test_of_equally_long_names_the_outermost_counts() -> None:
    policy = IngestConfig(folders={"train": "a", "test": "b"})
    assert [policy.split_of(folder) for folder in ("a/b", "b/a")] == ["train", "test"]


@pytest.mark.parametrize("folders", [{"train": "/data"}, {"test": "a/../b"}, {"train": "a", "test": "a/"}])
def test_what_is_not_below_the_source_or_given_twice_is_refused(folders: dict[str, str]) -> None:
    with pytest.raises(ValidationError, match="folders: "):
        IngestConfig(folders=folders)
