"""What every command takes, how it answers and how it refuses."""

import contextlib
import io
import json
import logging
import re
import signal
import subprocess
import sys
import warnings
from pathlib import Path

import pytest
import typer

from condswin import __version__, progress
from condswin.cli import main, manners
from condswin.cli.registering import STATUS
from condswin.config.profiles import compose, profile_names, write_config
from condswin.errors import CondswinError
from tests.cli.commands import COMMANDS, examples

ROOT = Path(__file__).parents[2]
#: Modules that take seconds to import.
SLOW = ("torch", "mlflow", "monai", "lightning", "matplotlib", "h5py", "nibabel", "optuna", "scipy", "pandas")


def condswin(*arguments: str) -> tuple[int, str, str]:
    """Status, standard output and standard error of a command, run in this process."""
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err), pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", ["condswin", *arguments])
        with pytest.raises(SystemExit) as ended:
            main()
    return int(ended.value.code or 0), out.getvalue(), err.getvalue()


def test_every_command_takes_what_all_take() -> None:
    assert len(COMMANDS) > 30
    for name, command in COMMANDS.items():
        taken = {option for parameter in command.params for option in parameter.opts}
        assert {"--json", "-v", "--verbose", "-q", "--quiet", "--debug", "--version"} <= taken, name


def test_the_help_of_every_command_has_examples_that_the_command_understands() -> None:
    for name, command in COMMANDS.items():
        assert examples(name), name
        for words in examples(name):
            assert words[: len(name.split())] == name.split()
            command.make_context(name, words[len(name.split()) :])


IN_ONE_PROCESS = f"""
import contextlib, io, json, sys
from condswin.cli import main
for words in json.loads(sys.argv[1]):
    sys.argv = ["condswin", *words]
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        try:
            main()
        except SystemExit as ended:
            status = ended.code
    slow = [name for name in {SLOW!r} if name in sys.modules]
    print(json.dumps([words, status, out.getvalue(), err.getvalue(), slow]))
    if slow:
        break
"""


def in_one_process(commands: list[list[str]], folder: Path) -> list[tuple[list[str], int, str, str]]:
    """Runs commands that are to import nothing slow: arguments, status, standard output, standard error of each."""
    done = subprocess.run(
        [sys.executable, "-c", IN_ONE_PROCESS, json.dumps(commands)],
        cwd=folder, capture_output=True, text=True, check=True,
    )  # fmt: skip
    found = []
    for line in done.stdout.splitlines():
        words, status, out, err, slow = json.loads(line)
        assert not slow, (words, slow)
        found.append((words, status, out, err))
    assert len(found) == len(commands)
    return found


def test_help_and_mistakes_in_options_import_nothing_slow(tmp_path: Path) -> None:
    for words, status, out, _ in in_one_process([[*name.split(), "--help"] for name in COMMANDS], tmp_path):
        assert status == 0, words
        assert "Example" in out, words
    for words, status, out, err in in_one_process([[*name.split(), "--fast"] for name in COMMANDS], tmp_path):
        assert (status, out) == (2, ""), words
        assert err.startswith("error: no such option: --fast"), words
        assert err.endswith(f"; see condswin {' '.join(words[:-1])} --help\n"), words
        assert err.count("\n") == 1, words


def test_mistakes_in_parameters_are_found_before_anything_slow_is_imported(tmp_path: Path) -> None:
    values = (ROOT / "params.yaml").read_text()
    (tmp_path / "bad.yaml").write_text(values + "\nsed: 3\n")
    reading = {
        name: command for name, command in COMMANDS.items() if "params" in {each.name for each in command.params}
    }
    # What they do with a file that has mistakes: write another one, and say so as a finding.
    others = {"params use", "doctor"}
    assert {"train", "predict", "promote", "serve", "params show"} <= set(reading)
    commands = [[*examples(name)[0], "--params", "bad.yaml"] for name in reading if name not in others]
    commands = [words for words in commands if words[0] != "bench"] + [
        ["bench", "swin", "--train", "reconstruction", "--params", "bad.yaml"]
    ]
    for words, status, out, err in in_one_process(commands, tmp_path):
        assert (status, out) == (1, ""), words
        assert re.match("error: bad.yaml( with --set)?: sed: no such key; did you mean 'seed'?", err), words
        assert err.count("\n") == 1, words


