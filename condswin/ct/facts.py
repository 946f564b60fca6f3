"""Segmentation's scores."""

from collections.abc import Mapping
from typing import ClassVar

from condswin.config.names import TaskName
from condswin.ct.config import SegmentationConfig
from condswin.tasks.facts import Facts

#: Columns that are also given before post-processing, under names with the prefix `BEFORE`.
EFFECTS = ("liver_dice", "tumour_dice", "lesion_precision", "lesions_false")
BEFORE = "unprocessed"


class SegmentationFacts(Facts):
    """Scores per case, liver with its tumours and tumours alone."""

    name: ClassVar[TaskName] = "segmentation"
    metrics: ClassVar[Mapping[str, bool]] = SegmentationConfig.metrics
    details: ClassVar[tuple[str, ...]] = (
        *("liver_iou", "liver_sensitivity", "liver_precision"),
        *("tumour_iou", "tumour_volume_error", "tumour_hd95", "lesion_precision"),
        *("lesions_found", "lesions_missed", "lesions_false"),
        *(f"{BEFORE}_{name}" for name in EFFECTS),
    )
    reference_method: ClassVar[str] = SegmentationConfig.reference_method
    further: ClassVar[Mapping[str, bool]] = SegmentationConfig.further
    traits: ClassVar[Mapping[str, type]] = SegmentationConfig.traits
    shares: ClassVar[tuple[str, ...]] = (
        *("liver_dice", "liver_iou", "liver_sensitivity", "liver_precision"),
        *("tumour_dice", "tumour_iou", "lesion_recall", "lesion_precision"),
    )
    units: ClassVar[Mapping[str, str]] = {
        **dict.fromkeys(("liver_hd95", "tumour_hd95"), "mm"),
        **dict.fromkeys(("lesions_found", "lesions_missed", "lesions_false"), "per case"),
        **dict.fromkeys(("liver_volume_error", "tumour_volume_error"), "share"),
        **dict.fromkeys(("liver_ml", "tumour_ml"), "ml"),
    }

    @property
    def monitor(self) -> tuple[str, bool]:
        """The mean of liver and tumour Dice over all pixels."""
        return "pooled_dice", True


PART = SegmentationFacts
