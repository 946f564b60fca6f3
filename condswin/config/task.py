"""What the section of every task has."""

from collections.abc import Mapping
from pathlib import PurePosixPath
from typing import Annotated, Any, ClassVar, Literal, Self, TypeVar

from pydantic import AfterValidator, Field, JsonValue, model_validator

from condswin.config.gate import GateConfig
from condswin.config.names import Split, TaskName
from condswin.config.section import Fraction, Natural, Section, Share
from condswin.config.train import TrainConfig
from condswin.errors import ConfigError
from condswin.suggest import unknown


class IngestConfig(Section):
    """How files become a checked, split dataset.

    Attributes:
        on_bad_file: Stop with a report of all bad files, or leave them out and go on.
        copy: Copy the files; false leaves them where they are, and the manifest says where (not where
            they are fetched).
        folders: Folder by split, wherever it lies below the source (`singlecoil_val`, `knee/singlecoil_val`). With one
            for `train`, files in none of them are left aside if there are any in these; else such files are split by
            patient, too.
        split_by: Keep the files of a patient in one split, or take each file as a patient of its own where identifiers
            are placeholders.
        val_fraction: Fraction of patients drawn for validation where no folder names that split.
        test_fraction: The same for the test split.
        folds: Deal the patients that are not in the test split into as many folds instead of drawing `val_fraction`
            of them; 0 for none.
        fold: The fold that validates, from 0.
        generated: No scanner made these files; of demo data that is known.
        unchecked_objects: Refuse or accept objects of an S3 source for which the server tells no checksum that can be
            compared, so that their size alone says that they are whole.
    """

    on_bad_file: Literal["fail", "quarantine"] = "fail"
    copy: bool = True  # type: ignore[assignment]
    folders: dict[Split, str] = {}
    split_by: Literal["patient", "file"] = "patient"
    val_fraction: Fraction = 0.15
    test_fraction: Fraction = 0.2
    folds: Natural = 0
    fold: Natural = 0
    generated: bool = False
    unchecked_objects: Literal["refuse", "accept"] = "refuse"

    def split_of(self, folder: str) -> Split | None:
        """The split that `folders` gives to a folder, `/`-separated below the source; None if it names none above it.

        Of several named folders the one with the longest name counts, then the outermost.
        """
        parts = PurePosixPath(folder).parts
        found = []
        for split, name in self.folders.items():
            wanted = PurePosixPath(name).parts
            starts = [at for at in range(len(parts) - len(wanted) + 1) if parts[at : at + len(wanted)] == wanted]
            found += [(len(wanted), -starts[0], split)] if starts else []
        return max(found)[2] if found else None

    @model_validator(mode="after")
    def _folders(self) -> Self:
        paths = [PurePosixPath(name) for name in self.folders.values()]
        for path in paths:
            if path.is_absolute() or ".." in path.parts:
                raise ValueError(f"folders: {path} does not lie below the source; give a path within it")
            if paths.count(path) > 1:
                raise ValueError(f"folders: {path} is given for two splits")
        return self

    @model_validator(mode="after")
    def _folds(self) -> Self:
        if self.folds == 1 or self.fold >= max(self.folds, 1):
            raise ValueError(f"folds {self.folds}, fold {self.fold}: give 0 or at least 2 folds, and one of them")
        if self.folds and "val" in self.folders:
            raise ValueError("folds and a folder of validation cases exclude each other")
        return self


class VariantConfig(Section):
    """One network to train.

    Attributes:
        network: Which one; the variant's label if not given.
        preset: Its size.
        overrides: Settings that differ from the preset.
    """

    network: str = ""
    preset: str = "demo"
    overrides: dict[str, JsonValue] = {}


class StudyVariant(VariantConfig):
    """A network of a study.

    Attributes:
        train: Settings of the training that differ from the parameters' `train`.
        pretrained: Start from a network of the same kind and seed that was trained without labels.
    """

    train: dict[str, JsonValue] = {}
    pretrained: bool = False


V = TypeVar("V", bound=VariantConfig)


def _labelled(variants: dict[str, V]) -> dict[str, V]:
    return {
        label: variant if variant.network else variant.model_copy(update={"network": label})
        for label, variant in variants.items()
    }


#: Networks to train, by label.
Variants = Annotated[dict[str, VariantConfig], Field(min_length=1), AfterValidator(_labelled)]


class Study(Section):
    """What to compare.

    Attributes:
        variants: Networks by the label that they have in the table, the first one being the reference.
    """

    variants: Annotated[dict[str, StudyVariant], Field(min_length=1), AfterValidator(_labelled)]


class TaskConfig(Section):
    """A task's section.

    Attributes:
        source: Folder, `s3://` prefix or version in a DVC remote (`dvc+s3://...`) of the raw files.
        ingest: How they become a dataset.
        train: Optimisation of all variants.
        variants: Networks to train, by label.
        gate: When the best of them becomes champion.
    """

    #: The section's key.
    name: ClassVar[TaskName]
    #: Metrics of cases in display order, first the primary one; and whether a higher value is better.
    metrics: ClassVar[Mapping[str, bool]]
    #: The same of further scores that a gate may name.
    further: ClassVar[Mapping[str, bool]] = {}
    #: Columns of a case's scores that describe the case, `str` or `float`: subgroups of a gate.
    traits: ClassVar[Mapping[str, type]] = {}
    #: Reference methods whose scores stand in a network's own rows, with the prefix of their columns.
    baselines: ClassVar[Mapping[str, str]] = {}
    #: Reference method that the step `baseline` evaluates; empty where a task has none.
    reference_method: ClassVar[str] = ""
    #: The part of the section that decides what prepared files hold.
    preparation: ClassVar[str]
    #: Whether unrolled networks, which take complex images and a mask, can do the task.
    unrolled: ClassVar[bool] = False
    #: Whether the task has a loss for what a network answers at several scales.
    deep_supervision: ClassVar[bool] = False

    source: str
    ingest: IngestConfig = IngestConfig()
    train: TrainConfig = TrainConfig()
    variants: Variants
    gate: GateConfig

    def prepared_with(self) -> dict[str, Any]:
        """The parameters that decide what prepared files hold, JSON-able."""
        values: dict[str, Any] = getattr(self, self.preparation).model_dump(mode="json")
        return values

    def idle(self, *, unrolled: bool) -> list[str]:
        """What is set and has no effect: `KEY: why, and what to do`.

        Args:
            unrolled: Whether one of the variants is an unrolled network.
        """
        return []

    def variant(self, label: str) -> VariantConfig:
        """The variant with a label.

        Raises:
            ConfigError: There is none.
        """
        if label not in self.variants:
            raise ConfigError(f"{self.name}.variants: {unknown('variant', label, self.variants)}")
        return self.variants[label]


class DriftConfig(Section):
    """When ingested data counts as other than what a model was trained on.

    Attributes:
        reference: `card.json` of the training data, which `data-card` compares with; nothing is compared if null.
        threshold: Distance of distributions (0 to 1) above which it drifted.
        schedule: Recurring run on Kubeflow that the pipeline `drift` starts once for data that drifted
            (`infra/schedules.yaml`); empty to leave it to people.
    """

    reference: str | None = None
    threshold: Share = 0.3
    schedule: str = ""


class CardedTaskConfig(TaskConfig):
    """The section of a task that makes a data card of ingested files, which training waits for.

    Attributes:
        drift: When data counts as other than the training's.
    """

    drift: DriftConfig = DriftConfig()
