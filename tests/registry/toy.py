"""A registry of one's own in a temporary folder, and networks whose quality is known beforehand.

The toy task stands in for reconstruction: the target is the input plus one, and a network adds little but its output
bias, so that a bias of 0.9 gives 20 dB, 0.5 gives 6 dB, and the reference method, which adds nothing, 0 dB.
"""

import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from importlib.machinery import ModuleSpec
from pathlib import Path
from types import ModuleType
from typing import Any, ClassVar

import numpy as np
import pytest
import torch
from mlflow import MlflowClient
from torch import nn

from condswin.config.gate import GateConfig, RuleConfig
from condswin.config.names import TaskName
from condswin.config.profiles import compose
from condswin.config.root import Config, TrackingConfig
from condswin.files import read_json, sha256, write_json
from condswin.manifest import GENERATED, TRAINED_ON, CaseRecord, FileRecord, Manifest
from condswin.mri.config import ReconstructionConfig
from condswin.networks.saving import WEIGHTS, ModelSpec, save_model
from condswin.outputs import WRITTEN_BY
from condswin.registry import package
from condswin.registry.events import EVENT
from condswin.registry.tracking import connect, tracking_uri
from condswin.steps.promote import promote
from condswin.steps.register import register
from condswin.tasks import loading
from condswin.tasks.facts import Facts, Row
from condswin.tasks.judging import Judging
from condswin.tasks.prediction import Prediction
from condswin.tasks.serving import Origin, Predicted, Serving

NAME = "condswin-reconstruction"
#: Test cases.
CASES = 6
SMALL = {"embedding": 8, "heads": [2, 2], "stem_channels": 4}


class ToyFacts(Facts):
    name: ClassVar[TaskName] = "reconstruction"
    metrics: ClassVar[dict[str, bool]] = {"psnr": True, "mse": False}
    baselines: ClassVar[dict[str, str]] = {"zero-filled": "zero_filled_"}
    reference_method: ClassVar[str] = "classic"
    traits: ClassVar[dict[str, type]] = {"site": str, "size": float}
    monitor: ClassVar[tuple[str, bool]] = ("psnr", True)


class ToyPrediction(Prediction):
    def predict(self, model: nn.Module, case_file: Path, out: Path) -> None:
        with torch.inference_mode():
            output = model(torch.from_numpy(np.load(case_file))[:, None])
        out.parent.mkdir(parents=True, exist_ok=True)
        np.save(out, output[:, 0].numpy())


class ToyJudging(Judging):
    def case_files(self, folder: Path) -> dict[str, Path]:
        return {path.stem: path for path in sorted(folder.glob("*.npy"))}

    def prediction_name(self, case: str) -> str:
        return f"{case}.npy"

    def score(self, targets: Path, predictions: Path) -> list[Row]:
        rows: list[Row] = []
        for case, path in self.case_files(targets).items():
            image = np.load(path)
            mse = float(np.mean((image + 1 - np.load(predictions / f"{case}.npy")) ** 2))
            row: Row = {"case": case, "psnr": -10 * np.log10(mse), "mse": mse}
            rows.append({**row, "zero_filled_psnr": 0.0, "zero_filled_mse": 1.0})
        return rows


class ToyServing(Serving):
    subject: ClassVar[str] = "toys"
    takes: ClassVar[str] = "arrays (.npy)"
    suffixes: ClassVar[tuple[str, ...]] = (".npy",)

    def output_names(self, source: Path) -> list[str]:
        return [source.name]

    def predict_raw(self, model: nn.Module, source: Path, folder: Path, origin: Origin) -> Predicted:
        ToyPrediction(self.config).predict(model, source, folder / source.name)
        return Predicted(folder / source.name, [])

    def refusals(self, source: Path, seen: Mapping[str, Any]) -> list[str]:
        return ["it is bright"] if np.load(source).mean() > 5 else []

    def disagreement(self, first: Path, second: Path) -> dict[str, float]:
        return {"difference": float(np.abs(np.load(first) - np.load(second)).mean())}


PARTS = {"facts": ToyFacts, "prediction": ToyPrediction, "judging": ToyJudging, "serving": ToyServing}


def install(patch: pytest.MonkeyPatch) -> None:
    """Lets the toy stand in for reconstruction."""
    patch.setitem(loading.PACKAGES, "reconstruction", "toy_task")
    for name, part in PARTS.items():
        module = ModuleType(f"toy_task.{name}")
        module.PART = part  # type: ignore[attr-defined]
        patch.setitem(sys.modules, f"toy_task.{name}", module)
    # Its parameters are reconstruction's, read by whichever test asks first.
    config = ModuleType("toy_task.config")
    config.SECTION = ReconstructionConfig  # type: ignore[attr-defined]
    patch.setitem(sys.modules, "toy_task.config", config)
    package = ModuleType("toy_task")
    package.__spec__ = ModuleSpec("toy_task", None)
    patch.setitem(sys.modules, "toy_task", package)


def leave_out_code(patch: pytest.MonkeyPatch) -> None:
    """Leaves all but one file of the code out of packages, each of whose files is a request."""
    kept = ("registry", "serving.py")
    patch.setattr(package, "_no_code_or_data", lambda _, names: [name for name in names if name not in kept])


def psnr_rules(*, floor: float = 1.0, baseline: float = 0.0, champion: float = 0.0) -> list[RuleConfig]:
    """What the toy's networks must show, with margins in dB."""
    return [
        RuleConfig(metric="psnr", floor=floor),
        RuleConfig(metric="psnr", superior_to="zero-filled", margin=baseline),
        RuleConfig(metric="psnr", superior_to="champion", margin=champion),
    ]


