"""The section `segmentation` of the parameters."""

from collections.abc import Mapping
from typing import Annotated, ClassVar, Literal, Self

from pydantic import Field, model_validator

from condswin.config.gate import GateConfig, RuleConfig, Rules
from condswin.config.names import TaskName
from condswin.config.section import Fraction, Positive, Section, Share
from condswin.config.task import CardedTaskConfig, IngestConfig
from condswin.config.train import TrainConfig


class DemoCtConfig(Section):
    """Generated abdomen-like CT in LiTS's format.

    Attributes:
        cases: Volumes, split by patient at ingestion.
        slices: Axial slices per volume (varied by up to a quarter).
        size: Rows and columns, pixels.
    """

    cases: Positive = 24
    slices: Positive = 24
    size: Annotated[int, Field(ge=48)] = 128


class CtIngestConfig(IngestConfig):
    """How CT files are taken where their headers leave something open, at ingestion and wherever they are read later.

    Attributes:
        unknown_geometry: A header that does not say how large voxels are or which way axes run (`pixdim` 0, neither
            sform nor qform, an identity matrix): refuse the file, or assume what nibabel does (1 mm, LAS, as written).
        label_geometry: Labels of the right shape that lie elsewhere than their image: refuse them, or take the image's
            geometry for theirs.
    """

    unknown_geometry: Literal["refuse", "assume"] = "refuse"
    label_geometry: Literal["require", "of-image"] = "require"


class PrepareCtConfig(Section):
    """How CT volumes become network inputs.

    Attributes:
        windows: Lowest and highest HU of each window; a slice gives a channel for each, mapped linearly to -1..1. A
            wide window shows what is where, a narrow one what differs by a few HU; the thesis has the wide one alone.
        spacing: In-plane pixel size in mm after resampling; null keeps the scanner's.
        neighbours: Slices on either side given as extra channels (2.5D); 0 is the thesis's setting.
        position: Two more channels say where in its slice a pixel is; without, a network knows it only from what it
            sees of the body. Slices lie one way round, so the liver's side is known (CoordConv, arXiv:1807.03247).
    """

    windows: Annotated[tuple[tuple[float, float], ...], Field(min_length=1)] = ((-160.0, 240.0), (-20.0, 200.0))
    spacing: Annotated[float, Field(gt=0)] | None = None
    neighbours: Annotated[int, Field(ge=0, le=8)] = 0
    position: bool = False

    @property
    def channels(self) -> int:
        """What a network takes: each slice in each window, and where it is."""
        return len(self.windows) * (1 + 2 * self.neighbours) + 2 * self.position

    @model_validator(mode="after")
    def _ordered(self) -> Self:
        for window in self.windows:
            if window[0] >= window[1]:
                raise ValueError(f"windows: {window}: the first value must be below the second")
        return self


class SegmentationTrainConfig(TrainConfig):
    """Training of a segmentation network.

    Attributes:
        loss: Dice + cross entropy, Dice + focal loss, or the thesis's plain cross entropy.
        foreground: Fraction of training slices drawn among those that show liver; the rest is drawn from all.
        tumour: Fraction drawn among those that show tumour.
        labelled: Share of the training cases whose labels are used, drawn by name and seed: a larger one has those of a
            smaller one. An epoch has as many slices as with all of them.
        crop: Rows and columns of random crops to train on, padded with air where a slice is smaller; null for whole
            slices, which must then be of one size.
        augment: Random flips, rotations, scalings and intensity changes.
        synthetic_lesions: Fraction of slices with liver that get lesions that nobody had; the model says so.
    """

    loss: Literal["dice_cross_entropy", "dice_focal", "cross_entropy"] = "dice_cross_entropy"
    foreground: Share = 0.4
    tumour: Share = 0.3
    labelled: Annotated[float, Field(gt=0, le=1)] = 1.0
    crop: Annotated[int, Field(ge=32)] | None = None
    augment: bool = True
    synthetic_lesions: Share = 0.0

    @model_validator(mode="after")
    def _shares(self) -> Self:
        if self.foreground + self.tumour > 1:
            raise ValueError(f"foreground {self.foreground} and tumour {self.tumour} are more than all slices")
        return self


class PretrainCtConfig(Section):
    """How a network is trained without labels before it learns from them (`condswin pretrain`): it paints in patches of
    slices that are hidden from it. All else is as `train` has it.

    Attributes:
        epochs: Passes over the training slices; null takes `train.epochs`.
        patch: Side of a patch, pixels.
        share: Of the patches of a slice that is hidden.
    """

    epochs: Positive | None = None
    patch: Annotated[int, Field(ge=2)] = 16
    share: Fraction = 0.6


