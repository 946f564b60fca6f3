"""What each process of a TrainJob runs: `torchrun -m condswin.kubeflow.node FOLDER`."""

import os
import sys
from pathlib import Path

from condswin.errors import CondswinError
from condswin.files import read_json, write_json
from condswin.kubeflow.learning import train
from condswin.plain import plain

#: In the folder that all machines share: arguments of `train`, and what came of it.
GIVEN, OUTCOME = "given.json", "outcome.json"


def run(folder: Path) -> None:
    """Trains as the folder says, and leaves there why the pipeline cannot go on; an empty text if it can."""
    if (folder / OUTCOME).is_file():
        # Another machine failed after this was told, and all were started again.
        return
    outcome = train(**read_json(folder / GIVEN))
    # The first process writes the network, others may be done before it; a failure is told by whoever meets it.
    if outcome or os.environ.get("RANK", "0") == "0":
        write_json(folder / OUTCOME, {"outcome": outcome})


if __name__ == "__main__":
    try:
        run(Path(sys.argv[1]))
    except CondswinError as error:
        print("\n".join(map(plain, f"error: {error}".split("\n"))), file=sys.stderr)
        sys.exit(error.exit_status)