def make_config(uri: str, **gate: Any) -> Config:
    config = compose(["demo"])
    settings = GateConfig(**{"rules": psnr_rules(), "patients": CASES, **gate})
    section = config.reconstruction.model_copy(update={"gate": settings})
    return config.model_copy(update={"tracking": TrackingConfig(uri=uri), "reconstruction": section})


@dataclass
class World:
    """A folder with data, networks and a registry."""

    folder: Path
    config: Config
    made: int = field(default=0)
    #: Of networks from now on.
    provenance: dict[str, Any] = field(default_factory=dict)

    @property
    def client(self) -> MlflowClient:
        return connect(self.config)

    @property
    def database(self) -> Path:
        return Path(tracking_uri(self.config).removeprefix("sqlite:///"))

    @property
    def prepared(self) -> Path:
        return self.folder / "prepared"

    def network(self, bias: float, **provenance: Any) -> Path:
        """A model folder with a network of known quality."""
        out = self.folder / f"model-{bias}"
        told = {TRAINED_ON: {"train": [], "val": []}, **self.provenance, **provenance}
        spec = ModelSpec("reconstruction", "swin", "swin", "demo", 1, 1, SMALL, told)
        torch.manual_seed(0)
        model = spec.build()
        last = model.projection[-2]  # the pixel shuffle has no weights
        with torch.no_grad():
            last.weight.mul_(1e-3)
            last.bias.fill_(bias)
        save_model(out, model, spec)
        return out

    def comparison(self, data: str = "d" * 64, bias: float = 0.5, **changes: Any) -> Path:
        """The comparison that a network of known quality won."""
        self.made += 1
        summary = {"mean": 12.5, "std": 1.0, "low": 11.0, "high": 14.0, "cases": 3}
        missing = {"mean": None, "std": None, "low": None, "high": None, "cases": 0}
        path = self.folder / f"comparison-{self.made}.json"
        variants = {"swin": {"val": {"psnr": summary}, "test": {"psnr": summary, "mse": missing}}}
        model = self.folder / f"model-{bias}"
        weights = sha256((model if model.exists() else self.network(bias)) / WEIGHTS)
        values = {"task": "reconstruction", "best": "swin", "data_sha256": data, "params_sha256": "p" * 64}
        values["weights_sha256"] = weights
        write_json(path, {**values, "variants": variants, **changes})
        return path

    def register(self, bias: float, **changes: Any) -> Path:
        """Registers a network of known quality; returns the step's JSON."""
        out = self.folder / f"registered-{bias}.json"
        register(self.config, "reconstruction", self.comparison(bias=bias, **changes), self.network(bias), out)
        return out

    def promote(self, registered: Path, baseline: Path | None = None, **gate: Any) -> tuple[bool, dict[str, Any]]:
        """Promotes; returns the result and the record."""
        out = self.folder / "promotion.json"
        config = make_config(self.config.tracking.uri, **gate)
        promoted = promote(config, "reconstruction", registered, self.prepared, out, baseline=baseline).champion
        record = read_json(out)
        assert record.pop(WRITTEN_BY) == "condswin promote"
        return promoted, record

    def aliases(self) -> dict[str, str]:
        found = self.client.get_registered_model(NAME).aliases
        return {alias: str(version) for alias, version in found.items()}

    def tags(self, version: str) -> dict[str, str]:
        return dict(self.client.get_model_version(NAME, version).tags)

    def weights_of(self, version: str) -> Path:
        """The stored weights of a version, to damage or delete."""
        digest = self.tags(version)["weights_sha256"]
        stored = self.database.parent.rglob("mlartifacts/**/model.safetensors")
        return next(path for path in stored if sha256(path) == digest)

    def package_of(self, version: str) -> Path:
        """The stored package of a version."""
        return self.weights_of(version).parents[2]


def plain_tags(client: MlflowClient) -> dict[str, str]:
    """Tags of the registered model but for those that tell of events."""
    tags = client.get_registered_model(NAME).tags
    return {key: value for key, value in tags.items() if not key.startswith(EVENT)}


def make_prepared(folder: Path, cases: int = CASES, *, each: int = 1, generated: bool = False) -> None:
    """Test cases, so many of each person."""
    generator = np.random.default_rng(0)
    (folder / "test").mkdir(parents=True, exist_ok=True)
    records = []
    for case in range(cases):
        path = f"test/case{case}.npy"
        np.save(folder / path, generator.standard_normal((2, 16, 20), dtype=np.float32))
        files = {"image": FileRecord.of(folder, path)}
        records.append(CaseRecord(f"case{case}", "test", f"person{case // each}", files, {GENERATED: generated}))
    Manifest("reconstruction", records, {}, []).write(folder)


def die_at(number: int, patch: pytest.MonkeyPatch) -> None:
    """Makes the `number`-th write of a tag or alias from now on a sudden end instead."""
    calls = 0

    def dying(real: Any) -> Any:
        def call(self: MlflowClient, *arguments: str) -> None:
            nonlocal calls
            calls += 1
            if calls == number:
                raise KeyboardInterrupt
            real(self, *arguments)

        return call

    for name in ("set_model_version_tag", "set_registered_model_alias"):
        patch.setattr(MlflowClient, name, dying(getattr(MlflowClient, name)))