class PredictCtConfig(Section):
    """How whole volumes are segmented.

    Attributes:
        window: Rows and columns of overlapping windows for slices that exceed it; null takes the training's crop, and
            whole slices where that is null too.
        overlap: Share of its side by which a window overlaps the next.
        mirrored: Average over mirror images of each slice along rows, columns and both, which takes four times as long.
        largest_component: Keep only the largest connected part of the foreground (liver with its tumours).
        fill_holes: Call background that is enclosed by foreground liver.
        minimum_lesion: Call tumours of less than so many cubic millimetres liver; 0 keeps all.
    """

    window: Annotated[int, Field(ge=32)] | None = None
    overlap: Annotated[float, Field(ge=0, lt=1)] = 0.25
    mirrored: bool = False
    largest_component: bool = True
    fill_holes: bool = True
    minimum_lesion: Annotated[float, Field(ge=0)] = 200.0

    @property
    def processes(self) -> bool:
        """Whether anything is done to what the network says."""
        return self.largest_component or self.fill_holes or self.minimum_lesion > 0


class SegmentationGateConfig(GateConfig):
    """When a segmentation network becomes champion: if every rule holds."""

    rules: Rules = [
        RuleConfig(metric="liver_dice", floor=0.9),
        RuleConfig(metric="liver_dice", superior_to="baselines"),
        RuleConfig(metric="liver_dice", superior_to="champion"),
        RuleConfig(metric="tumour_dice", not_inferior_to="champion", margin=0.02),
        RuleConfig(metric="mean_dice", not_inferior_to="champion", margin=0.02),
        RuleConfig(metric="tumour_sensitivity", not_inferior_to="champion", margin=0.03),
        RuleConfig(metric="tumour_precision", not_inferior_to="champion", margin=0.03),
        RuleConfig(metric="lesion_recall", not_inferior_to="champion", margin=0.03),
        RuleConfig(metric="lesion_recall_from_20mm", not_inferior_to="champion", margin=0.03),
        RuleConfig(metric="liver_volume_error", not_inferior_to="champion", margin=0.01),
        RuleConfig(metric="liver_hd95", not_inferior_to="champion", margin=2.0),
        RuleConfig(metric="lesions_false", not_inferior_to="champion", margin=0.5),
    ]


class SegmentationConfig(CardedTaskConfig):
    """CT: segment liver and tumours.

    Attributes:
        demo: Generated data.
        prepare: How volumes become network inputs.
        pretrain: How networks are trained without labels.
        predict: How whole volumes are segmented.
    """

    name: ClassVar[TaskName] = "segmentation"
    reference_method: ClassVar[str] = "active-contour"
    metrics: ClassVar[Mapping[str, bool]] = {
        "liver_dice": True,
        "tumour_dice": True,
        "mean_dice": True,
        "tumour_sensitivity": True,
        "tumour_precision": True,
        "lesion_recall": True,
        "liver_volume_error": False,
        "liver_hd95": False,
    }
    further: ClassVar[Mapping[str, bool]] = {
        "liver_iou": True,
        "liver_sensitivity": True,
        "liver_precision": True,
        "tumour_iou": True,
        "tumour_volume_error": False,
        "tumour_hd95": False,
        "lesion_precision": True,
        "lesion_recall_under_10mm": True,
        "lesion_recall_10_to_20mm": True,
        "lesion_recall_from_20mm": True,
        "lesions_found": True,
        "lesions_missed": False,
        "lesions_false": False,
    }
    traits: ClassVar[Mapping[str, type]] = {"liver_ml": float, "tumour_ml": float}
    preparation: ClassVar[str] = "prepare"
    deep_supervision: ClassVar[bool] = True

    source: str = "data/demo/segmentation"
    ingest: CtIngestConfig = CtIngestConfig()
    train: SegmentationTrainConfig = SegmentationTrainConfig()
    gate: SegmentationGateConfig = SegmentationGateConfig()
    demo: DemoCtConfig = DemoCtConfig()
    prepare: PrepareCtConfig = PrepareCtConfig()
    pretrain: PretrainCtConfig = PretrainCtConfig()
    predict: PredictCtConfig = PredictCtConfig()

    def idle(self, *, unrolled: bool) -> list[str]:
        """See `TaskConfig`."""
        whole = self.predict.window is None and self.train.crop is None
        if whole and self.predict.overlap != PredictCtConfig().overlap:
            return ["predict.overlap: slices pass whole; set predict.window or train.crop, or leave it out"]
        return []


SECTION = SegmentationConfig
