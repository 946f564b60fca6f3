"""The section `reconstruction` of the parameters."""

from collections.abc import Mapping
from typing import Annotated, ClassVar, Literal, Self

from pydantic import Field, model_validator

from condswin.config.gate import GateConfig, RuleConfig, Rules
from condswin.config.names import TaskName
from condswin.config.section import Fraction, Natural, Positive, Section
from condswin.config.task import CardedTaskConfig, IngestConfig
from condswin.config.train import TrainConfig


class DemoMriConfig(Section):
    """Generated knee-like k-space in fastMRI's single-coil format. Sizes in pixels.

    Attributes:
        train_volumes: Volumes in `singlecoil_train`; validation is drawn from them by patient.
        test_volumes: Volumes in `singlecoil_val`, which is the test split, as in fastMRI's publications.
        slices: Slices per volume.
        size: Height and width of the target image; k-space has twice as many rows and its own, sometimes odd, width.
    """

    train_volumes: Positive = 96
    test_volumes: Positive = 12
    slices: Positive = 4
    size: Annotated[int, Field(ge=32)] = 128


class UndersampleConfig(Section):
    """Which k-space lines are kept. Each mask draws one (acceleration, centre fraction) pair.

    Attributes:
        mask: Kind of mask.
        accelerations: Nominal ones.
        center_fractions: Shares of the width that are sampled fully in the middle, one per acceleration.
        offset: First line of a regular pattern; drawn if null, as fastMRI does.
    """

    mask: Literal[
        "random", "equispaced", "equispaced_fraction", "magic", "magic_fraction", "rectangular_equispaced"
    ] = "random"
    accelerations: Annotated[list[Positive], Field(min_length=1)] = [4]
    center_fractions: Annotated[list[Fraction], Field(min_length=1)] = [0.08]
    offset: Natural | None = None

    @model_validator(mode="after")
    def _pairs(self) -> Self:
        if len(self.accelerations) != len(self.center_fractions):
            raise ValueError(
                f"{len(self.accelerations)} accelerations and {len(self.center_fractions)} center_fractions: "
                "they are pairs, give as many of each"
            )
        return self


class ReconstructionIngestConfig(IngestConfig):
    """Which MRI files become the dataset.

    Attributes:
        multicoil: Refuse multi-coil files, or combine them to an emulated single coil (Tygert and Zbontar 2020),
            wherever files of a scanner are read, in prediction too.
        undersampled: Refuse files that were undersampled at the scanner, which have a `mask`, or accept them, with or
            without a target: for networks that learn from measured lines alone (`train.loss: ssdu`).
        acquisitions: Only files of these kinds (`CORPD_FBK`, `CORPDFS_FBK`); all if empty.
        volume_fraction: Share of the volumes that is taken, drawn by name and seed.
    """

    multicoil: Literal["refuse", "combine"] = "refuse"
    undersampled: Literal["refuse", "accept"] = "refuse"
    acquisitions: list[str] = []
    volume_fraction: Annotated[float, Field(gt=0, le=1)] = 1.0


class LateLossConfig(Section):
    """The loss at the end of a training: one minus SSIM, and a share of the mean absolute error.

    Attributes:
        after: Share of the epochs after which it takes the place of `loss`. The best epoch is then that of the highest
            SSIM, and `val/loss` stays that of `loss`, so that all epochs compare.
        l1: Weight of the mean absolute error of normalised images beside it.
    """

    after: Fraction = 0.6
    l1: Annotated[float, Field(ge=0)] = 0.1


class AugmentMriConfig(Section):
    """Changes of complex images before they are undersampled; half of them are mirrored along columns as well.

    Attributes:
        probability: Of each kind at the end of a training; it rises from 0, and has 92 % of that in the middle.
        rotation: By up to so many degrees.
        scale: By up to this share.
        shift: By up to this share of the image's height and width.
    """

    probability: Annotated[float, Field(gt=0, le=1)] = 0.5
    rotation: Annotated[float, Field(ge=0, le=180)] = 15.0
    scale: Annotated[float, Field(ge=0, le=0.5)] = 0.15
    shift: Annotated[float, Field(ge=0, le=0.5)] = 0.05


