"""The parameters of every step, validated: what is unknown or impossible is refused with the key's path."""

import json
from pathlib import Path
from typing import Annotated, Any, Literal, Self, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator
from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError

from condswin.errors import ConfigError
from condswin.files import atomic_file

PROFILES = Path(__file__).parent / "profiles"

Positive = Annotated[int, Field(gt=0)]
Fraction = Annotated[float, Field(gt=0, lt=1)]
TaskName = Literal["reconstruction", "segmentation"]
TASKS: tuple[TaskName, ...] = ("reconstruction", "segmentation")
Split = Literal["train", "val", "test"]
SPLITS: tuple[Split, ...] = ("train", "val", "test")


class Section(BaseModel):
    """A part of `params.yaml`."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)


S = TypeVar("S", bound=Section)


class TrackingConfig(Section):
    """Where MLflow keeps runs and models; the environment's MLFLOW_TRACKING_URI wins over `uri`."""

    uri: str = "sqlite:///mlflow.db"
    experiment: str = "condswin"


class IngestConfig(Section):
    """How files become a checked, split dataset.

    Attributes:
        on_bad_file: Stop with a report of all bad files, or leave them out and go on.
        folders: Split by top-level folder of the source; files in other folders are split by patient.
        val_fraction: Fraction of patients drawn for validation where no folder names that split.
        test_fraction: The same for the test split.
        folds: Deal the patients that are not in the test split into as many folds instead of drawing `val_fraction`
            of them; 0 for none.
        fold: The fold that validates, from 0.
    """

    on_bad_file: Literal["fail", "quarantine"] = "fail"
    folders: dict[Split, str] = {}
    val_fraction: Fraction = 0.15
    test_fraction: Fraction = 0.2
    folds: Annotated[int, Field(ge=0)] = 0
    fold: Annotated[int, Field(ge=0)] = 0

    @model_validator(mode="after")
    def _folds(self) -> Self:
        if self.folds == 1 or self.fold >= max(self.folds, 1):
            raise ValueError(f"folds {self.folds}, fold {self.fold}: give 0 or at least 2 folds, and one of them")
        if self.folds and "val" in self.folders:
            raise ValueError("folds and a folder of validation cases exclude each other")
        return self


class ScheduleConfig(Section):
    """Learning rate over training: constant, stepwise (the slides') or cosine to zero, after a linear warm-up."""

    name: Literal["constant", "step", "cosine"] = "cosine"
    step_size: Positive = 5
    gamma: Annotated[float, Field(gt=0, le=1)] = 0.8
    warmup_steps: Annotated[int, Field(ge=0)] = 0


class TrainConfig(Section):
    """Optimisation, common to both tasks."""

    epochs: Positive = 20
    batch_size: Positive = 8
    optimizer: Literal["adam", "adamw"] = "adamw"
    learning_rate: Annotated[float, Field(gt=0, lt=1)] = 1e-3
    weight_decay: Annotated[float, Field(ge=0)] = 0.0
    schedule: ScheduleConfig = ScheduleConfig()
    gradient_clip: Annotated[float, Field(ge=0)] = 0.5
    precision: Literal["32-true", "bf16-mixed", "16-mixed"] = "32-true"
    workers: Annotated[int, Field(ge=0)] = 0
    device: Literal["auto", "cpu", "cuda"] = "auto"


class VariantConfig(Section):
    """One network to train: a preset, and the settings that differ from it."""

    preset: str = "demo"
    overrides: dict[str, bool | int | float | str | list[int]] = {}


class GateConfig(Section):
    """When a challenger becomes champion.

    Attributes:
        metric: The test metric that decides, as named in `metrics.json`.
        floor: The challenger's mean must reach it.
        baseline_gain: The challenger's mean must exceed the baseline's (zero-filled) by it, where there is one.
        min_gain: The challenger's mean must exceed the champion's on the same cases by it.
    """

    metric: str
    floor: float
    baseline_gain: float = 0.0
    min_gain: float = 0.0


