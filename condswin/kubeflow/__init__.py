"""The steps as Kubeflow components call them: texts and paths in, texts out. Knows nothing of kfp.

Each function imports its own step: a task that checks files does not wait seconds for what training needs. What is
`settled` returns why its pipeline cannot go on, or an empty text.
"""

from condswin.kubeflow.data import data_card, ingest, prepare, resolve, retrain
from condswin.kubeflow.given import code_of
from condswin.kubeflow.judging import baseline, compare, evaluate, report
from condswin.kubeflow.learning import train, tune
from condswin.kubeflow.nodes import train_nodes
from condswin.kubeflow.registering import fetch, promote, register
from condswin.kubeflow.using import notify, predict, verdict

__all__ = [
    "baseline",
    "code_of",
    "compare",
    "data_card",
    "evaluate",
    "fetch",
    "ingest",
    "notify",
    "predict",
    "prepare",
    "promote",
    "register",
    "report",
    "resolve",
    "retrain",
    "train",
    "train_nodes",
    "tune",
    "verdict",
]
