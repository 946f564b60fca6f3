"""Names that parameters, folders and manifests share."""

from typing import Literal

TaskName = Literal["reconstruction", "segmentation"]
TASKS: tuple[TaskName, ...] = ("reconstruction", "segmentation")
Split = Literal["train", "val", "test"]
SPLITS: tuple[Split, ...] = ("train", "val", "test")
