"""All findings together."""

from collections.abc import Iterator
from pathlib import Path

from condswin.config.reading import load_config
from condswin.doctor import machine, servers
from condswin.doctor.finding import Finding
from condswin.errors import CondswinError


def examine(params: Path, settings: list[str]) -> Iterator[Finding]:
    """Looks at everything, in an order to mend it in; changes nothing.

    Args:
        params: Parameters file; without good ones, what they decide is left out.
        settings: Values that replace the file's.

    Yields:
        A finding for each thing, as soon as it was looked at.
    """
    yield machine.python()
    yield from machine.packages()
    yield machine.patient_key()
    yield from machine.room()
    try:
        config = load_config(params, settings)
    except CondswinError as error:
        for line in str(error).splitlines():
            yield Finding("parameters", "failed", line, f"edit {params}, or write it: condswin params use demo")
        return
    yield Finding("parameters", "ok", f"{params}: {' and '.join(config.present)}")
    yield machine.gpu(config)
    yield machine.shared_memory(config)
    yield from servers.tracking(config)
    yield from servers.s3(config)
    yield from servers.kubeflow()
