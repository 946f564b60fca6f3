"""Loads a package with nothing but MLflow and runs it a few times: a script for a process of its own.

It imports no condswin, so that the package's copy of the code is what runs.

Usage: python -P clean_load.py PACKAGE GOLDEN.npy OUTPUT.npy REPORT.json
"""

import json
import sys
import time
from pathlib import Path
from statistics import median

REPEATS = 3


def main(package: str, golden: str, output: str, report: str) -> None:
    """Writes the model's output for the golden batch, and what was seen on the way."""
    import mlflow
    import numpy as np

    # pyfunc imports torch on its own account; what is watched is the loading of this model.
    import torch  # noqa: F401

    unpickled: list[str] = []
    sys.addaudithook(lambda event, args: unpickled.append(".".join(args)) if event == "pickle.find_class" else None)
    model = mlflow.pyfunc.load_model(package)
    batch = np.load(golden, allow_pickle=False)
    seconds = []
    for _ in range(REPEATS):
        started = time.perf_counter()
        result = model.predict(batch)
        seconds.append(time.perf_counter() - started)
    np.save(output, np.asarray(result), allow_pickle=False)
    code = sys.modules["condswin"].__file__ or ""
    seen = {
        "latency_ms": round(1000 * median(seconds), 1),
        "unpickled": sorted(set(unpickled)),
        # Code of the model lies in .../code/condswin/__init__.py, below the first entry of the path.
        "own_code": Path(code).is_relative_to(sys.path[0]) and (Path(sys.path[0]).parent / "MLmodel").is_file(),
    }
    Path(report).write_text(json.dumps(seen))


if __name__ == "__main__":
    main(*sys.argv[1:])
