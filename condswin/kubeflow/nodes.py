"""A task that has several machines train: Kubeflow Trainer runs them, the task waits and brings what they made.

They share a folder on the volume for checkpoints: the task copies the prepared data there, since machines of a TrainJob
know nothing of a pipeline's artifacts, and takes the network from there.
"""

import json
import shutil
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from condswin.errors import ClusterError
from condswin.files import PARTIAL, fingerprint, read_json, write_json
from condswin.kubeflow.given import code_of, read, require
from condswin.kubeflow.node import GIVEN, OUTCOME
from condswin.outcomes import settled
from condswin.outputs import require_space

#: Seconds until a file of another machine is seen.
DELAY = 90.0


@settled
def train_nodes(
    params: str, task: str, code: str, variant: str, image: str, job: str, checkpoints: str, prepared: str, model: str
) -> str:
    """Trains a variant on several machines; returns what they told."""
    from condswin.kubeflow.trainjobs import of_this_cluster
    from condswin.manifest import Manifest

    read(params, task)
    require(code, "train_nodes", task)
    asked: dict[str, Any] = json.loads(job)
    data = Manifest.read(Path(prepared), task).fingerprint()
    # What is asked once more has this name again, and is found. Kubeflow names the place of the result for the run: two
    # runs have jobs and folders of their own, since each deletes its own in the end.
    name = f"train-{fingerprint([params, task, variant, code_of('train_nodes', task), data, image, asked, model])[:32]}"
    folder = Path(checkpoints, "nodes", name)
    if not (folder / OUTCOME).is_file():
        jobs = of_this_cluster()
        _share(Path(prepared), folder / "prepared", f"train {task} {variant}")
        given = {"params": params, "task": task, "code": code, "variant": variant, "checkpoints": checkpoints}
        write_json(folder / GIVEN, {**given, "prepared": str(folder / "prepared"), "model": str(folder / "model")})
        failure = None
        try:
            jobs.run(_whole(asked, name, image, str(folder)))
        except ClusterError as error:
            # Where one machine tells, others may fail for want of it.
            failure = error
        if not _arrives(folder / OUTCOME):
            raise failure or ClusterError(
                f"TrainJob {name}: left no {OUTCOME} in {folder}; does its runtime mount the same volume?"
            )
    outcome = str(read_json(folder / OUTCOME)["outcome"])
    if not outcome:
        shutil.copytree(folder / "model", model, dirs_exist_ok=True)
    _remove(folder)
    return outcome


def _arrives(file: Path) -> bool:
    """Whether a file is there that another machine may have written a moment ago: NFS shows it up to a minute later."""
    until = time.monotonic() + DELAY
    while not file.is_file():
        if time.monotonic() > until:
            return False
        time.sleep(min(5.0, DELAY))
    return True


def _share(prepared: Path, place: Path, step: str) -> None:
    """Copies prepared data to where all machines see it, unless it is there."""
    if place.is_dir():
        return
    place.parent.mkdir(parents=True, exist_ok=True)
    size = sum(path.stat().st_size for path in prepared.rglob("*") if path.is_file())
    require_space(place, size, step, "make the volume for checkpoints larger")
    partial = place.with_name(PARTIAL + place.name)
    shutil.copytree(prepared, partial, dirs_exist_ok=True)
    partial.rename(place)


def _remove(folder: Path) -> None:
    """Removes a folder; what is left where that breaks off has no name that counts."""
    gone = folder.rename(tempfile.mkdtemp(prefix=PARTIAL, dir=folder.parent))
    shutil.rmtree(gone, ignore_errors=True)


def _whole(job: Mapping[str, Any], name: str, image: str, folder: str) -> dict[str, Any]:
    trainer = {**job["spec"]["trainer"], "image": image, "args": [folder]}
    return {**job, "metadata": {**job["metadata"], "name": name}, "spec": {**job["spec"], "trainer": trainer}}