class DemoMriConfig(Section):
    """Generated knee-like k-space in fastMRI's single-coil format. Sizes in pixels.

    Attributes:
        train_volumes: Volumes in `singlecoil_train`; validation is drawn from them by patient.
        test_volumes: Volumes in `singlecoil_val`, which is the test split, as in fastMRI's publications.
        slices: Slices per volume.
        size: Height and width of the target image; k-space has twice as many rows and an own, sometimes odd, width.
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
    offset: Annotated[int, Field(ge=0)] | None = None

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
        multicoil: Refuse multi-coil files, or combine them to an emulated single coil (Tygert and Zbontar 2020).
        acquisitions: Only files of these kinds (`CORPD_FBK`, `CORPDFS_FBK`); all if empty.
        volume_fraction: Share of the volumes that is taken, drawn by name and seed.
    """

    multicoil: Literal["refuse", "combine"] = "refuse"
    acquisitions: list[str] = []
    volume_fraction: Annotated[float, Field(gt=0, le=1)] = 1.0


class ReconstructionTrainConfig(TrainConfig):
    """Training of a reconstruction network."""

    loss: Literal["mse", "l1"] = "l1"


class DriftConfig(Section):
    """When ingested data counts as other than what a model was trained on.

    Attributes:
        reference: `card.json` of the training data, which `data-card` compares with; nothing is compared if None.
        threshold: Distance of distributions (0 to 1) above which it drifted.
    """

    reference: str | None = None
    threshold: Annotated[float, Field(ge=0, le=1)] = 0.3


class ReconstructionConfig(Section):
    """MRI: reconstruct magnitude images from undersampled single-coil k-space."""

    source: str = "data/demo/reconstruction"
    demo: DemoMriConfig = DemoMriConfig()
    ingest: ReconstructionIngestConfig = ReconstructionIngestConfig(
        folders={"train": "singlecoil_train", "test": "singlecoil_val"}
    )
    undersample: UndersampleConfig = UndersampleConfig()
    drift: DriftConfig = DriftConfig()
    train: ReconstructionTrainConfig = ReconstructionTrainConfig()
    variants: Annotated[dict[str, VariantConfig], Field(min_length=1)]
    gate: GateConfig = GateConfig(metric="psnr", floor=0.0)


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


class PrepareCtConfig(Section):
    """How CT volumes become network inputs.

    Attributes:
        window: Lowest and highest HU kept; mapped linearly to -1..1.
        spacing: In-plane pixel size in mm after resampling; null keeps the scanner's.
        neighbours: Slices on either side given as extra channels (2.5D); 0 is the thesis's setting.
    """

    window: tuple[float, float] = (-160.0, 240.0)
    spacing: Annotated[float, Field(gt=0)] | None = None
    neighbours: Annotated[int, Field(ge=0, le=8)] = 0

    @model_validator(mode="after")
    def _ordered(self) -> Self:
        if self.window[0] >= self.window[1]:
            raise ValueError(f"window {self.window}: the first value must be below the second")
        return self


class SegmentationTrainConfig(TrainConfig):
    """Training of a segmentation network.

    Attributes:
        loss: Dice + cross entropy, Dice + focal loss, or the thesis's plain cross entropy.
        foreground: Fraction of training slices drawn among those that show liver; the rest is drawn from all.
        crop: Rows and columns of random crops to train on, padded with air where a slice is smaller; null for whole
            slices, which must then be of one size.
        augment: Random flips, rotations, scalings and intensity changes.
    """

    loss: Literal["dice_cross_entropy", "dice_focal", "cross_entropy"] = "dice_cross_entropy"
    foreground: Annotated[float, Field(ge=0, le=1)] = 0.7
    crop: Annotated[int, Field(ge=32)] | None = None
    augment: bool = True


class PredictCtConfig(Section):
    """How whole volumes are segmented.

    Attributes:
        window: Rows and columns of overlapping windows for slices that exceed it; null takes the training's crop, and
            whole slices where that is null too.
        largest_component: Keep only the largest connected part of the foreground (liver with its tumours).
        fill_holes: Call background that is enclosed by foreground liver.
    """

    window: Annotated[int, Field(ge=32)] | None = None
    largest_component: bool = False
    fill_holes: bool = False


class SegmentationConfig(Section):
    """CT: segment liver and tumours."""

    source: str = "data/demo/segmentation"
    demo: DemoCtConfig = DemoCtConfig()
    ingest: IngestConfig = IngestConfig()
    prepare: PrepareCtConfig = PrepareCtConfig()
    train: SegmentationTrainConfig = SegmentationTrainConfig()
    predict: PredictCtConfig = PredictCtConfig()
    variants: Annotated[dict[str, VariantConfig], Field(min_length=1)]
    gate: GateConfig = GateConfig(metric="liver_dice", floor=0.0)


