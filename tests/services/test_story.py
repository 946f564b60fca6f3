"""The story of a champion, told by commands against MLflow on PostgreSQL and S3.

`CONDSWIN_STORY=docs pytest -m services tests/services/test_story.py` writes docs/explanation/story.md and its pictures.
"""

import json
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import torch

from condswin.files import read_json
from condswin.registry.tracking import connect
from tests.cli.calling import condswin
from tests.registry.toy import make_config
from tests.services.conftest import Bucket, MlflowServer

pytest_plugins = ["tests.registry.fixtures"]
pytestmark = pytest.mark.services

TASK = "reconstruction"
NETWORK = (
    "{network: unrolled-swin, "
    "overrides: {cascades: 2, embedding: 8, heads: [2, 2], stem_channels: 8, hard_consistency: true}}"
)
#: Epochs of the better training.
LONGER = 25
RULES = (
    "[{metric: psnr, superior_to: zero-filled}, {metric: psnr, superior_to: champion}, "
    "{metric: ssim, not_inferior_to: champion, margin: 0.01}]"
)
#: Everything small.
SETTINGS = (
    "segmentation=null",
    f"{TASK}.demo={{train_volumes: 24, test_volumes: 36, slices: 2, size: 32}}",
    f"{TASK}.variants={{small: {NETWORK}}}",
    f"{TASK}.train.batch_size=8",
    f"{TASK}.train.schedule.warmup_steps=5",
    f"{TASK}.predict.fallback=none",
    f"{TASK}.gate={{patients: 12, note: '', rules: {RULES}}}",
)
#: Where the page goes, if anywhere.
PAGE = os.environ.get("CONDSWIN_STORY", "")

HEAD = """# The story of a champion

A network is trained, promoted, and trained again: worse, better, and equal. Then it is rolled back and frozen. The
commands ran against an MLflow server on PostgreSQL whose artifacts lie in S3, on generated data. One command runs them
as a test, and writes this page with its pictures:

```sh
CONDSWIN_STORY=docs pytest -m services tests/services/test_story.py
```

Network and volumes are as small as can be, the gate asks for less than the defaults do, and compressed sensing does not
stand in where the network fails (`predict.fallback`). So the page shows what the gate answers, and nothing about
networks. **The trainings were chosen for their answers**: one hardly moves the weights,
one is 25 times as long as the first. Of each answer that hangs on a figure the test demands a quarter of the interval's
width to spare, so that none is a processor's rounding.

```
{set_up}
```

`MLFLOW_TRACKING_URI` is set to the server's address. Of each group of commands, the last one's output is shown.
"""


class Training(NamedTuple):
    """A chapter in which a network is trained and judged.

    Attributes:
        title: Heading.
        text: What happens.
        settings: Of the training.
        gate: Of the gate.
        outcome: What the gate answers.
        picture: Name of the picture of the decision.
    """

    title: str
    text: str
    settings: tuple[str, ...]
    gate: tuple[str, ...]
    outcome: str
    picture: str


TRAININGS = (
    Training(
        "Train and promote",
        "There is no champion yet. The network must be better than the zero-filled image.",
        (f"{TASK}.train.epochs=1",),
        (),
        "promoted",
        "",
    ),
    Training(
        "Retrain worse: refused",
        "Somebody mistypes the learning rate, and the network hardly learns. The whole interval of the gain over the\n"
        "champion lies below zero. The answer names the rule, says by how much it is missed, and on which cases most.",
        (f"{TASK}.train.epochs=1", f"{TASK}.train.learning_rate=0.000001"),
        (),
        "refused",
        "story-refused.png",
    ),
    Training(
        "Retrain better: promoted",
        "A longer training pays.",
        (f"{TASK}.train.epochs={LONGER}",),
        (),
        "promoted",
        "story-promoted.png",
    ),
    Training(
        "Retrain equal: not enough cases",
        "The same training with another seed. Before it replaces a champion by its equal, the team asks for 60\n"
        "patients. There are fewer, so the answer is *undecided*, whatever the interval says, and the champion stays.",
        (f"{TASK}.train.epochs={LONGER}", "seed=2"),
        (f"{TASK}.gate.patients=60",),
        "undecided",
        "story-undecided.png",
    ),
)


@pytest.fixture
def server(
    mlflow_server: MlflowServer, clean_environment: None, monkeypatch: pytest.MonkeyPatch
) -> Iterator[MlflowServer]:
    """A client without any key for the bucket."""
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_ENDPOINT_URL", "MLFLOW_S3_ENDPOINT_URL"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", mlflow_server.uri)
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    torch.set_num_threads(1)
    yield mlflow_server
    client = connect(make_config(mlflow_server.uri))
    for model in client.search_registered_models():
        client.delete_registered_model(model.name)


