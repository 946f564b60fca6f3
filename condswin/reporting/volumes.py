"""Volumes of a case inside a page."""

import base64
from typing import Any

from condswin.tasks.viewing import Volumes

#: Layers that are shown at first: image, target, one prediction.
_SHOWN = 3


def stack(volumes: Volumes) -> dict[str, Any]:
    """What the page's script shows, JSON-able."""
    return {
        "layers": [
            {
                "name": layer.name,
                "data": base64.b64encode(layer.nifti).decode(),
                "opacity": (0.5 if number < _SHOWN else 0) if layer.labels else 1,
                "labels": [
                    {"value": value, "name": name, "rgb": list(rgb)} for value, (name, rgb) in layer.labels.items()
                ],
            }
            for number, layer in enumerate(volumes.layers)
        ],
        "window": list(volumes.window),
        "unit": volumes.unit,
        "presets": {name: list(window) for name, window in volumes.presets.items()},
    }