def test_missing_inputs_are_found_before_anything_slow_is_imported(tmp_path: Path) -> None:
    write_config(compose(["demo", "tiny"]), tmp_path / "params.yaml", comment="")
    (tmp_path / "scan.h5").touch()
    missing = {
        "prepare reconstruction": "data/ingested/reconstruction/manifest.json",
        "undersample": "data/ingested/reconstruction/manifest.json",
        "prepare-ct": "data/ingested/segmentation/manifest.json",
        "data-card reconstruction": "data/ingested/reconstruction/manifest.json",
        "train reconstruction swin": "data/prepared/reconstruction/manifest.json",
        "pretrain segmentation swin": "data/prepared/segmentation/manifest.json",
        "tune segmentation swin": "data/prepared/segmentation/manifest.json",
        "ablate reconstruction": "data/prepared/reconstruction/manifest.json",
        "bench swin --train segmentation": "data/prepared/segmentation/manifest.json",
        "evaluate reconstruction swin": "models/reconstruction/swin",
        "evaluate reconstruction --model mine": "mine",
        "evaluate segmentation --targets right --predictions mine": "right",
        "baseline segmentation": "data/prepared/segmentation/manifest.json",
        "compare reconstruction": "evaluation/reconstruction/swin",
        "report": "comparison",
        "report mine": "mine",
        "summary": "comparison",
        "gallery scan.h5 --model mine --out out": "mine",
        "gallery other.h5 --out out": "other.h5",
        "register reconstruction": "comparison/reconstruction.json",
        "promote segmentation": "promotion/segmentation/registered.json",
        "predict scan.h5 --model mine --out out": "mine",
        "predict other.h5 --model models:/condswin-reconstruction@champion --out out": "other.h5",
        "shadow reconstruction other.h5": "other.h5",
        "export mine --out mine.pt2": "mine",
        "serve-manifest --check service.json": "service.json",
    }
    for words, status, out, err in in_one_process([words.split() for words in missing], tmp_path):
        assert (status, out) == (1, ""), words
        assert err.startswith(f"error: {missing[' '.join(words)]}: no "), (words, err)
        assert err.count("\n") == 1


@pytest.mark.parametrize("place", range(3))
def test_answers_are_lines_of_json_and_nothing_else_wherever_the_option_stands(place: int) -> None:
    words = ["params", "list"]
    words.insert(place, "--json")
    status, out, err = condswin(*words)
    assert (status, err) == (0, "")
    assert [json.loads(line)["name"] for line in out.splitlines()] == profile_names()
    # The next command in the same process answers in words.
    assert condswin("params", "list")[1].startswith("cluster  ")


