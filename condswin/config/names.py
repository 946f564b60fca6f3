"""Names that parameters, folders and manifests share."""

from importlib.metadata import entry_points
from typing import Literal

TaskName = str
#: The tasks that condswin comes with, and their packages.
OWN: dict[TaskName, str] = {"reconstruction": "condswin.mri", "segmentation": "condswin.ct"}
#: Where installed packages declare tasks: name and package of each. Our own names stay ours.
ENTRY_POINTS = "condswin.tasks"
#: The package of each task.
PACKAGES = OWN | {
    entry.name: entry.value for entry in sorted(entry_points(group=ENTRY_POINTS)) if entry.name not in OWN
}
TASKS: tuple[TaskName, ...] = tuple(PACKAGES)
Split = Literal["train", "val", "test"]
SPLITS: tuple[Split, ...] = ("train", "val", "test")
