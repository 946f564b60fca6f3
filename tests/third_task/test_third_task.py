"""A third task that condswin knows nothing of goes from demo data to a champion, through the real command line."""

import json
import os
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import numpy as np
import pytest
import yaml
from mlflow import MlflowClient

pytestmark = pytest.mark.pipeline

ROOT = Path(__file__).parents[2]
HERE = Path(__file__).parent

MAIN = "from condswin.cli import main; main()"
#: Runs commands, one after another, in one process that has torch loaded; prints what each of them prints, as JSON.
SCRIPT = """
import contextlib, io, json, sys
from condswin.cli import main
printed = []
for arguments in json.loads(sys.argv[1]):
    sys.argv = ["condswin", *arguments]
    with contextlib.redirect_stdout(io.StringIO()) as out:
        try:
            main()
        except SystemExit as ended:
            assert not ended.code, (arguments, ended.code)
    printed.append(out.getvalue())
print("PRINTED", json.dumps(printed))
"""


def install(site: Path) -> Path:
    """What pip leaves of the package next door: the package, and the entry points of its pyproject.toml."""
    shutil.copytree(HERE / "denoising", site / "denoising", ignore=shutil.ignore_patterns("__pycache__"))
    declare(site, tomllib.loads((HERE / "pyproject.toml").read_text())["project"]["entry-points"]["condswin.tasks"])
    return site


def declare(site: Path, packages: dict[str, str]) -> None:
    metadata = site / "condswin_denoising-1.0.dist-info"
    metadata.mkdir(parents=True)
    lines = [f"{name} = {package}\n" for name, package in packages.items()]
    (metadata / "entry_points.txt").write_text("".join(["[condswin.tasks]\n", *lines]))


def run(site: Path, cwd: Path, *command: str, code: int = 0) -> str:
    """Runs Python with an installed task; returns its standard output, or its standard error where it should fail."""
    environment = {**os.environ, "PYTHONPATH": f"{site}{os.pathsep}{ROOT}", "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, *command], cwd=cwd, capture_output=True, text=True, env=environment, check=False
    )
    assert done.returncode == code, done.stdout + done.stderr
    return done.stderr if code else done.stdout


def condswin(site: Path, cwd: Path, *commands: str) -> list[str]:
    printed: list[str] = json.loads(
        run(site, cwd, "-c", SCRIPT, json.dumps([command.split() for command in commands])).rpartition("PRINTED ")[2]
    )
    return printed


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return install(tmp_path_factory.mktemp("site"))


@pytest.fixture(scope="module")
def work(site: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[str]]:
    """A working folder in which the task went from demo data to a champion, and what was printed on the way."""
    folder = tmp_path_factory.mktemp("work")
    networks = [
        f"{step} denoising {variant}" for variant in ("swin", "conditional-light") for step in ("train", "evaluate")
    ]
    printed = condswin(
        site,
        folder,
        "params use denoising",
        "demo-data denoising",
        "ingest denoising",
        "prepare denoising",
        *networks,
        "compare denoising",
        "register denoising",
        "promote denoising",
        "report",
        "summary",
    )
    return folder, printed


def test_it_goes_from_demo_data_to_a_champion(work: tuple[Path, list[str]]) -> None:
    folder, printed = work
    *_, compared, registered, promoted, report, summary = printed
    assert "best on val by psnr" in compared
    assert registered == "condswin-denoising version 1\n"
    assert "promoted: version 1 is champion" in promoted
    assert "psnr superior to noisy by more than 1: gain +" in promoted
    assert "noisy" in summary
    uri = f"sqlite:///{folder}/mlflow.db"
    registry = MlflowClient(tracking_uri=uri, registry_uri=uri)
    assert int(registry.get_model_version_by_alias("condswin-denoising", "champion").version) == 1
    decision = json.loads((folder / "promotion/denoising/promoted.json").read_text())
    assert decision["rules"][1]["low"] > 1
    assert "data:image/png;base64," in (folder / report.strip()).read_text()


def test_its_champion_is_used_on_anybodys_files(site: Path, work: tuple[Path, list[str]], tmp_path: Path) -> None:
    folder, _ = work
    best = json.loads((folder / "comparison/denoising.json").read_text())["best"]
    noisy = sorted((folder / "data/prepared/denoising/test").glob("*-noisy.npy"))[0]
    out = tmp_path / "out"
    condswin(site, folder, f"predict --model models:/condswin-denoising@champion --out {out} {noisy}")
    (written,) = out.glob("*.npy")
    case = noisy.stem.removesuffix("-noisy")
    scored = folder / "evaluation/denoising" / best / "predictions/test" / f"{case}.npy"
    np.testing.assert_allclose(np.load(written), np.load(scored), rtol=1e-4, atol=1e-5)