class Page:
    """What is done, and what is told of it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.parts, self.pictures = list[str](), dict[str, bytes]()

    def write(self, text: str) -> None:
        self.parts.append(text)

    def run(self, *commands: tuple[str, ...]) -> str:
        """Runs commands; all are shown, and what the last one printed."""
        said = [condswin(*command, cwd=self.folder) for command in commands]
        shown = "\n".join(f"$ {_spoken(command)}" for command in commands)
        self.parts.append(f"```\n{shown}\n{said[-1].rstrip()}\n```\n")
        return said[-1]

    def show(self, picture: str, said: str) -> None:
        if picture in self.pictures:
            self.parts.append(f"![{said}](../pictures/{picture})\n")

    def save(self, docs: Path) -> None:
        for folder in ("explanation", "pictures"):
            (docs / folder).mkdir(exist_ok=True)
        (docs / "explanation" / "story.md").write_text("\n".join(self.parts))
        for name, content in self.pictures.items():
            (docs / "pictures" / name).write_bytes(content)


def test_the_story_of_a_champion(server: MlflowServer, s3: Bucket, tmp_path: Path) -> None:
    page = Page(tmp_path / "work")
    page.folder.mkdir()
    set_up = [
        ("params", "use", "demo", *_given(SETTINGS)), ("demo-data", TASK), ("ingest", TASK), ("undersample",)
    ]  # fmt: skip
    for command in set_up:
        condswin(*command, cwd=page.folder)
    page.write(HEAD.replace("{set_up}", "\n".join(map(_spoken, set_up))))
    with _browser() as browser:
        records = []
        for training in TRAININGS:
            page.write(f"## {training.title}\n\n{training.text}\n")
            records.append(_train(page, training))
            assert records[-1]["outcome"] == training.outcome, records[-1]["reasons"]
            if PAGE and browser and training.picture:
                condswin("report", cwd=page.folder)
                page.pictures[training.picture] = _decision(browser, page.folder / "report" / "report.html")
            page.show(training.picture, f"The report's table of rules: {training.outcome}")
        first, worse, better, equal = records
        assert (first["champion"], better["champion"], better["previous"], equal["champion"]) == ("1", "3", "1", "3")
        # None is a rounding: the interval is a quarter of its width and more beyond what is needed.
        assert _spare(first, "psnr superior to zero-filled") > 0.25
        assert _spare(worse, "psnr superior to champion") < -0.25
        assert _spare(better, "psnr superior to champion") > 0.25
        assert [rule for rule in worse["rules"] if rule["outcome"] == "broken" and len(rule["worst"]) == 3]
        # This one depends on no figure at all.
        assert equal["reasons"][0].endswith(" patients are in the test set, and fewer than 60 decide nothing")

        page.write("## Roll back\n\nThe second command changes nothing.\n")
        assert page.run(("rollback", TASK)) == "champion is version 1 again\n"
        again = page.run(("rollback", TASK))
        assert again.startswith("nothing to do, champion is version 1 since version 3 was rolled back")

        page.write("## Freeze\n\nUntil it is lifted, nothing moves the champion.\n")
        person = ("--by", "J. Doe", "--why", "audit until Friday")
        page.run(("freeze", TASK, *person))
        frozen = page.run(("promote", TASK))
        assert "held: version 4 is not promoted, version 1 stays champion" in frozen
        assert "by J. Doe: audit until Friday" in frozen

        page.write("## What is known afterwards\n")
        page.run(("history", TASK))
        told = [json.loads(line) for line in condswin("history", TASK, "--json", cwd=page.folder).splitlines()]
        assert [(event["version"], event["event"]) for event in told if event["event"] != "registered"] == [
            ("1", "promoted"), ("2", "refused"), ("3", "promoted"), ("4", "undecided"), ("3", "rolled back"),
            ("", "frozen"),
        ]  # fmt: skip

    page.save(Path(PAGE) if PAGE else tmp_path)
    assert server.database.startswith("postgresql")
    stored = [key for key in s3.keys() if key.endswith("artifacts/model/model.safetensors")]  # noqa: SIM118
    assert len(stored) >= len(TRAININGS)
    assert all(len(picture) < 150_000 for picture in page.pictures.values())


def _train(page: Page, training: Training) -> dict[str, Any]:
    page.run(
        ("train", TASK, "small", *_given(training.settings)),
        ("evaluate", TASK, "small"),
        ("compare", TASK),
        ("register", TASK),
        ("promote", TASK, *_given(training.gate)),
    )
    record: dict[str, Any] = read_json(page.folder / "promotion" / TASK / "promoted.json")
    return record


def _spare(record: dict[str, Any], rule: str) -> float:
    """Distance of the nearer bound from what a rule needs, in widths of the interval; negative where it is missed."""
    (found,) = (each for each in record["rules"] if each["rule"] == rule)
    low, high = found["low"] - found["needed"], found["high"] - found["needed"]
    return float((low if low > 0 else min(high, 0.0)) / (high - low))


def _given(settings: tuple[str, ...]) -> tuple[str, ...]:
    return tuple(part for setting in settings for part in ("--set", setting))


def _spoken(command: tuple[str, ...]) -> str:
    """A command as one types it, its settings on lines of their own if they are many."""
    typed = " ".join(["condswin", *(f'"{part}"' if " " in part else part for part in command)])
    return typed.replace(" --set ", " \\\n  --set ") if command.count("--set") > 2 else typed


@contextmanager
def _browser() -> Iterator[Any]:
    """Chromium, if it is there."""
    chromium = shutil.which("chromium")
    if chromium is None:
        yield None
        return
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        yield playwright.chromium.launch(executable_path=chromium)


def _decision(browser: Any, report: Path) -> bytes:
    """The report's table of the gate's rules."""
    with browser.new_context(viewport={"width": 1200, "height": 900}) as context:
        opened = context.new_page()
        opened.goto(report.as_uri())
        opened.evaluate("document.querySelectorAll('details').forEach(each => { each.open = true; })")
        table = opened.locator("table", has=opened.get_by_text("The gate:")).first
        picture: bytes = table.screenshot()
        return picture