def test_what_libraries_print_is_no_answer(workdir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def chatty(what: str, *, out: Path) -> list[Path]:
        print("a library's notice")
        return [out / "train.json"]

    monkeypatch.setattr("condswin.steps.code.code", chatty)
    assert condswin("code", "reconstruction", "--json") == (
        0,
        '{"outputs": ["code/reconstruction/train.json"]}\n',
        "a library's notice\n",
    )
    assert condswin("code", "reconstruction")[1] == "a library's notice\ncode/reconstruction/train.json\n"


def test_several_records_are_a_line_each_and_nan_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    app = typer.Typer()

    @manners.commands(app)()
    def two(value: float = 1.5) -> None:
        manners.answer([{"a": Path("x")}, {"b": value}], lambda: print("in words"))

    command = typer.main.get_command(app)
    command(["--json"], standalone_mode=False)
    assert capsys.readouterr().out == '{"a": "x"}\n{"b": 1.5}\n'
    command([], standalone_mode=False)
    assert capsys.readouterr().out == "in words\n"
    with pytest.raises(ValueError, match="not JSON compliant"):
        command(["--json", "--value", "nan"], standalone_mode=False)
    # Nothing is left of the command that failed.
    command([], standalone_mode=False)
    assert capsys.readouterr().out.endswith("in words\n")


def test_errors_stay_a_line_on_standard_error_beside_json(workdir: Path) -> None:
    status, out, err = condswin("train", "reconstruction", "swin", "--json")
    assert (status, out) == (1, "")
    assert err == "error: params.yaml: no such file; `condswin params use demo` writes one\n"


@pytest.fixture
def loud(monkeypatch: pytest.MonkeyPatch, workdir: Path) -> None:
    """`condswin code` warns, logs, shows progress and says a note."""
    monkeypatch.setattr(progress, "LOG_EVERY", 0.0)

    def code(what: str, *, out: Path) -> list[Path]:
        warnings.warn("numpy will rename it", DeprecationWarning, stacklevel=2)
        logging.getLogger("a.library").info("a table was made")
        for _ in progress.track("ab", "train", total=2):
            pass
        progress.say("a note")
        return []

    monkeypatch.setattr("condswin.steps.code.code", code)


@pytest.mark.usefixtures("loud")
def test_by_default_commands_are_calm_and_verbose_ones_tell_what_a_maintainer_asks() -> None:
    _, _, calm = condswin("code", "report")
    assert [line.split(" [")[0] for line in calm.splitlines()] == ["train", "train", "a note"]
    _, _, verbose = condswin("code", "report", "-v")
    for said in (
        f"condswin {__version__}, {ROOT / 'condswin'}",
        sys.executable,
        f"condswin code in {Path.cwd()}",
        "numpy will rename it",
        "INFO a.library: a table was made",
        "a note",
    ):
        assert said in verbose
    assert re.search(r"condswin code took \d\.\d s", verbose)
    # One command's wish is not the next one's.
    assert condswin("code", "report")[2] == calm


@pytest.mark.usefixtures("loud")
@pytest.mark.parametrize("words", [["-q", "code", "report"], ["code", "report", "--quiet"]])
def test_quiet_commands_show_no_progress(words: list[str]) -> None:
    assert condswin(*words)[2] == "a note\n"
    assert "train [" in condswin("code", "report")[2]


def test_the_version_is_said_before_and_after_a_command() -> None:
    for words in (["--version"], ["train", "--version"], ["params", "list", "--version"]):
        assert condswin(*words) == (0, f"condswin {__version__}\n", "")


def test_a_group_alone_shows_its_help_and_counts_as_a_mistake() -> None:
    for words in ([], ["params"]):
        status, out, err = condswin(*words)
        assert (status, err) == (2, "")
        assert "Usage: condswin" in out


def test_statuses_are_those_that_the_page_lists(monkeypatch: pytest.MonkeyPatch) -> None:
    page = (ROOT / "docs/reference/commands.md").read_text()
    listed = {int(number) for number in re.findall(r"^\| (\d+) \|", page, re.MULTILINE)}
    kinds = [CondswinError, *CondswinError.__subclasses__()]
    for kind in kinds:
        kinds += [each for each in kind.__subclasses__() if each not in kinds]

    def interrupted() -> list[str]:
        raise KeyboardInterrupt

    monkeypatch.setattr("condswin.cli.project.profile_names", interrupted)
    assert condswin("params", "list") == (130, "", "")
    assert condswin("params", "lst")[0] == 2
    assert listed == {0, 2, 128 + signal.SIGINT, 128 + signal.SIGTERM} | {kind.exit_status for kind in kinds} | set(
        STATUS.values()
    )


def test_an_unforeseen_error_is_one_line_and_a_traceback_only_on_demand(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(manners.DEBUG, raising=False)

    def broken() -> list[str]:
        raise RuntimeError("first line\nsecond line")

    monkeypatch.setattr("condswin.cli.project.profile_names", broken)
    status, _, err = condswin("params", "list")
    said = "error: RuntimeError: first line; condswin did not foresee this: CONDSWIN_DEBUG=1 shows where\n"
    assert (status, err) == (1, said)
    monkeypatch.setenv(manners.DEBUG, "")  # undone after the test, whatever --debug sets
    status, _, err = condswin("params", "list", "--debug")
    assert status == 1
    assert err.startswith("Traceback")
    assert err.endswith(said)
