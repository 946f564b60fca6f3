"""Registered versions of one network: which there are, and whether one is what was registered and ready."""

import sys
import time
from collections.abc import Container

from mlflow import MlflowClient
from mlflow.entities.model_registry import ModelVersion

from condswin.config.root import Config
from condswin.errors import GateError
from condswin.plain import plain
from condswin.progress import say
from condswin.registry.aliases import KEY
from condswin.registry.package import ModelUnavailableError, verified_package

#: Seconds within which MLflow must have finished a version, and between two looks.
READY_WITHIN = 300.0
LOOK_EVERY = 2.0

_READY, _PENDING = "READY", "PENDING_REGISTRATION"


def versions_of(client: MlflowClient, name: str, key: str, broken: Container[str] = ()) -> list[ModelVersion]:
    """Those of a network that are ready, or may get so, and are not known to be broken, oldest first.

    Args:
        client: Connected.
        name: The registered model.
        key: The network's.
        broken: Numbers of versions.
    """
    found = client.search_model_versions(f"name = '{name}' and tags.`{KEY}` = '{key}'")
    usable = (each for each in found if each.status in (_READY, _PENDING) and str(each.version) not in broken)
    return sorted(usable, key=lambda version: int(version.version))


def finished(client: MlflowClient, version: ModelVersion) -> ModelVersion:
    """A version, once MLflow has finished it: a managed registry copies the files of one that is there already.

    Raises:
        GateError: MLflow says that it failed, or does not finish it within `READY_WITHIN` seconds.
    """
    name, number, give_up = version.name, str(version.version), time.monotonic() + READY_WITHIN
    if version.status == _PENDING:
        say(f"{name}: waiting until MLflow has finished version {number} ({_PENDING}), {READY_WITHIN:.0f} s at most")
    while version.status == _PENDING:
        if time.monotonic() > give_up:
            raise GateError(
                f"{name}: MLflow has not finished version {number} within {READY_WITHIN:.0f} s ({_PENDING}); register "
                "again to go on waiting, or delete that version"
            )
        time.sleep(LOOK_EVERY)
        version = client.get_model_version(name, number)
    if version.status != _READY:
        why = f"{version.status}: {version.status_message}" if version.status_message else version.status
        raise GateError(
            f"{name}: MLflow could not finish version {number} ({plain(why)[:400]}); register again for a new version"
        )
    return version


def whole_version(client: MlflowClient, config: Config, name: str, key: str, broken: list[str]) -> ModelVersion | None:
    """The oldest version that is what was registered of a network; where there is none, those that are not are told of.

    Args:
        client: Connected.
        config: Names the registry.
        name: The registered model.
        key: The network's.
        broken: Versions that are known not to be; gets those that are found.

    Raises:
        GateError: MLflow fails to finish one, or takes too long.
    """
    found: dict[str, str] = {}
    for version in versions_of(client, name, key, broken):
        if (wrong := _objection(config, finished(client, version))) is None:
            return version
        found[str(version.version)] = wrong
    for wrong in found.values():
        print(f"{wrong}; registered again, as a new version", file=sys.stderr)
    broken.extend(found)
    return None


def _objection(config: Config, version: ModelVersion) -> str | None:
    """Why a version is not what was registered, or not signed where a key asks for that; None if it is."""
    try:
        with verified_package(f"models:/{version.name}/{version.version}", config):
            return None
    except ModelUnavailableError as error:
        return str(error)
