"""The model card of a network: what it is for, how well it did, where it fails, and where it came from."""

import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median
from typing import Any

from condswin.evaluation.summary import Summary, summarise
from condswin.networks.saving import ModelSpec
from condswin.plain import cell, label, span
from condswin.reporting.decision import trained_on
from condswin.tasks.facts import Facts, Row
from condswin.tasks.pictures import Pictures
from condswin.tasks.serving import Serving

#: Characters of a description in MLflow.
LONGEST = 5000
_PLACES = ("worst", "second worst")
_TEST = {"all": "All test cases are generated too.", "some": "Some test cases are generated."}


@dataclass(frozen=True)
class Card:
    """What a model card is made of.

    Attributes:
        facts: The task's scores.
        serving: What the task's networks take.
        spec: The network.
        compared: What the compare step wrote.
        lineage: Tags of the version that say where it came from.
        rows: The network's test cases; none where they are not at hand.
        counts: Cases by split; empty where that is not known.
        test_generated: As `Manifest.generated` says of the test cases.
        pictures: PNG files by name.
    """

    facts: Facts
    serving: Serving
    spec: ModelSpec
    compared: Mapping[str, Any]
    lineage: Mapping[str, str]
    rows: Sequence[Row] = ()
    counts: Mapping[str, int] = field(default_factory=dict)
    test_generated: str = "none"
    pictures: Mapping[str, bytes] = field(default_factory=dict)

    def text(self) -> str:
        """Markdown, with pictures beside it in a folder `pictures`."""
        parts = {**self._parts(), "Cases where it does worst": self._failures()}
        title = f"# {self.facts.name}: {cell(self.spec.variant)}\n\n"
        return title + "\n\n".join(f"## {name}\n\n{text}" for name, text in parts.items() if text) + "\n"

    def description(self) -> str:
        """The same without pictures, cut to what MLflow keeps."""
        text = "\n\n".join(f"### {name}\n\n{text}" for name, text in self._parts().items() if text)
        more = "\n\nThe whole card is README.md in the package."
        while len(text) + len(more) > LONGEST:
            text = text[: LONGEST - len(more)].rpartition("\n")[0]
        return text + more

    def _parts(self) -> dict[str, str]:
        return {
            "Intended use": self._use(),
            "Data": self._data(),
            "Scores on test cases": self._scores(),
            "Subgroups": self._subgroups(),
            "Limits": self._limits(),
            "Lineage": "\n".join(f"- {name}: {cell(value, 400)}" for name, value in self.lineage.items()),
        }

    def _use(self) -> str:
        subject = f" of {self.serving.subject}" if self.serving.subject else ""
        return (
            f"Research on {self.facts.name}{subject}. Takes {self.serving.takes}. Not a medical device: no diagnosis "
            "rests on what it says."
        )

    def _data(self) -> str:
        how = str(self.spec.provenance.get("generated", "unknown"))
        counts = ", ".join(f"{count} {split}" for split, count in self.counts.items())
        return " ".join(
            [
                f"Trained and validated on {trained_on(how)}.",
                *([_TEST[self.test_generated]] if self.test_generated in _TEST else []),
                *([f"Cases: {counts}."] if counts else []),
                f"SHA-256 of the prepared cases: {self.compared['data_sha256']}.",
            ]
        )

    def _scores(self) -> str:
        split = self.compared["variants"][self.compared["best"]]["test"]
        columns = {"network": split, **{name: split[name] for name in self.facts.baselines if name in split}}
        chosen = self.compared.get("chosen_on", "val")
        head = f"Mean over cases and its 95 % bootstrap interval. The variant was chosen on {chosen} cases."
        metrics = [name for name in (*self.facts.metrics, *self.facts.details) if name in split]
        return f"{head}\n\n{_table('metric', metrics, columns)}"

    def _subgroups(self) -> str:
        groups: dict[str, list[Row]] = {}
        for trait, kind in self.facts.traits.items():
            values = [row[trait] for row in self.rows if trait in row]
            if kind is str:
                found = {f"{trait} {value}": [r for r in self.rows if r.get(trait) == value] for value in set(values)}
            else:
                numbers = [float(value) for value in values]
                limit = 0.0 if 0.0 in numbers else median(numbers) if numbers else 0.0
                low = [row for row in self.rows if trait in row and float(row[trait]) <= limit]
                high = [row for row in self.rows if trait in row and float(row[trait]) > limit]
                found = {f"{trait} at most {limit:.3g}": low, f"{trait} above {limit:.3g}": high}
            found = {name: rows for name, rows in sorted(found.items()) if rows}
            groups |= found if len(found) > 1 else {}
        metrics = list(self.facts.metrics)
        columns = {metric: {name: summarise(rows, [metric])[metric] for name, rows in groups.items()}
                   for metric in metrics}  # fmt: skip
        return _table("cases", list(groups), columns, counts=True) if groups else ""

    def _limits(self) -> str:
        how = self.spec.provenance.get("generated")
        limits = [
            "Intervals are over the test cases; they say nothing of other scanners, hospitals or bodies.",
            *([] if how == "none" else ["What generated data teaches need not hold for patients."] if how else []),
        ]
        seen = self.spec.provenance.get("seen", {})
        if seen:
            spans = ", ".join(f"{name} {span(low, high, 6)} mm" for name, (low, _, high) in seen.items())
            limits.append(f"Trained with: {spans}. `condswin predict` refuses what is far from that.")
        if data := self.spec.provenance.get("parameters", {}).get("data"):
            limits.append(f"Prepared with: {cell(', '.join(f'{key} {value}' for key, value in data.items()), 600)}.")
        return "\n".join(f"- {limit}" for limit in limits)

    def _failures(self) -> str:
        return "\n\n".join(f"![{name}](pictures/{name})" for name in self.pictures)


def worst_pictures(
    facts: Facts, pictures: Pictures, rows: Sequence[Row], targets: Path, predictions: Path
) -> dict[str, bytes]:
    """Pictures of the worst cases by the primary metric, without the cases' names, as PNG by file name."""
    metric, higher_is_better = next(iter(facts.metrics.items()))
    finite = [row for row in rows if float(row[metric]) == float(row[metric])]
    ranked = sorted(finite, key=lambda row: float(row[metric]), reverse=not higher_is_better)
    found = {}
    for place, row in enumerate(ranked[: len(_PLACES)]):
        figure = pictures.picture(targets, predictions, str(row["case"]))
        figure.suptitle(label(f"{_PLACES[place]} test case by {metric}: {float(row[metric]):.4g}"))
        content = io.BytesIO()
        figure.savefig(content, format="png", dpi=70, metadata={"Software": None})
        found[f"worst-{place + 1}.png"] = content.getvalue()
    return found


def _table(
    first: str, names: Sequence[str], columns: Mapping[str, Mapping[str, Summary]], *, counts: bool = False
) -> str:
    heads = [first, *(["number"] if counts else []), *map(cell, columns)]
    lines = [f"| {' | '.join(heads)} |", f"|{'---|' * len(heads)}"]
    for name in names:
        found = [column.get(name) for column in columns.values()]
        number = [str(max((summary["cases"] for summary in found if summary), default=0))] if counts else []
        lines.append(f"| {' | '.join([cell(name), *number, *map(_shown, found)])} |")
    return "\n".join(lines)


def _shown(summary: Summary | None) -> str:
    mean, low, high = (summary[key] for key in ("mean", "low", "high")) if summary else (None, None, None)
    if mean is None or low is None or high is None:
        return "–"
    return f"{mean:.4g}" + (f" ({span(low, high, 4)})" if low != high else "")
