"""What MkDocs writes of the code itself, each time the site is built."""

import re

import typer
from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from typer.cli import get_docs_for_click

from condswin.cli import app

_COMMANDS, _TITLE = "reference/cli.md", "Options of every command"


def on_files(files: Files, *, config: MkDocsConfig) -> Files:
    """Adds the page of all commands and their options, as Typer describes them."""
    command = typer.main.get_command(app)
    text = get_docs_for_click(obj=command, ctx=typer.Context(command), name="condswin", title=_TITLE)
    # The list of commands beside the page has their whole names.
    text = re.sub(r"\*\*Commands\*\*:\n\n(\* .*\n)+\n", "", text)
    text = re.sub(r"^Example: (.+)$", r"Example: `\1`", text, flags=re.MULTILINE)
    files.append(File.generated(config, _COMMANDS, content=text))
    return files
