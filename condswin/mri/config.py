"""The section `reconstruction` of the parameters."""

from collections.abc import Mapping
from typing import Annotated, ClassVar, Literal, Self

from pydantic import Field, model_validator

from condswin.config.gate import GateConfig, RuleConfig, Rules
from condswin.config.names import TaskName
from condswin.config.section import Fraction, Natural, Positive, Section, Share
from condswin.config.task import IngestConfig, TaskConfig
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


class ReconstructionTrainConfig(TrainConfig):
    """Training of a reconstruction network.

    Attributes:
        loss: Mean squared (`mse`) or mean absolute (`l1`) error of normalised images; or `ssdu`, which needs no target:
            the error in measured lines that are withheld from the network. For unrolled networks.
        held_out: Share of the measured lines outside the fully sampled centre that `ssdu` withholds.
    """

    loss: Literal["mse", "l1", "ssdu"] = "l1"
    held_out: Fraction = 0.4


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


class DriftConfig(Section):
    """When ingested data counts as other than what a model was trained on.

    Attributes:
        reference: `card.json` of the training data, which `data-card` compares with; nothing is compared if null.
        threshold: Distance of distributions (0 to 1) above which it drifted.
    """

    reference: str | None = None
    threshold: Share = 0.3


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


class ReconstructionConfig(TaskConfig):
    """MRI: reconstruct magnitude images from undersampled single-coil k-space.

    Attributes:
        demo: Generated data.
        undersample: Which k-space lines are kept.
        drift: When data counts as other than the training's.
        predict: How volumes are reconstructed.
    """

    name: ClassVar[TaskName] = "reconstruction"
    metrics: ClassVar[Mapping[str, bool]] = {"psnr": True, "ssim": True, "nmse": False, "mae": False}
    traits: ClassVar[Mapping[str, type]] = {"acquisition": str, "acceleration": float, "nominal_acceleration": float}
    baselines: ClassVar[Mapping[str, str]] = {"zero-filled": "zero_filled_"}
    reference_method: ClassVar[str] = "compressed-sensing"
    preparation: ClassVar[str] = "undersample"
    data_card: ClassVar[bool] = True
    unrolled: ClassVar[bool] = True

    source: str = "data/demo/reconstruction"
    ingest: ReconstructionIngestConfig = ReconstructionIngestConfig(
        folders={"train": "singlecoil_train", "test": "singlecoil_val"}
    )
    train: ReconstructionTrainConfig = ReconstructionTrainConfig()
    gate: ReconstructionGateConfig = ReconstructionGateConfig()
    demo: DemoMriConfig = DemoMriConfig()
    undersample: UndersampleConfig = UndersampleConfig()
    drift: DriftConfig = DriftConfig()
    predict: PredictMriConfig = PredictMriConfig()


SECTION = ReconstructionConfig
