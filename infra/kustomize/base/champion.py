"""Says how old the champions are; status 1 if one of MODELS is older than MAX_DAYS, or has none."""

import os
import sys
import time

from mlflow import MlflowClient
from mlflow.exceptions import MlflowException

client, late = MlflowClient(), False
for model in os.environ["MODELS"].split():
    try:
        version = client.get_model_version_by_alias(model, "champion")
    except MlflowException as error:
        if error.error_code not in ("RESOURCE_DOES_NOT_EXIST", "INVALID_PARAMETER_VALUE"):
            raise
        print(f"{model}: no champion")
        late = True
        continue
    days = (time.time() - version.creation_timestamp / 1000) / 86400
    print(f"{model}: version {version.version}, {days:.1f} days")
    late |= days > float(os.environ["MAX_DAYS"])
sys.exit(int(late))
