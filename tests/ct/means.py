"""Means of scores of segmentations, a row for each evaluation: `python -m tests.ct.means [--paired] scores-a scores-b`.

With `--paired` all are of the same volumes: differences from the first one, with standard errors over volumes.
"""

import csv
import statistics
import sys
from pathlib import Path

METRICS = ("liver_dice", "tumour_dice", "lesion_recall", "lesions_false")

#: Scores by metric and case; what a case does not have is left out.
Read = dict[str, dict[str, float]]


def read(folder: Path) -> Read:
    """What `condswin evaluate` wrote of a model, or of a folder of predictions."""
    with next(folder.glob("*cases.csv")).open(newline="") as file:
        rows = list(csv.DictReader(file))
    return {
        metric: {row["case"]: float(row[metric]) for row in rows if row[metric] not in ("", "nan")}
        for metric in METRICS
    }


def heading(name: str) -> list[str]:
    return [f"| {name} | volumes | " + " | ".join(METRICS) + " |", "|---|---:|" + "---:|" * len(METRICS)]


def table(folders: list[Path]) -> str:
    """Mean ± standard deviation over the volumes that have the score."""
    lines = heading("scores")
    for folder in folders:
        found = read(folder)
        shown = [
            f"{statistics.mean(each.values()):.3f} ± {statistics.stdev(each.values()):.3f}" for each in found.values()
        ]
        lines.append(f"| {folder.name} | {len(found['liver_dice'])} | " + " | ".join(shown) + " |")
    return "\n".join(lines)


def differences(folders: list[Path]) -> str:
    """From the first folder's scores of the same volumes: means, and standard errors over volumes."""
    first = read(folders[0])
    lines = heading(f"against {folders[0].name}")
    for folder in folders[1:]:
        found, shown = read(folder), []
        for metric in METRICS:
            if found[metric].keys() != first[metric].keys():
                sys.exit(f"{folder}: {metric} of other volumes than {folders[0]} has; evaluate both on the same")
            gains = [found[metric][case] - first[metric][case] for case in first[metric]]
            shown.append(f"{statistics.mean(gains):+.3f} ({statistics.stdev(gains) / len(gains) ** 0.5:.3f})")
        lines.append(f"| {folder.name} | {len(first['liver_dice'])} | " + " | ".join(shown) + " |")
    return "\n".join(lines)


if __name__ == "__main__":
    given = [Path(name) for name in sys.argv[1:] if name != "--paired"]
    print(table(given))
    if "--paired" in sys.argv:
        print("\nDifferences, and in brackets their standard errors over volumes:\n")
        print(differences(given))
