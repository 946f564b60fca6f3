"""Says how old the champions are; status 1 if one of MODELS is older than MAX_DAYS, or has none."""

import os
import sys
import time

from mlflow import MlflowClient

client, late = MlflowClient(), False
for model in os.environ["MODELS"].split():
    # By a search: asked for a model that is not there, a server with users says no more than 403.
    found = client.search_registered_models(f"name = '{model}'")
    number = found[0].aliases.get("champion") if found else None
    if number is None:
        print(f"{model}: no champion")
        late = True
        continue
    days = (time.time() - client.get_model_version(model, number).creation_timestamp / 1000) / 86400
    print(f"{model}: version {number}, {days:.1f} days")
    late |= days > float(os.environ["MAX_DAYS"])
sys.exit(int(late))
