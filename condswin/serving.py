"""A trained network with the parameters that it was trained with, ready for users' files."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from torch import nn

from condswin.config.names import TASKS
from condswin.config.reading import parse_config, sections
from condswin.config.root import Config
from condswin.devices import device
from condswin.errors import BadDataError, BadFileError
from condswin.kinds import DICOM, kind_of
from condswin.provenance import software
from condswin.registry.package import exact_uri, load_registered
from condswin.tasks.loading import load
from condswin.tasks.prediction import Prediction
from condswin.tasks.serving import Origin, Predicted, Serving


class Served(NamedTuple):
    """A network in use.

    Attributes:
        model: Where it was loaded from, the version instead of an alias.
        network: In evaluation mode, on the device to use.
        task: What it was made for.
        serving: Its task's, with its parameters.
        origin: What else is known of it; of several in one, of the first.
        others: The same of the others.
    """

    model: str
    network: nn.Module
    task: str
    serving: Serving
    origin: Origin
    others: tuple[Origin, ...] = ()

    @property
    def purpose(self) -> str:
        """What the model is for, in words."""
        return f"{self.serving.subject} ({self.task})" if self.serving.subject else self.task

    def refuse_kind(self, source: Path) -> None:
        """Raises if a file is of another kind than the model takes.

        Raises:
            BadFileError: It is, or cannot be read.
        """
        wanted = self.serving.kind
        try:
            found = kind_of(source)
        except OSError as error:
            raise BadFileError(source, f"cannot be read ({error.strerror})") from None
        # What is damaged may look like anything; its name says what it should be.
        unknown = found or source.name.lower().endswith(self.serving.suffixes)
        if not wanted or found == wanted or (not found and unknown):
            return
        mend = "; convert it first, by dcm2niix for one" if found == DICOM and self.task == "segmentation" else ""
        raise BadFileError(
            source,
            f"is {found or 'of no kind known here'}, but this model is for {self.purpose} and takes "
            f"{self.serving.takes}{mend}",
        )

    def refuse_unlike(self, inputs: list[Path]) -> None:
        """Raises if a file is far from what the network was trained on, or of another kind.

        Raises:
            BadDataError: Lists the files with reasons.
            BadFileError: A file cannot be used.
        """
        for path in inputs:
            self.refuse_kind(path)
        if far := {path: reasons for path in inputs if (reasons := self.refusals(path))}:
            raise BadDataError("\n".join([*(f"{path}: {'; '.join(why)}" for path, why in far.items()), self.advice]))

    def refusals(self, source: Path) -> list[str]:
        """Why the network, or one of several, should not be trusted with a file; nothing if it may."""
        reasons = [self.serving.refusals(source, origin.seen) for origin in (self.origin, *self.others)]
        return list(dict.fromkeys(reason for each in reasons for reason in each))

    @property
    def advice(self) -> str:
        """What to do about files that are far from what the network was trained on."""
        return f"{self.model} has not seen such data; take another model, or --force to go on regardless"

    def predict(self, source: Path, folder: Path) -> Predicted:
        """Writes the prediction of a file into a folder."""
        return self.serving.predict_raw(self.network, source, folder, self.origin)


def serve(config: Config, model: str) -> Served:
    """Loads a network for use.

    Args:
        config: Parameters; how inputs are prepared comes from the model's own, as it was trained. So do the training's
            settings (slices are cut as in training), but for the device.
        model: Model folder, `models:/NAME@ALIAS` or `models:/NAME/VERSION`.

    Raises:
        BadDataError: It is for a task that is not known here.
    """
    # An alias may be moved between two looks at it.
    exact = exact_uri(model, config) if model.startswith("models:/") else model
    network, spec = load_registered(exact, config)
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
    attributes = {
        # The path of a folder may name whoever trained it.
        "model": exact if exact.startswith("models:/") else f"{spec.task}/{spec.variant}",
        "weights_sha256": spec.weights_sha256,
        "software": software(),
    }
    origin = Origin(attributes, spec.provenance.get("seen", {}))
    return Served(exact, network, spec.task, load(Serving, spec.task, trained), origin)


def serve_together(config: Config, models: Sequence[str]) -> Served:
    """Loads networks whose predictions are averaged, of folds of one training for instance; one alone as `serve` does.

    Args:
        config: See `serve`.
        models: See `serve`; of equal inputs, pixel sizes of the first.

    Raises:
        BadDataError: They are for other tasks or of other inputs, two are one network, or the task has no mean of
            predictions.
    """
    served = [serve(config, model) for model in models]
    first, *others = served
    if not others:
        return first
    known: dict[str, str] = {}
    for each in served:
        if each.task != first.task:
            raise BadDataError(f"{each.model}: is for {each.purpose}, {first.model} is for {first.purpose}")
        weights = each.origin.attributes["weights_sha256"]
        if weights in known:
            raise BadDataError(f"{each.model}: is the same network as {known[weights]}; give each once")
        known[weights] = each.model
        ours, theirs = _inputs(first), _inputs(each)
        if differing := [
            f"{key} {theirs.get(key)}, not {ours.get(key)}" for key in ours if theirs.get(key) != ours[key]
        ]:
            raise BadDataError(
                f"{each.model}: prepares its inputs otherwise than {first.model} ({'; '.join(differing)}), so their "
                "predictions cannot be averaged"
            )
    return Served(
        " + ".join(each.model for each in served),
        first.serving.together([each.network for each in served]),
        first.task,
        first.serving,
        first.origin,
        tuple(each.origin for each in others),
    )


def _inputs(served: Served) -> dict[str, Any]:
    """How inputs are made for a network, and what is done with its outputs."""
    config = served.serving.config
    return {**config.task(served.task).prepared_with(), **load(Prediction, served.task, config).parameters()}


def local_model(model: str) -> list[Path]:
    """The folder of a model, if it is one."""
    return [] if model.startswith("models:/") else [Path(model)]
