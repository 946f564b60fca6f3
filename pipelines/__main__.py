"""Compile the pipelines, run them on this machine or on a cluster, and keep their schedules and images."""

import os
import sys
from pathlib import Path
from typing import Annotated

import typer
from kfp import compiler, local

from condswin.config.reading import load_config
from condswin.config.task import CardedTaskConfig
from condswin.errors import CondswinError
from condswin.plain import plain
from pipelines import building, cluster
from pipelines.catalogue import PIPELINES, Pipeline
from pipelines.common import Params, Settings, Tasks, chosen
from pipelines.evaluation import drift

app = typer.Typer(no_args_is_help=True, pretty_exceptions_enable=False, help=__doc__)
cluster.add_to(app)
building.add_to(app)
COMPILED = Path(__file__).parent / "compiled"


@app.command("compile")
def compile_all(
    params: Params = Path("params.yaml"),
    out: Annotated[Path, typer.Option(help="Folder for the YAML files.")] = COMPILED,
    with_code: Annotated[bool, typer.Option(help="Let each task refuse to run other code than this.")] = False,
    settings: Settings = None,
) -> None:
    """Write all pipelines for the parameters' tasks as YAML for a Kubeflow backend, and retraining for each alone.

    Examples:
    python -m pipelines compile
    python -m pipelines compile --with-code --out build/pipelines   # as submit does
    """
    config = load_config(params, settings or [])
    out.mkdir(parents=True, exist_ok=True)
    wanted = [(PIPELINES["retraining"], (task,)) for task in config.present if len(config.present) > 1]
    for make, tasks in [*((make, config.present) for make in PIPELINES.values()), *wanted]:
        if make is not drift or any(isinstance(config.task(task), CardedTaskConfig) for task in tasks):
            pipeline = make(config, tasks, with_code=with_code)
            compiler.Compiler().compile(pipeline, package_path=str(out / f"{pipeline.name}.yaml"))
            print(out / f"{pipeline.name}.yaml")


@app.command()
def run(
    local_: Annotated[bool, typer.Option("--local", help="In processes of this machine.")] = False,
    docker: Annotated[bool, typer.Option("--docker", help="In containers of this machine's Docker.")] = False,
    root: Annotated[Path, typer.Option(help="Folder for the outputs of all tasks.")] = Path("build/kubeflow"),
    pipeline: Pipeline = "retraining",
    task: Tasks = None,
    params: Params = Path("params.yaml"),
    settings: Settings = None,
) -> None:
    """Run a pipeline on this machine through kfp.local.

    Examples:
    python -m pipelines run --local --task reconstruction
    python -m pipelines run --local --pipeline batch-predict --task segmentation --set segmentation.source=scans
    """
    if local_ == docker:
        raise typer.BadParameter("give --local or --docker; to run on a cluster: python -m pipelines submit")
    root.mkdir(parents=True, exist_ok=True)
    if docker:
        # The host's network reaches an MLflow server on loopback. Outputs belong to whoever runs this; for root, tasks
        # run as the image's own user, for whom `root` must be writable. Of the rest they may write /tmp alone.
        user = {"user": f"{os.getuid()}:{os.getgid()}"} if os.getuid() else {}
        closed = {"read_only": True, "tmpfs": {"/tmp": "exec,mode=1777"}}
        runner: local.DockerRunner | local.SubprocessRunner = local.DockerRunner(network_mode="host", **closed, **user)
    else:
        runner = local.SubprocessRunner(use_venv=False)
    local.init(runner=runner, pipeline_root=str(root.resolve()), raise_on_error=True)
    config = load_config(params, settings or [])
    if given := os.environ.get("MLFLOW_TRACKING_URI"):
        config = config.model_copy(update={"tracking": config.tracking.model_copy(update={"uri": given})})
    try:
        # What fails here fails again: retries are for pods that vanish.
        PIPELINES[pipeline](config, chosen(config, task), retries=False)()
    except RuntimeError as error:
        raise CondswinError(f"{error}; the failed task's own message is above") from None


if __name__ == "__main__":
    try:
        app()
    except CondswinError as error:
        print("\n".join(map(plain, f"error: {error}".split("\n"))), file=sys.stderr)
        sys.exit(error.exit_status)