class ClusterConfig(Section):
    """What the compiled Kubeflow pipeline asks of a cluster.

    Attributes:
        image: Image of every task; give it by digest, since Kubeflow's cache does not look behind a tag.
        gpus: GPUs of a task that trains or evaluates.
        cpu: CPU limit of a task.
        memory: Memory limit of a task.
        gpu_node_selector: Labels of the GPU node pool.
        retries: How often a failed task is tried again.
        checkpoints_claim: PersistentVolumeClaim for checkpoints, so that a retried training goes on; empty for none.
    """

    image: str = "condswin:latest"
    gpus: Annotated[int, Field(ge=0)] = 0
    cpu: str = "2"
    memory: str = "4Gi"
    gpu_node_selector: dict[str, str] = {}
    retries: Annotated[int, Field(ge=0)] = 2
    checkpoints_claim: str = ""


class Config(Section):
    """All of `params.yaml`."""

    seed: Annotated[int, Field(ge=0, lt=2**32)] = 10
    tracking: TrackingConfig = TrackingConfig()
    reconstruction: ReconstructionConfig
    segmentation: SegmentationConfig
    cluster: ClusterConfig = ClusterConfig()

    def task(self, name: TaskName) -> ReconstructionConfig | SegmentationConfig:
        """The section of one task."""
        return self.reconstruction if name == "reconstruction" else self.segmentation


def parse_config(values: Any, *, origin: str) -> Config:
    """Validates plain values as parameters; see `validated`."""
    return validated(Config, values, origin=origin)


def validated(kind: type[S], values: Any, *, origin: str) -> S:
    """Validates plain values.

    Args:
        kind: What they shall be.
        values: What a YAML or JSON reader returned.
        origin: The file or argument that the values came from, for messages.

    Raises:
        ConfigError: Lists every bad key with its path and value.
    """
    try:
        return kind.model_validate_json(json.dumps(values))
    except ValidationError as error:
        lines = []
        for problem in error.errors(include_url=False):
            path = ".".join(str(part) for part in problem["loc"]) or "(top level)"
            given = "" if problem["type"] == "missing" else f" (given: {json.dumps(problem['input'])[:80]})"
            lines.append(f"{origin}: {path}: {problem['msg']}{given}")
        raise ConfigError("\n".join(lines)) from None


def load_config(path: Path) -> Config:
    """Reads and validates a parameters file.

    Raises:
        ConfigError: The file is missing, is not YAML or has a bad key.
    """
    return parse_config(read_yaml(path), origin=str(path))


def profile_names() -> list[str]:
    """Names of the ready profiles."""
    return sorted(path.stem for path in PROFILES.glob("*.yaml"))


def compose(names: list[str]) -> Config:
    """Merges profiles, later ones over earlier ones, over the defaults.

    Raises:
        ConfigError: A name is unknown, or the result is not valid.
    """
    merged: dict[str, Any] = {}
    for name in names:
        if name not in profile_names():
            raise ConfigError(f"no profile {name!r}; there are: {', '.join(profile_names())}")
        merged = _merge(merged, read_yaml(PROFILES / f"{name}.yaml"))
    return parse_config(merged, origin=f"profiles {' + '.join(names)}")


def write_config(config: Config, path: Path, *, comment: str) -> None:
    """Writes every parameter as YAML, atomically, under a leading comment."""
    yaml = YAML()
    yaml.default_flow_style = None
    yaml.width = 120
    with atomic_file(path) as temporary, temporary.open("w") as file:
        file.write("".join(f"# {line}\n" for line in comment.splitlines()))
        yaml.dump(config.model_dump(mode="json"), file)


def read_yaml(path: Path) -> Any:
    """Plain values of a YAML file.

    Raises:
        ConfigError: The file is missing or is not YAML.
    """
    try:
        return YAML(typ="safe", pure=True).load(path)
    except FileNotFoundError:
        raise ConfigError(f"{path}: no such file; `condswin params use demo` writes one") from None
    except (YAMLError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: not YAML: {error}") from None


def _merge(base: dict[str, Any], over: dict[str, Any]) -> dict[str, Any]:
    merged = dict(base)
    for key, value in over.items():
        both = isinstance(value, dict) and isinstance(merged.get(key), dict)
        # `variants` are replaced whole: a profile that names two variants means those two.
        merged[key] = _merge(merged[key], value) if both and key not in ("variants", "folders") else value
    return merged
