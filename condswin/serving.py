"""A trained network with the parameters that it was trained with, ready for users' files."""

from pathlib import Path
from typing import Any, NamedTuple

from torch import nn

from condswin.config.names import TASKS
from condswin.config.reading import parse_config, sections
from condswin.config.root import Config
from condswin.devices import device
from condswin.errors import BadDataError
from condswin.registry.package import load_registered
from condswin.tasks.loading import load
from condswin.tasks.serving import Serving


class Served(NamedTuple):
    """A network in use.

    Attributes:
        model: Where it was loaded from.
        network: In evaluation mode, on the device to use.
        serving: Its task's, with its parameters.
    """

    model: str
    network: nn.Module
    serving: Serving

    def refuse_unlike(self, inputs: list[Path]) -> None:
        """Raises if a file is far from what the network was trained on.

        Raises:
            BadDataError: Lists the files with reasons.
            BadFileError: A file cannot be used.
        """
        if far := [f"{path}: {reason}" for path in inputs for reason in self.serving.refusals(path)]:
            raise BadDataError(
                "\n".join(
                    [*far, f"{self.model} has not seen such data; take another model, or --force to go on regardless"]
                )
            )

    def predict(self, source: Path, folder: Path) -> Path:
        """Writes the prediction of a file into a folder; returns its path."""
        return self.serving.predict_raw(self.network, source, folder)


def serve(config: Config, model: str) -> Served:
    """Loads a network for use.

    Args:
        config: Parameters; how inputs are prepared comes from the model's own, as it was trained. So do the training's
            settings (slices are cut as in training), but for the device.
        model: Model folder, `models:/NAME@ALIAS` or `models:/NAME/VERSION`.

    Raises:
        BadDataError: It is for a task that is not known here.
    """
    network, spec = load_registered(model, config)
    if spec.task not in TASKS:
        raise BadDataError(f"{model}: made for the task {spec.task!r}; there are: {', '.join(TASKS)}")
    known = spec.provenance.get("parameters", {})
    section: dict[str, Any] = {"variants": {spec.network: {}}}
    # Parameters at hand need not have the model's task.
    if spec.task in config.present:
        section = config.task(spec.task).model_dump(mode="json")
    here = section.get("train", {})
    if "data" in known:
        section[sections()[spec.task].preparation] = known["data"]
    section["train"] = {**known.get("train", here), **({"device": here["device"]} if here else {})}
    trained = parse_config({"seed": config.seed, spec.task: section}, origin=f"{model}: parameters it was trained with")
    network.to(device(trained.task(spec.task).train.device)).eval()
    return Served(model, network, load(Serving, spec.task, trained))


def local_model(model: str) -> list[Path]:
    """The folder of a model, if it is one."""
    return [] if model.startswith("models:/") else [Path(model)]