def test_its_code_decides_what_is_done_again(work: tuple[Path, list[str]], tmp_path: Path) -> None:
    folder, _ = work
    site, manifest = install(tmp_path / "site"), folder / "data/prepared/denoising/manifest.json"

    def edit_and_prepare(module: str) -> bool:
        before = manifest.stat().st_mtime_ns
        with (site / "denoising" / module).open("a") as file:
            file.write("# edited\n")
        condswin(site, folder, "prepare denoising")
        return manifest.stat().st_mtime_ns != before

    # The same code in another folder; then code that preparing does not run, and code that it does.
    assert "nothing to do" in condswin(site, folder, "train denoising swin")[0]
    assert not edit_and_prepare("learning.py")
    assert edit_and_prepare("images.py")

    code = json.loads((folder / "models/denoising/swin/.condswin.json").read_text())["key"]["code"]
    assert {"denoising/learning.py", "denoising/images.py", "condswin/networks/unet.py"} <= set(code)
    assert not {"denoising/pictures.py", "denoising/generation.py"} & set(code)


def test_kubeflow_has_a_pipeline_of_it(site: Path, work: tuple[Path, list[str]], tmp_path: Path) -> None:
    folder, _ = work
    run(site, tmp_path, "-m", "pipelines", "compile", "--params", str(folder / "params.yaml"), "--out", str(tmp_path))
    assert {path.name for path in tmp_path.glob("*.yaml")} == {
        *("denoising.yaml", "evaluation.yaml", "batch-predict.yaml", "search.yaml")
    }
    spec, *_ = yaml.safe_load_all((tmp_path / "denoising.yaml").read_text())
    names = {task["taskInfo"]["name"] for task in spec["root"]["dag"]["tasks"].values()}
    assert {"train denoising swin", "evaluate denoising conditional-light"} <= names
    assert not [name for name in names if "data-card" in name]


def test_parameters_are_known_and_those_of_the_other_tasks_stay_as_they_are(site: Path, tmp_path: Path) -> None:
    shutil.copy(ROOT / "params.yaml", tmp_path)
    shown, profiles = condswin(site, tmp_path, "params show", "params list")
    assert set(json.loads(shown)["tasks"]) == {"reconstruction", "segmentation"}
    assert "Denoising of generated images" in profiles
    wrong = run(site, tmp_path, "-c", MAIN, "params", "show", "--set", "denoising.noise.sigma=1", code=1)
    assert "denoising is not in the parameters" in wrong
    (tmp_path / "third.yaml").write_text("denoising: {variants: {swin: {}}, nois: {sigma: 0.1}}")
    wrong = run(site, tmp_path, "-c", MAIN, "params", "show", "--params", "third.yaml", code=1)
    assert "denoising.nois: no such key; did you mean 'noise'?" in wrong


@pytest.mark.parametrize(
    ("declared", "message"),
    [
        ({"denoising": "gone"}, "error: task denoising: gone.config: No module named 'gone'; repair the package"),
        ({"denoise": "denoising"}, "error: task denoise: denoising has a section 'denoising'"),
        ({"denoising": "condswin"}, "error: task denoising: condswin.config: "),
    ],
)
def test_a_package_that_cannot_be_used_is_named_in_one_line(
    tmp_path: Path, declared: dict[str, str], message: str
) -> None:
    site = install(tmp_path / "site")
    shutil.rmtree(site / "condswin_denoising-1.0.dist-info")
    declare(site, declared)
    shutil.copy(ROOT / "params.yaml", tmp_path)
    error = run(site, tmp_path, "-c", MAIN, "params", "show", code=1)
    assert error.startswith(message)
    assert error.count("\n") == 1


def test_our_own_tasks_stay_ours(tmp_path: Path) -> None:
    declare(tmp_path / "site", {"reconstruction": "gone"})
    run(tmp_path / "site", ROOT, "-c", MAIN, "params", "show")


def test_condswin_knows_nothing_of_it() -> None:
    sources = [path for path in (ROOT / "condswin").rglob("*") if path.suffix in (".py", ".yaml", ".html")]
    assert not [path for path in sources if "denoising" in path.read_text()]
