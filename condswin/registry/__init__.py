"""MLflow: runs, registered models and the promotion of a challenger to champion.

Every module that imports mlflow lies in this package, so that these settings hold before the first import.
"""

import os

os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
os.environ.setdefault("MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR", "false")
os.environ.setdefault("MLFLOW_LOGGING_LEVEL", "WARNING")
# A server's restart of about a minute is survived; one that was never there is found by `tracking.connect` at once.
os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "5")
os.environ.setdefault("MLFLOW_HTTP_REQUEST_TIMEOUT", "30")
