"""The models of Kubeflow Trainer's SDK, which drop what they do not know: what they would drop, or refuse, is said."""

from collections.abc import Iterator
from typing import Any

from kubeflow_trainer_api import models
from pydantic import ValidationError


def problems_of(kind: str, value: dict[str, Any]) -> Iterator[str]:
    """What of a manifest does not come back equal from the SDK's model of its kind."""
    try:
        back = getattr(models, f"TrainerV1alpha1{kind}").from_dict(value).to_dict()
    except ValidationError as error:
        yield from (f"{'.'.join(map(str, each['loc']))}: {each['msg']}" for each in error.errors())
        return
    yield from _differences(value, back, kind)


def _differences(given: Any, back: Any, place: str) -> Iterator[str]:
    if isinstance(given, dict) and isinstance(back, dict):
        for key in given.keys() | back.keys():
            if key not in back:
                yield f"{place}.{key}: no such key"
            elif key not in given:
                yield f"{place}.{key}: was added"
            else:
                yield from _differences(given[key], back[key], f"{place}.{key}")
    elif isinstance(given, list) and isinstance(back, list) and len(given) == len(back):
        for number, (one, other) in enumerate(zip(given, back, strict=True)):
            yield from _differences(one, other, f"{place}[{number}]")
    elif given != back:
        yield f"{place}: {given!r} came back as {back!r}"
