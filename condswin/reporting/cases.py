"""Cases as rows of pictures of a page, the worst first, as many as the page has room for."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

from markupsafe import Markup

from condswin.reporting.figures import colour_bar, pixels_uri, svg
from condswin.tasks.facts import Facts
from condswin.tasks.pictures import CasePanels, Panel

#: Cases that are shown.
CASES = 6
#: Characters of all pictures of a task's cases.
ROOM = 3_000_000


@dataclass(frozen=True)
class Picture:
    """One way to look at a case.

    Attributes:
        name: What is seen.
        alt: The same in words for those who do not see it.
        uris: Addresses of its slices.
        error: It shows errors.
    """

    name: str
    alt: str
    uris: list[str]
    error: bool

    def others(self, shown: int) -> list[str | None]:
        """The addresses with None for the slice that is shown."""
        return [None if place == shown else uri for place, uri in enumerate(self.uris)]


@dataclass(frozen=True)
class ShownCase:
    """A case of a page.

    Attributes:
        name: Its name.
        about: What is known of it.
        places: Which slices.
        total: Slices of the case.
        pictures: Each with all slices.
        start: Number of the slice that tells most.
        compared: Numbers of the two pictures that are laid over each other at first.
        bars: What grey levels and colours mean.
        legend: How to read outlines.
        whole: Pictures of the whole case.
        whole_legend: How to read these.
    """

    name: str
    about: str
    places: list[str]
    total: int
    pictures: list[Picture]
    start: int
    compared: tuple[int, int]
    bars: list[Markup]
    legend: str
    whole: list[Picture]
    whole_legend: str


def caption(row: Mapping[str, str], facts: Facts, metric: str) -> str:
    """What is known of a case, for its caption."""
    known = {
        facts.called(name): (row[name], facts.units.get(name, "")) for name in (*facts.traits, metric) if name in row
    }
    return ", ".join(f"{name} {text} {unit}".strip() for name, (text, unit) in known.items())


def shown_cases(
    cases: Iterable[tuple[str, str]], panels: Callable[[str], CasePanels], best: str, room: int = ROOM
) -> list[ShownCase]:
    """Draws cases until the room is used up; then further slices of those drawn, as long as room is left.

    Args:
        cases: Names and what is known of them, in order.
        panels: Gives a case's pictures.
        best: The method that is compared with the target at first.
        room: Characters of all pictures; the first slice of the first case is drawn in any case.
    """
    drawn: list[tuple[str, str, CasePanels, list[list[str]], list[str]]] = []
    for name, about in cases:
        if len(drawn) == CASES:
            break
        found = panels(name)
        first, whole = _slice(found.panels, 0), _slice(found.whole, 0)
        room -= sum(map(len, (*first, *whole)))
        if room < 0 and drawn:
            break
        drawn.append((name, about, found, [first], whole))
    for place in range(1, max((len(found.places) for _, _, found, _, _ in drawn), default=0)):
        for _, _, found, slices, _ in drawn:
            if place < len(found.places) and len(slices) == place and room > 0:
                more = _slice(found.panels, place)
                room -= sum(map(len, more))
                if room >= 0:
                    slices.append(more)
    return [_shown(name, about, found, slices, whole, best) for name, about, found, slices, whole in drawn]


def _slice(panels: Sequence[Panel], place: int) -> list[str]:
    return [pixels_uri(panel.slices[place], error=panel.error) for panel in panels]


def _shown(name: str, about: str, found: CasePanels, slices: list[list[str]], whole: list[str], best: str) -> ShownCase:
    # Told as they lie in the volume, whichever tells most.
    order = sorted(range(len(slices)), key=found.places.__getitem__)
    places = [f"slice {found.places[place] + 1} of {found.total}" for place in order]
    start = order.index(0)
    names = [panel.name for panel in found.panels]
    pictures = [
        Picture(
            panel.name,
            ", ".join(filter(None, (f"{panel.name} of case {name}", places[start], about))),
            [slices[place][number] for place in order],
            panel.error,
        )
        for number, panel in enumerate(found.panels)
    ]
    bars = []
    for unit, ends, error in ((found.unit, found.window, False), (found.error_unit, found.errors, True)):
        if ends:
            kind = "Colours of errors" if error else "Grey levels"
            said = f"{kind}: the darkest is {ends[0]:.3g}, the brightest {ends[1]:.3g} ({unit})"
            bars.append(svg(colour_bar(f"error, {unit}" if error else unit, *ends, error=error), said))
    left = names.index("target") if "target" in names else 0
    right = names.index(best) if best != names[left] and best in names else len(names) - 1
    overviews = [
        Picture(panel.name, f"Whole case {name}, {panel.name}", [uri], panel.error)
        for panel, uri in zip(found.whole, whole, strict=True)
    ]
    return ShownCase(
        name,
        about,
        places,
        found.total,
        pictures,
        start,
        (left, right),
        bars,
        found.legend,
        overviews,
        found.whole_legend,
    )