class ReconstructionTrainConfig(TrainConfig):
    """Training of a reconstruction network.

    Attributes:
        loss: Mean squared (`mse`) or mean absolute (`l1`) error of normalised images; or `ssdu`, which needs no target:
            the error in measured lines that are withheld from the network. For unrolled networks.
        held_out: Share of the measured lines outside the fully sampled centre that `ssdu` withholds.
        late_loss: Another loss for the last epochs; null for none.
        neighbours: Slices on either side whose zero-filled images the regulariser of an unrolled network sees too.
        augment: How slices of unrolled networks are changed beside mirrored rows and phase; null for not at all.
    """

    loss: Literal["mse", "l1", "ssdu"] = "l1"
    held_out: Fraction = 0.4
    late_loss: LateLossConfig | None = None
    neighbours: Annotated[int, Field(ge=0, le=4)] = 0
    augment: AugmentMriConfig | None = None

    @model_validator(mode="after")
    def _late(self) -> Self:
        if self.late_loss and self.late_loss.after > (self.epochs - 1) / self.epochs:
            raise ValueError(
                f"late_loss.after {self.late_loss.after:g} leaves none of {self.epochs} epochs: train for more, or set "
                "late_loss to null"
            )
        return self

    @model_validator(mode="after")
    def _measured_lines_alone(self) -> Self:
        given = {"late_loss": self.late_loss, "neighbours": self.neighbours, "augment": self.augment}
        if self.loss == "ssdu" and (unused := [name for name, value in given.items() if value]):
            raise ValueError(f"{' and '.join(unused)}: needs targets, and loss: ssdu has none; leave it out")
        return self


class PredictMriConfig(Section):
    """How volumes are reconstructed.

    Attributes:
        fallback: Withhold measured lines, and let compressed sensing or the zero-filled image make the reconstruction
            where it foretells them far better than the network (`held-out`); or believe the network (`none`). For
            unrolled networks; others give no phase to compare with.
        adapt: Steps, at most, that an unrolled network is trained further on the measured lines of each volume before
            it reconstructs that, stopped by lines that are withheld; 0 for none.
    """

    fallback: Literal["held-out", "none"] = "held-out"
    adapt: Natural = 0


class ReconstructionGateConfig(GateConfig):
    """When a reconstruction network becomes champion: if every rule holds."""

    rules: Rules = [
        RuleConfig(metric="psnr", superior_to="baselines"),
        RuleConfig(metric="psnr", superior_to="champion"),
        RuleConfig(metric="ssim", not_inferior_to="champion", margin=0.005),
        # These depend on the scanner's units.
        RuleConfig(metric="nmse", not_inferior_to="champion", margin_percent=2.0),
        RuleConfig(metric="mae", not_inferior_to="champion", margin_percent=2.0),
    ]


class ReconstructionConfig(CardedTaskConfig):
    """MRI: reconstruct magnitude images from undersampled single-coil k-space.

    Attributes:
        demo: Generated data.
        undersample: Which k-space lines are kept.
        predict: How volumes are reconstructed.
    """

    name: ClassVar[TaskName] = "reconstruction"
    metrics: ClassVar[Mapping[str, bool]] = {"psnr": True, "ssim": True, "nmse": False, "mae": False}
    traits: ClassVar[Mapping[str, type]] = {"acquisition": str, "acceleration": float, "nominal_acceleration": float}
    baselines: ClassVar[Mapping[str, str]] = {"zero-filled": "zero_filled_"}
    reference_method: ClassVar[str] = "compressed-sensing"
    preparation: ClassVar[str] = "undersample"
    unrolled: ClassVar[bool] = True

    source: str = "data/demo/reconstruction"
    ingest: ReconstructionIngestConfig = ReconstructionIngestConfig(
        folders={"train": "singlecoil_train", "test": "singlecoil_val"}
    )
    train: ReconstructionTrainConfig = ReconstructionTrainConfig()
    gate: ReconstructionGateConfig = ReconstructionGateConfig()
    demo: DemoMriConfig = DemoMriConfig()
    undersample: UndersampleConfig = UndersampleConfig()
    predict: PredictMriConfig = PredictMriConfig()

    def idle(self, *, unrolled: bool) -> list[str]:
        """See `TaskConfig`."""
        found = [key for key in ("neighbours", "augment") if getattr(self.train, key)]
        why = "unrolled networks alone heed it, and none is among the variants; leave it out"
        return [] if unrolled else [f"train.{key}: {why}" for key in found]


SECTION = ReconstructionConfig
