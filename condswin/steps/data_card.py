"""Step: the data card of an ingested reconstruction dataset, and its drift from a reference."""

from pathlib import Path
from typing import Any

from condswin.config.root import Config
from condswin.errors import BadFileError, DriftError
from condswin.files import read_json, write_json
from condswin.manifest import Manifest
from condswin.mri.card import STATISTICS, describe, drift, figures, noise_floor
from condswin.mri.config import ReconstructionConfig
from condswin.outputs import open_output
from condswin.reporting.figures import data_uri, png
from condswin.reporting.html import write_page

CARD = "card.json"
PAGE = "card.html"


def data_card(
    config: Config, *, ingested: Path, out: Path, reference: Path | None = None, overwrite: bool = False
) -> dict[str, Any]:
    """Describes an ingested dataset.

    Args:
        config: Parameters; `reconstruction.drift` says what is drift, and from what.
        ingested: Output of the ingest step.
        out: Folder for `card.json` and `card.html`, one file with all pictures.
        reference: `card.json` of the data that the model was trained on, to compare with; None for the parameters'.
        overwrite: Write into a folder that holds other files too.

    Returns:
        What `card.json` holds. With a reference, `drift` has `distances` by statistic, the `largest`, the `limit` (the
        threshold, or what chance does to so few volumes if that is more) and whether it is `exceeded`.

    Raises:
        BadDataError: One content is in two splits.
        BadFileError: A file or the reference cannot be read.
        OutputError: Writing to `out` would hurt something.
        DriftError: The data drifted; card and page are written.
    """
    manifest = Manifest.read(ingested, "reconstruction")
    manifest.verify(ingested)
    section = config.section(ReconstructionConfig)
    settings, multicoil = section.drift, section.ingest.multicoil
    if reference is None and settings.reference is not None:
        reference = Path(settings.reference)
    inputs = [ingested, manifest.root(ingested), *([reference] if reference else [])]
    output = open_output(out, step="data-card", inputs=inputs, overwrite=overwrite)
    card = describe(ingested, manifest, multicoil)
    if reference is not None:
        known = read_json(reference)
        if not isinstance(known, dict) or set(known.get("statistics", {})) != set(STATISTICS):
            raise BadFileError(reference, "not a data card; `condswin data-card` of the training data writes one")
        distances = drift(card, known)
        limit = max(settings.threshold, noise_floor(card["cases"], known["cases"]))
        largest = max(distances.values())
        card["drift"] = {"distances": distances, "largest": largest, "limit": limit, "exceeded": largest > limit}
    shown = figures(ingested, manifest, card, section.undersample, multicoil)
    output.claim([PAGE, CARD])
    write_page(
        out / PAGE,
        "card.html",
        card=card,
        drift=card.get("drift", {}).get("distances"),
        limit=card.get("drift", {}).get("limit"),
        figures={caption: data_uri(png(figure)) for caption, figure in shown.items()},
    )
    write_json(out / CARD, card)
    output.finish([PAGE, CARD])
    if reference is not None and card["drift"]["exceeded"]:
        raise DriftError(
            f"{ingested}: drifted by {card['drift']['largest']:.3f} from {reference}, limit "
            f"{card['drift']['limit']:.3f}; see {out / PAGE}",
            card,
        )
    return card
