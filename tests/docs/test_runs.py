"""The appendix can be made anew, section by section."""

import re
from pathlib import Path

import pytest

from condswin.config.study import load_study
from tests.docs.runs import PAGE, main, sections, title

TWO = """# Runs

## One

Of an idle machine.

```sh
echo a notice; printf '| a |\\n|---|\\n| 2 |\\n\\nOver 1 seeds.\\n'
```

| a |
|---|
| 1 |

**Then**, in the same folder:

```sh
touch x && printf '| b |\\n' && ls
```

old

## Other

```sh
false
```

| kept |
"""


def test_a_section_s_tables_are_what_its_commands_print(tmp_path: Path) -> None:
    page = tmp_path / "runs.md"
    page.write_text(TWO)
    main(page, ["One"], tmp_path / "folder")
    made = page.read_text()
    assert "```\n\n| a |\n|---|\n| 2 |\n\nOver 1 seeds.\n\n**Then**, in the same folder:\n\n```sh\ntouch x" in made
    assert re.search(r"```\n\n\| b \|\n(models\n)?x\n\n## Other\n", made)
    assert made.endswith("| kept |\n")


def test_a_section_that_is_not_there_is_named(tmp_path: Path) -> None:
    page = tmp_path / "runs.md"
    page.write_text(TWO)
    with pytest.raises(SystemExit, match="has no section Three"):
        main(page, ["Three"], tmp_path)


def test_every_run_has_its_commands() -> None:
    for section in sections(PAGE.read_text())[1:]:
        assert "```sh\n" in section, title(section)
        # Sections that train are run in an empty folder.
        assert "condswin ablate" not in section or "condswin demo-data" in section, title(section)
        assert re.search(r"^```\n\n(\||```)", section, re.MULTILINE), f"{title(section)}: nothing printed"


def test_rows_of_a_study_s_tables_are_its_networks() -> None:
    page = PAGE.read_text()
    runs = re.findall(r"ablate (\w+) --study (\S+)(.*?)(?=^```sh|^## |\Z)", page, re.DOTALL | re.MULTILINE)
    assert len(runs) > 10
    for task, study, printed in runs:
        tables = re.findall(r"^\| (?:network|against .*?) \|.*\n\|.*\n((?:\|.*\n)+)", printed, re.MULTILINE)
        rows = {row.split(" | ")[0].removeprefix("| ") for table in tables for row in table.splitlines()}
        assert rows <= set(load_study(study, task).variants), study
