"""Means of scores of segmentations, a row for each evaluation: `python -m tests.ct.means scores-a scores-b`."""

import csv
import statistics
import sys
from pathlib import Path

METRICS = ("liver_dice", "tumour_dice", "lesion_recall", "lesions_false")


def table(folders: list[Path]) -> str:
    """Mean ± standard deviation over the volumes that have the score."""
    lines = ["| scores | volumes | " + " | ".join(METRICS) + " |", "|---|---:|" + "---:|" * len(METRICS)]
    for folder in folders:
        with (folder / "test-cases.csv").open(newline="") as file:
            rows = list(csv.DictReader(file))
        shown = []
        for metric in METRICS:
            values = [float(row[metric]) for row in rows if row[metric] not in ("", "nan")]
            shown.append(f"{statistics.mean(values):.3f} ± {statistics.stdev(values):.3f}")
        lines.append(f"| {folder.name} | {len(rows)} | " + " | ".join(shown) + " |")
    return "\n".join(lines)


if __name__ == "__main__":
    print(table([Path(name) for name in sys.argv[1:]]))
