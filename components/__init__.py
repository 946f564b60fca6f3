"""Kubeflow Pipelines components: each wraps one step of `condswin` and holds no logic of its own.

Every body imports from `condswin` (or from `pipelines`, where it asks Kubeflow's API) and makes one call. Each gets
what it reads of the parameters, and nothing else that Kubeflow's cache would look at, as JSON text (Kubeflow turns
integers inside dictionaries into floats; in a text they stay what they are). The image holds condswin, pipelines and
kfp, so nothing is installed when a task starts.
"""

from components.baseline import baseline
from components.compare import compare
from components.data_card import data_card
from components.evaluate import evaluate
from components.fetch import fetch
from components.ingest import ingest
from components.notify import notify
from components.predict import predict
from components.prepare import prepare
from components.promote import promote
from components.register import register
from components.report import report
from components.resolve import resolve
from components.retrain import retrain
from components.train import train
from components.train_nodes import train_nodes
from components.tune import tune
from components.verdict import verdict

__all__ = [
    "baseline",
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
