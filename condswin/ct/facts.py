"""Segmentation's scores."""

import math
from collections.abc import Mapping
from typing import ClassVar

from condswin.config.names import TaskName
from condswin.ct.config import SegmentationConfig
from condswin.tasks.facts import Facts

#: Columns that are also given before post-processing, under names with the prefix `BEFORE`.
EFFECTS = ("liver_dice", "tumour_dice", "lesion_precision", "lesions_false")
BEFORE = "unprocessed"
_LIVER = "liver with its tumours"

_RECALLED = "Share that the prediction touches of the true lesions of the volume of a ball"
_RECALLS = ("lesion_recall_under_10mm", "lesion_recall_10_to_20mm", "lesion_recall_from_20mm")


class SegmentationFacts(Facts):
    """Scores per case, liver with its tumours and tumours alone."""

    name: ClassVar[TaskName] = "segmentation"
    metrics: ClassVar[Mapping[str, bool]] = SegmentationConfig.metrics
    details: ClassVar[tuple[str, ...]] = (
        *("liver_iou", "liver_sensitivity", "liver_precision"),
        *("tumour_iou", "tumour_volume_error", "tumour_hd95", "lesion_precision"),
        *_RECALLS,
        *("lesions_found", "lesions_missed", "lesions_false"),
        *(f"{BEFORE}_{name}" for name in EFFECTS),
    )
    reference_method: ClassVar[str] = SegmentationConfig.reference_method
    further: ClassVar[Mapping[str, bool]] = SegmentationConfig.further
    beside: ClassVar[tuple[str, ...]] = ("lesions_false",)
    methods: ClassVar[Mapping[str, str]] = {
        "active-contour": "Classical, without training: a band of HU around the liver's, its largest piece, an active "
        "contour around that, and inside it what is darker. Its two widths are chosen on validation cases.",
    }
    traits: ClassVar[Mapping[str, type]] = SegmentationConfig.traits
    ranges: ClassVar[Mapping[str, tuple[float, float]]] = {
        **dict.fromkeys(("liver_dice", "liver_iou", "liver_sensitivity", "liver_precision"), (0.0, 1.0)),
        **dict.fromkeys(("tumour_dice", "tumour_iou", "tumour_sensitivity", "tumour_precision"), (0.0, 1.0)),
        **dict.fromkeys(("mean_dice", "lesion_recall", "lesion_precision"), (0.0, 1.0)),
        **dict.fromkeys(_RECALLS, (0.0, 1.0)),
        **dict.fromkeys(("liver_volume_error", "tumour_volume_error", "liver_hd95", "tumour_hd95"), (0.0, math.inf)),
        **dict.fromkeys(("lesions_found", "lesions_missed", "lesions_false"), (0.0, math.inf)),
    }
    modality: ClassVar[str] = "CT"
    before: ClassVar[str] = f"{BEFORE}_"
    demo: ClassVar[str] = (
        "Drawn abdomens of random build, organ shapes, contrast phase and noise, nobody's, in LiTS's format."
    )
    units: ClassVar[Mapping[str, str]] = {
        **dict.fromkeys(("liver_hd95", "tumour_hd95"), "mm"),
        **dict.fromkeys(("lesions_found", "lesions_missed", "lesions_false"), "per case"),
        **dict.fromkeys(("liver_volume_error", "tumour_volume_error"), "share"),
        **dict.fromkeys(("liver_ml", "tumour_ml"), "ml"),
    }

    terms: ClassVar[Mapping[str, tuple[str, str]]] = {
        "liver_dice": ("Liver Dice", f"Overlap of target and prediction, {_LIVER}; 1 is equal."),
        "liver_iou": ("Liver IoU", f"Common voxels over those of either, {_LIVER}."),
        "liver_sensitivity": ("Liver sensitivity", f"Share of the target that was found, {_LIVER}."),
        "liver_precision": ("Liver precision", f"Share of the prediction that is right, {_LIVER}."),
        "liver_volume_error": ("Liver volume error", f"Wrong volume over the true one, either way, {_LIVER}."),
        "liver_hd95": ("Liver HD95", "Hausdorff distance of the surfaces at the 95th percentile."),
        "liver_ml": ("Liver volume", f"True volume, {_LIVER}."),
        "tumour_dice": ("Tumour Dice", "Overlap of target and prediction, tumours alone; no value without a tumour."),
        "tumour_iou": ("Tumour IoU", "Common voxels over those of either, tumours alone."),
        "tumour_sensitivity": ("Tumour sensitivity", "Share of the true tumour voxels that was found."),
        "tumour_precision": ("Tumour precision", "Share of the predicted tumour voxels that is right."),
        "tumour_volume_error": ("Tumour volume error", "Wrong volume over the true one, either way, tumours alone."),
        "tumour_hd95": ("Tumour HD95", "Hausdorff distance of the surfaces at the 95th percentile."),
        "tumour_ml": ("Tumour volume", "True volume, tumours alone."),
        "mean_dice": ("Mean Dice", "Mean of two: the Dice of liver without its tumours, and of tumours."),
        "lesion_recall": ("Lesion recall", "Share of the true lesions that the prediction touches."),
        "lesion_recall_under_10mm": ("Recall below 10 mm", f"{_RECALLED} less than 10 mm across."),
        "lesion_recall_10_to_20mm": ("Recall, 10 to 20 mm", f"{_RECALLED} 10 to 20 mm across."),
        "lesion_recall_from_20mm": ("Recall from 20 mm", f"{_RECALLED} 20 mm across or more."),
        "lesion_precision": ("Lesion precision", "Share of the predicted lesions that touch a true one."),
        "lesions_found": ("Lesions found", "True lesions that the prediction touches."),
        "lesions_missed": ("Lesions missed", "True lesions that the prediction does not touch."),
        BEFORE: (
            "Post-processing",
            "As `segmentation.predict` asks: keeps the largest connected part, fills holes, calls small tumours liver.",
        ),
        "lesions_false": ("False lesions", "Predicted lesions that touch no true one."),
    }

    @property
    def monitor(self) -> tuple[str, bool]:
        """The mean of liver and tumour Dice over all pixels."""
        return "pooled_dice", True


PART = SegmentationFacts
