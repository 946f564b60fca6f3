"""Makes MLflow's user `runner`, of pipelines, and one for each person: `python infra/users.py j.doe r.roe`.

MLFLOW_TRACKING_URI and an administrator's credentials come from the environment, and RUNNER holds runner's password.
Passwords of people are told once. A person who is there already stays as he is; runner gets the password of RUNNER.
"""

import os
import secrets
import sys

from mlflow.exceptions import MlflowException
from mlflow.server import get_app_client

runner = os.environ.get("RUNNER") or sys.exit("RUNNER: is to hold the password of the Secret mlflow-client")
client = get_app_client("basic-auth", os.environ["MLFLOW_TRACKING_URI"])
users = {"runner": runner, **{person: secrets.token_urlsafe(16) for person in sys.argv[1:]}}
for user, password in users.items():
    try:
        client.create_user(user, password)
    except MlflowException as error:
        if error.error_code != "RESOURCE_ALREADY_EXISTS":
            sys.exit(f"{user}: {error.message}")
        if user == "runner":
            client.update_user_password(user, password)
        print(f"{user}: is there already" + (", with the password of RUNNER" if user == "runner" else ""))
    else:
        print(f"{user}: made" + ("" if user == "runner" else f", with the password {password}"))
