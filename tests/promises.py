"""Holds the last `make repro` on demo data to what the README promises of it; not a pytest module, it needs the run."""

import json
import sys
from pathlib import Path


def main() -> int:
    broken = []
    for task in ("reconstruction", "segmentation"):
        comparison = json.loads(Path("comparison", f"{task}.json").read_text())
        for variant, splits in comparison["variants"].items():
            test = splits["test"]
            if task == "reconstruction":
                gain = test["psnr"]["mean"] - test["zero-filled"]["psnr"]["mean"]
                print(f"{variant}: {gain:.2f} dB over zero-filled (promised: 2)")
                kept = gain >= 2
            else:
                dice = test["liver_dice"]["mean"]
                print(f"{variant}: liver Dice {dice:.3f} (promised: 0.85)")
                kept = dice >= 0.85
            if not kept:
                broken.append(f"{task} {variant}")
        champion = json.loads(Path("promotion", task, "promoted.json").read_text())
        if not champion["promoted"]:
            broken.append(f"{task}: {champion['reasons']}")
    if broken:
        print("broken promises:", *broken, sep="\n  ", file=sys.stderr)
    return bool(broken)


if __name__ == "__main__":
    sys.exit(main())
