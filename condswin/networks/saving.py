"""A trained network on disk: `model.safetensors` (weights) and `model.json` (how to build it). No pickle."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import safetensors.torch
from safetensors import SafetensorError
from torch import Tensor, nn

from condswin.errors import BadFileError
from condswin.files import atomic_file, read_json, sha256, write_json
from condswin.networks.models import create_model

WEIGHTS = "model.safetensors"
#: In the provenance of a network that was trained without labels: how.
PRETRAINING = "pretraining"
DESCRIPTION = "model.json"
#: Of the description. The first one had no `network`: labels were names of networks.
FORMAT = 2
# What a spec says of a network that is not how to build it.
_APART = ("provenance", "weights_sha256")


@dataclass(frozen=True)
class ModelSpec:
    """How to build a network again, and what it was made for.

    Attributes:
        task: Which task, as in `params.yaml`.
        variant: Its label.
        network: Which network it is, as in `list_variants()`.
        preset: As in `create_model`.
        in_channels: Input channels.
        out_channels: Output channels.
        overrides: Settings that differ from the preset.
        provenance: JSON-able facts: data checksum, parameters and their fingerprint, what the training's cases were
            like (`seen`), code.
        weights_sha256: Checksum of the saved weights; empty of a network that is not saved.
    """

    task: str
    variant: str
    network: str
    preset: str
    in_channels: int
    out_channels: int
    overrides: Mapping[str, Any] = field(default_factory=dict)
    provenance: Mapping[str, Any] = field(default_factory=dict)
    weights_sha256: str = field(default="", compare=False)

    def recipe(self) -> dict[str, Any]:
        """All that decides what the network computes, beside its weights and the code; JSON-able."""
        return {name: value for name, value in asdict(self).items() if name not in _APART}

    def build(self) -> nn.Module:
        """The network with fresh weights."""
        return create_model(
            self.network,
            preset=self.preset,
            in_channels=self.in_channels,
            out_channels=self.out_channels,
            **self.overrides,
        )


def save_model(folder: Path, model: nn.Module, spec: ModelSpec) -> None:
    """Writes weights, then the description that carries their checksum: a folder with a description is whole."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / DESCRIPTION).unlink(missing_ok=True)
    with atomic_file(folder / WEIGHTS) as temporary:
        state = {name: value.detach().cpu().contiguous() for name, value in model.state_dict().items()}
        safetensors.torch.save_file(state, temporary)
    write_json(folder / DESCRIPTION, {"format": FORMAT, **asdict(spec), "weights_sha256": sha256(folder / WEIGHTS)})


def read_spec(folder: Path) -> ModelSpec:
    """Reads the description of a saved network.

    Raises:
        BadFileError: It is missing or not one of ours.
    """
    path = folder / DESCRIPTION
    values = read_json(path)
    try:
        if (written := values.pop("format")) == 1:
            values["network"] = values["variant"]
        elif written != FORMAT:
            raise BadFileError(path, "written by a newer condswin; update this one")
        return ModelSpec(**values)
    except (AttributeError, KeyError, TypeError) as error:
        raise BadFileError(path, f"not a condswin model description ({error})") from None


def load_model(folder: Path) -> tuple[nn.Module, ModelSpec]:
    """Rebuilds a saved network in evaluation mode on the CPU.

    Raises:
        BadFileError: A file is missing, damaged, or does not fit the description; or the network was trained without
            labels and does not do its task.
    """
    weights, spec = load_weights(folder)
    if PRETRAINING in spec.provenance:
        raise BadFileError(
            folder / DESCRIPTION,
            "this network was trained without labels and predicts nothing; start a training from it "
            f"({spec.task}.train.initial)",
        )
    model = spec.build()
    try:
        model.load_state_dict(weights)
    except RuntimeError as error:
        raise _unfit(folder, error) from None
    return model.eval(), spec


def load_weights(folder: Path) -> tuple[dict[str, Tensor], ModelSpec]:
    """Reads a saved network without building it: weights by name, and the description.

    Raises:
        BadFileError: A file is missing or damaged.
    """
    spec = read_spec(folder)
    weights = folder / WEIGHTS
    if not weights.is_file():
        raise BadFileError(weights, "no such file; the model folder is incomplete, train again")
    if sha256(weights) != spec.weights_sha256:
        raise BadFileError(
            weights, f"checksum differs from {DESCRIPTION}; the file is damaged, fetch or train it again"
        )
    try:
        return safetensors.torch.load_file(weights), spec
    except SafetensorError as error:
        raise _unfit(folder, error) from None


def _unfit(folder: Path, error: Exception) -> BadFileError:
    return BadFileError(folder / WEIGHTS, f"does not fit the network that {DESCRIPTION} describes: {error}")
