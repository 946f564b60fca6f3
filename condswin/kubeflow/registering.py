"""Tasks around the registry."""

from pathlib import Path

from condswin.kubeflow.given import Artifact, read


def register(
    params: str,
    task: str,
    image: str,
    pipeline_run: str,
    source_md5: str,
    comparison: str,
    model: str,
    card: Artifact | None,
    registered: str,
) -> str:
    """Registers the best model, tagged with where it was made; returns its version."""
    from condswin.registry.cards import keep_card
    from condswin.steps.register import register as step

    config = read(params, task)
    record = step(
        config,
        task,
        comparison=Path(comparison),
        model=Path(model),
        out=Path(registered),
        image=image,
        pipeline_run=pipeline_run,
        source_md5=source_md5,
    )
    if card:
        keep_card(config, record["run_id"], Path(card.path))
    return str(record["version"])


def fetch(params: str, task: str, model: str, card: str) -> str:
    """Fetches the champion, and the card of its training data if there is one; returns the version's address."""
    from condswin.registry.aliases import CHAMPION
    from condswin.registry.cards import fetch_card
    from condswin.registry.package import exact_uri, fetch_network, model_name

    config = read(params, task)
    uri = exact_uri(f"models:/{model_name(task)}@{CHAMPION}", config)
    fetch_network(uri, config, Path(model))
    fetch_card(config, task, uri.rpartition("/")[2], Path(card))
    return uri


def promote(params: str, task: str, registered: str, prepared: str, baseline: str, decision: str, page: str) -> bool:
    """Runs the promotion protocol; returns whether the challenger is champion."""
    from condswin.reporting.markdown import decision_page
    from condswin.steps.promote import promote as step

    config = read(params, task)
    found = step(
        config,
        task,
        registered=Path(registered),
        prepared=Path(prepared),
        out=Path(decision),
        baseline=Path(baseline),
    )
    Path(page).write_text(decision_page(task, found.record))
    return found.champion
