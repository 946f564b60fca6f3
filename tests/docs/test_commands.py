"""Commands of README and docs exist, with the arguments and options that they are shown with."""

import re
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import typer

from condswin.cli import app
from condswin.config.profiles import compose
from condswin.config.study import load_study
from pipelines.__main__ import app as pipelines_app
from tests.docs.blocks import PAGES, ROOT, blocks, commands, name_of

TARGETS = set(re.findall(r"^([\w./-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE)) | {".venv/installed"}


@cache
def program(name: str) -> Any:
    return typer.main.get_command({"condswin": app, "pipelines": pipelines_app}[name])


def parse(name: str, arguments: list[str]) -> dict[str, Any]:
    """Parses as the command line would, down to the command, which is not called; a mistake in it is an exception."""
    command, context = program(name), None
    while True:
        context = command.make_context(command.name or name, arguments, parent=context)
        if not hasattr(command, "resolve_command"):
            return dict(context.params)
        _, command, arguments = command.resolve_command(context, context._protected_args + context.args)


def check(command: list[str]) -> None:
    match command:
        case ["condswin", *arguments]:
            given = parse("condswin", arguments)
            if arguments[:2] == ["params", "use"]:
                compose(given["profiles"], given["settings"] or [])
            if study := given.get("study"):
                load_study(study, given["task"])
        case ["python", "-m", "pipelines", *arguments]:
            parse("pipelines", arguments)
        case ["python", "-m", module, *_]:
            assert (ROOT / f"{module.replace('.', '/')}.py").exists(), module
        case ["make", *arguments]:
            targets = [argument for argument in arguments if "=" not in argument and not argument.startswith("-")]
            assert set(targets) <= TARGETS, targets


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_blocks_of_commands(page: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KFP_HOST", "http://localhost")
    for block in blocks(page):
        for command in commands(block, tmp_path):
            if "denoising" in command:  # the example of a task; tests/third_task runs these
                continue
            try:
                check(command)
            except Exception as error:
                pytest.fail(f"{name_of(page)}: {' '.join(command)}: {type(error).__name__} {error}")


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_commands_in_sentences(page: Path) -> None:
    """Shown with words that stand for others, so only names of commands and options are looked at."""
    text = re.sub(r"^```.*?^```$", "", page.read_text(), flags=re.DOTALL | re.MULTILINE)
    for name, rest in re.findall(r"`(condswin|python -m pipelines|make) ([^`]*)`", text):
        words = rest.split()
        if name == "make":
            assert {word for word in words if re.fullmatch(r"[a-z.-]+", word)} <= TARGETS, rest
            continue
        command = program(name.split()[-1])
        while hasattr(command, "commands") and words and re.fullmatch("[a-z][a-z-]*", words[0]):
            assert words[0] in command.commands, f"{name_of(page)}: {name} {rest}"
            command = command.commands[words.pop(0)]
        known = {option for parameter in command.params for option in parameter.opts} | {"--help"}
        if not hasattr(command, "commands"):
            asked = {word.partition("=")[0] for word in words if word.startswith("--")}
            assert asked <= known, f"{name_of(page)}: {name} {rest}: {asked - known}"


@pytest.mark.parametrize(
    "wrong",
    [
        "condswin trane reconstruction swin",
        "condswin train reconstruction",
        "condswin train reconstruction swin --epochs 3",
        "condswin train reconstructoin swin",
        "condswin params use demo --set reconstruction.train.epoch=3",
        "condswin params use demmo",
        "condswin ablate reconstruction --study rooting",
        "python -m pipelines submitt",
        "python -m tests.mri.benches",
        "make docks",
        "for task in reconstruction other; do condswin ingest $task; done",
    ],
)
def test_a_mistake_is_found(wrong: str, tmp_path: Path) -> None:
    command = list(commands(wrong, tmp_path))[-1]
    with pytest.raises(Exception):  # noqa: B017, PT011 (each parser has its own)
        check(command)


def test_a_shell_s_own_words_are_resolved(tmp_path: Path) -> None:
    block = """
    A=1 condswin one \\
      --set 'a={b: 1}'   # not this
    for n in 1 2; do .venv/bin/condswin two-$n; done && (condswin three) | tee x
    """
    assert sorted(commands(block, tmp_path)) == [
        ["condswin", "one", "--set", "a={b: 1}"],
        ["condswin", "three"],
        ["condswin", "two-1"],
        ["condswin", "two-2"],
        ["tee", "x"],
    ]


def test_python_examples_run() -> None:
    for page in PAGES:
        for block in blocks(page, "python"):
            exec(compile(block, name_of(page), "exec"), {})
