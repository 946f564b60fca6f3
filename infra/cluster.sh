# Each bash that follows docs/how-to/cluster.md reads it: `. infra/cluster.sh`. Edit the first lines. Nothing here is secret.
export OVERLAY=laptop                        # or production
export NAMESPACE=condswin                    # of runs, and of what infra/kustomize makes
export REGISTRY=registry.example.org/team    # that the cluster may pull from
export KFP_HOST=http://localhost:8080        # a port-forward to Kubeflow, or its address (https)
export KFP_NAMESPACE=                        # of a Kubeflow with users: the same as NAMESPACE
export KFP_SERVICE_ACCOUNT=condswin-runner

# Names that are an alias of the person's (`k` often is) would make no functions.
unalias k random typed setting secret forward as_admin as_runner 2> /dev/null || :
k() { kubectl --namespace "$NAMESPACE" "$@"; }
random() { openssl rand -hex 24 | tr -d '\n'; }
# What is typed, which neither the screen shows nor the history keeps: typed NAME...
typed() { for each in "$@"; do printf '%s: ' "$each" >&2; IFS= read -rs "$each"; echo >&2; done; }
setting() { sed -n "s/^$1=//p" "infra/kustomize/$OVERLAY/settings.env"; }
# Of a Secret's key: secret NAME KEY.
secret() {
  local value
  value=$(k get secret "$1" -o "jsonpath={.data.$2}") && [ -n "$value" ] || { echo "No $2 of Secret $1" >&2; return 1; }
  printf %s "$value" | base64 -d
}
# A port-forward, as long as this shell lasts: forward NAMESPACE service/NAME LOCAL:REMOTE. Again if it broke.
forward() {
  local here="localhost:${3%%:*}" answer=0
  # Whoever answers there would be sent passwords. 7: nobody does.
  curl --noproxy '*' --silent --max-time 5 --output /dev/null "http://$here" || answer=$?
  [ $answer = 7 ] || { echo "$here is taken: by another shell's port-forward, or by what \`ss -ltnp\` shows" >&2; return 1; }
  kubectl --namespace "$1" port-forward --address 127.0.0.1 "$2" "$3" > /dev/null &
  FORWARDS="${FORWARDS-} $!"
  trap 'kill $FORWARDS 2> /dev/null || :' EXIT
  curl --noproxy '*' --silent --output /dev/null --retry 30 --retry-connrefused --retry-delay 1 "http://$here" &&
    kill -0 $! 2> /dev/null ||
    { kill $! 2> /dev/null || :; echo "$here does not answer: kubectl --namespace $1 get pods" >&2; return 1; }
}
# What pods reach S3 by, and what this machine reaches S3 and MLflow by.
export IN_PODS="{AWS_ENDPOINT_URL: '$(setting AWS_ENDPOINT_URL)', AWS_DEFAULT_REGION: '$(setting AWS_DEFAULT_REGION)'}"
export AWS_ENDPOINT_URL="$(setting AWS_ENDPOINT_URL)" AWS_DEFAULT_REGION="$(setting AWS_DEFAULT_REGION)"
export MLFLOW_TRACKING_URI="https://$(setting PUBLIC_HOST)"
if [ "$OVERLAY" = laptop ]; then
  export AWS_ENDPOINT_URL=http://localhost:8333 MLFLOW_TRACKING_URI=http://localhost:5000
fi
# Whose credentials: those of services and MLflow's administrator, or those of runs. All of them, or none and a failure:
# without a key, boto3 would look for others of the person's.
as_admin() {
  local password id key
  password=$(secret mlflow admin-password) && id=$(secret s3 AWS_ACCESS_KEY_ID) && key=$(secret s3 AWS_SECRET_ACCESS_KEY) &&
    export MLFLOW_TRACKING_USERNAME=admin MLFLOW_TRACKING_PASSWORD="$password" AWS_ACCESS_KEY_ID="$id" AWS_SECRET_ACCESS_KEY="$key"
}
as_runner() {
  local password id key patient
  password=$(secret mlflow-client MLFLOW_TRACKING_PASSWORD) && id=$(secret s3-source AWS_ACCESS_KEY_ID) &&
    key=$(secret s3-source AWS_SECRET_ACCESS_KEY) && patient=$(secret condswin CONDSWIN_PATIENT_KEY) &&
    export MLFLOW_TRACKING_USERNAME=runner MLFLOW_TRACKING_PASSWORD="$password" CONDSWIN_PATIENT_KEY="$patient" &&
    export AWS_ACCESS_KEY_ID="$id" AWS_SECRET_ACCESS_KEY="$key"
}
