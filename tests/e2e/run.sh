#!/usr/bin/env bash
# Installs the chart into the cluster that KUBECONFIG names and lives through what an operator does to it.
#
#   IMAGE        image of chat-api that the cluster has or can pull   (chat-api:dev)
#   REDIS_IMAGE  the same for Redis                                   (the chart's own)
#   E2E_RUN      a command put before the clients, to run them where the cluster's addresses answer; empty on a node
#   SCENES       which of them (all): quickstart rollout scalein keys autoscale policy rights
#
# quickstart  three replicas in a namespace that enforces restricted Pod Security; from `helm install` to the first message; `helm test`
# rollout     `kubectl rollout restart`, `helm upgrade` and the end of Redis's pod under load: nothing acknowledged is lost, doubled or cut
# scalein     the emptiest pod goes, though it is the oldest
# keys        a key is changed under open sockets: none is closed
# autoscale   the HorizontalPodAutoscaler follows `chat_connections` out and in again; skipped where no custom metrics API serves what pods expose
# policy      the service's right to patch pods is that to one annotation of its own
# rights      without any right at the Kubernetes API nothing else changes
set -euo pipefail
cd "$(dirname "$0")/../.."

namespace=${NAMESPACE:-chat-e2e}
image=${IMAGE:-chat-api:dev}
scenes=${SCENES:-quickstart rollout scalein keys autoscale policy rights}
read -r -a prefix <<<"${E2E_RUN:-}"
state=$(mktemp -d)
client=

say() { printf '[%3ss] %s\n' "$SECONDS" "$*"; }
fail() { echo "FAILED: $*" >&2; exit 1; }
k() { kubectl --namespace "$namespace" "$@"; }
pods() { k get pods -l app.kubernetes.io/component=server --sort-by=.metadata.creationTimestamp -o "$@"; }
is_scene() { [[ " $scenes " == *" $1 "* ]]; }

until_true() { # SECONDS WHAT COMMAND…
  local seconds=$1 what=$2 i
  shift 2
  for ((i = 0; i < seconds * 2; i++)); do
    "$@" >/dev/null 2>&1 && return
    if [ -n "$client" ] && ! kill -0 "$client" 2>/dev/null; then wait "$client" || fail "the client ended before: $what"; fi
    sleep 0.5
  done
  fail "not within $seconds s: $what"
}

# A test in the background, where the cluster's addresses answer; the file `done` ends it.
start_client() { # PROGRAM TEST VARIABLE=VALUE…
  local program test=$2
  program=$(cat "$state/$1")
  shift 2
  rm -f "$state"/{flowing,held,done}
  env E2E_STATE="$state" "$@" "${prefix[@]}" "$program" --ignored --exact --nocapture "$test" &
  client=$!
}
end_client() {
  touch "$state/done"
  wait "$client" || fail "the client"
  client=
}

install() { # VALUES…
  helm --namespace "$namespace" upgrade --install chat charts/chat-api "${values[@]}" "$@" --wait --timeout 240s >/dev/null
}

cleanup() {
  status=$?
  [ -z "$client" ] || kill "$client" 2>/dev/null || true
  if [ $status -ne 0 ]; then
    [ ! -s "$state/check" ] || { echo "the last check:" && cat "$state/check"; }
    k get pods -o wide || true
    k get events --sort-by=.lastTimestamp | tail -n 20 || true
    k logs -l app.kubernetes.io/component=server --tail=200 --prefix | grep -v '"\(dis\)\?connected"' || true
  fi
  helm --namespace "$namespace" uninstall chat --wait >/dev/null 2>&1 || true
  kubectl delete namespace "$namespace" --wait=false >/dev/null 2>&1 || true
  rm -rf "$state"
}

events() { # REASON: how many
  k get events.events.k8s.io -o jsonpath="{range .items[?(@.reason=='$1')]}x{end}" | wc -c
}
has_events() { [ "$(events "$1")" -ge "$2" ]; }

quickstart() {
  say "helm install, the chart as it comes"
  local start=$SECONDS
  install
  helm --namespace "$namespace" test chat --timeout 120s --logs >"$state/test"
  grep -q "ok: message" "$state/test" || fail "helm test: $(cat "$state/test")"
  local took=$((SECONDS - start))
  pods wide
  [ "$(k get deployment chat-chat-api -o jsonpath='{.status.readyReplicas}')" = 3 ] || fail "not 3 replicas are ready"
  sed -n 's/^/        /; /ok/p' "$state/test"
  say "3 replicas under restricted Pod Security, a message across and helm test green $took s after helm install"
  [ "$took" -le 60 ] || fail "that is more than 60 s"
}

rollout() {
  # Who speaks last in the load says something in ninety rooms at once.
  local more=(--set config.limits.messages_per_second=200)
  install "${more[@]}"
  local address before
  address=$(k get service chat-chat-api -o jsonpath='{.spec.clusterIP}:{.spec.ports[0].port}')
  say "sockets and messages through the Service, $address"
  start_client chaos cluster::cluster E2E_ADDRESS="$address"
  until_true 240 "messages flow" test -e "$state/flowing"
  mapfile -t before < <(pods name)
  k rollout restart deployment/chat-chat-api >/dev/null
  k rollout status deployment/chat-chat-api --timeout=300s | tail -n 1
  k wait --for=delete --timeout=120s "${before[@]}" >/dev/null
  say "kubectl rollout restart: every pod was replaced"
  mapfile -t before < <(pods name)
  install "${more[@]}" --set config.limits.rooms=99 # takes effect in a new process only
  k wait --for=delete --timeout=120s "${before[@]}" >/dev/null
  say "helm upgrade: every pod was replaced"
  k delete pod chat-chat-api-redis-0 >/dev/null
  k wait --for=condition=ready --timeout=120s pod/chat-chat-api-redis-0 >/dev/null
  until_true 60 "messages flow again" check_once "$address"
  say "Redis's pod was deleted and came back"
  end_client
  has_events DrainStarted 6 || fail "$(events DrainStarted) Events DrainStarted, not 6"
  has_events DrainCompleted 6 || fail "$(events DrainCompleted) Events DrainCompleted, not 6"
  until_true 30 "Events of Redis" has_events RedisRestored 3
  k get events.events.k8s.io -o jsonpath="{range .items[?(@.reason=='DrainCompleted')]}        {.regarding.name}: {.note}{'\n'}{end}"
}

check_once() { # ADDRESS
  "${prefix[@]}" target/debug/chat-api check --url "http://$1" --timeout 3s >"$state/check" 2>&1
}

# Shared keys `old` and `new`, each eight times itself, as a key set.
key_set() {
  local keys=() key
  for key in "$@"; do
    keys+=("{\"kty\":\"oct\",\"kid\":\"$key\",\"k\":\"$(printf "%s$key" "" "" "" "" "" "" "" "" | base64 -w0 | tr '+/' '-_' | tr -d '=')\"}")
  done
  local IFS=,
  printf '{"keys":[%s]}' "${keys[*]}"
}

guarded() {
  helm --namespace "$namespace" uninstall chat --wait >/dev/null 2>&1 || true
  k delete secret chat-auth --ignore-not-found >/dev/null
  k create secret generic chat-auth --from-literal=keys="$(key_set oldolds)" >/dev/null
  install "${guard[@]}"
}

cost_of() { k get pod "$1" -o jsonpath='{.metadata.annotations.controller\.kubernetes\.io/pod-deletion-cost}'; }
costs() { [ "$(cost_of "$1")" = "$2" ]; }

scalein() {
  guarded
  local names ips
  mapfile -t names < <(pods jsonpath='{range .items[*]}{.metadata.name}{"\n"}{end}')
  mapfile -t ips < <(pods jsonpath='{range .items[*]}{.status.podIP}:8080{"\n"}{end}')
  start_client it e2e::sockets_stay E2E_ADDRESSES="${ips[1]},${ips[2]}" E2E_SOCKETS=100 E2E_KEY=oldolds
  until_true 60 "the sockets are open" test -e "$state/held"
  say "100 sockets each on ${names[1]} and ${names[2]}, none on ${names[0]}, the oldest"
  until_true 120 "the cost of ${names[1]}" costs "${names[1]}" 64
  until_true 120 "the cost of ${names[2]}" costs "${names[2]}" 64
  install "${guard[@]}" --set replicaCount=2
  k wait --for=delete --timeout=120s "pod/${names[0]}" >/dev/null
  say "scaled in: ${names[0]} went, cost $(cost_of "${names[1]}") and $(cost_of "${names[2]}") stayed"
}

keys() {
  is_scene scalein || fail "the scene keys follows scalein"
  k create secret generic chat-auth --from-literal=keys="$(key_set oldolds newnews)" --dry-run=client -o yaml | k apply -f - >/dev/null 2>&1
  until_true 180 "both pods have the new key" has_events ConfigReloaded 2
  local ip
  ip=$(pods jsonpath='{.items[0].status.podIP}:8080')
  E2E_STATE=$(mktemp -d -p "$state") && touch "$E2E_STATE/done"
  E2E_STATE=$E2E_STATE E2E_ADDRESSES=$ip E2E_SOCKETS=1 E2E_KEY=newnews "${prefix[@]}" "$(cat "$state/it")" \
    --ignored --exact e2e::sockets_stay >/dev/null || fail "a token of the new key is refused"
  end_client
  say "a second key was taken over by both pods, and no socket closed"
}

are_ready() { [ "$(k get deployment chat-chat-api -o jsonpath='{.status.readyReplicas}/{.status.replicas}')" = "$1/$1" ]; }

autoscale() {
  if ! kubectl get --raw /apis/custom.metrics.k8s.io/v1beta2 >/dev/null 2>&1; then
    say "SKIPPED autoscale: the cluster has no custom metrics API"
    return
  fi
  # The default waits a quarter of an hour before it scales in, and then takes one pod in a drain's time.
  guard+=(--set "autoscaling.enabled=true,autoscaling.minReplicas=2,autoscaling.maxReplicas=6,autoscaling.connections.target=50")
  guard+=(--set-json 'autoscaling.behavior={"scaleDown":{"stabilizationWindowSeconds":15}}')
  guard+=(--set-json 'podAnnotations={"prometheus.io/scrape":"true","prometheus.io/port":"9090"}')
  guarded
  until_true 60 "two replicas" are_ready 2
  local ips start=$SECONDS
  mapfile -t ips < <(pods jsonpath='{range .items[*]}{.status.podIP}:8080{"\n"}{end}')
  start_client it e2e::sockets_stay E2E_ADDRESSES="${ips[0]},${ips[1]}" E2E_SOCKETS=100 E2E_KEY=oldolds
  until_true 60 "the sockets are open" test -e "$state/held"
  until_true 180 "four replicas" are_ready 4
  say "200 sockets, 50 a pod aimed at: four replicas after $((SECONDS - start)) s"
  end_client
  start=$SECONDS
  until_true 240 "two replicas" are_ready 2
  say "no sockets: two replicas after $((SECONDS - start)) s"
  k get hpa chat-chat-api --no-headers | sed 's/^/        /'
}

# A request to the API as the service, with the token that the pod has; kubectl would read first what it patches, which the service may not.
as_pod() { # POD METHOD PATH [CONTENT-TYPE BODY]
  local token body=()
  token=$(k create token chat-chat-api --bound-object-kind Pod --bound-object-name "$1")
  [ $# -lt 4 ] || body=(--header "Content-Type: application/$4" --data "$5")
  curl --silent --show-error --fail-with-body --cacert "$state/ca" --header "Authorization: Bearer $token" --request "$2" "${body[@]}" "$server$3"
}

policy() {
  local names mine other refused=0
  install
  mapfile -t names < <(pods jsonpath='{range .items[*]}{.metadata.name}{"\n"}{end}')
  server=$(kubectl config view --raw --minify -o jsonpath='{.clusters[0].cluster.server}')
  kubectl config view --raw --minify --flatten -o jsonpath='{.clusters[0].cluster.certificate-authority-data}' | base64 -d >"$state/ca"
  local base=/api/v1/namespaces/$namespace cost='{"metadata":{"annotations":{"controller.kubernetes.io/pod-deletion-cost":"7"}}}'
  mine=$base/pods/${names[0]} other=$base/pods/${names[1]}
  as_pod "${names[0]}" PATCH "$mine" merge-patch+json "$cost" >"$state/out" || fail "its own deletion cost is refused: $(cat "$state/out")"
  refuse() { # WHAT REQUEST…
    local what=$1
    shift
    if as_pod "${names[0]}" "$@" >"$state/out" 2>&1; then fail "allowed: $what"; fi
    grep -q '"code": 4\(03\|22\)' "$state/out" || fail "$what: $(cat "$state/out")"
    refused=$((refused + 1))
  }
  local image='{"spec":{"containers":[{"name":"chat-api","image":"evil:1"}]}}'
  refuse "the cost of another pod" PATCH "$other" merge-patch+json "$cost"
  refuse "an image" PATCH "$mine" strategic-merge-patch+json "$image"
  refuse "a label" PATCH "$mine" merge-patch+json '{"metadata":{"labels":{"app.kubernetes.io/component":"other"}}}'
  refuse "another annotation" PATCH "$mine" merge-patch+json '{"metadata":{"annotations":{"other":"1"}}}'
  refuse "a finalizer" PATCH "$mine" merge-patch+json '{"metadata":{"finalizers":["example.org/stay"]}}'
  refuse "no owner" PATCH "$mine" merge-patch+json '{"metadata":{"ownerReferences":null}}'
  refuse "a deletion" DELETE "$other"
  refuse "a Secret" GET "$base/secrets/chat-chat-api-redis"
  say "its own deletion cost is all that the service may patch: $refused other things refused"
}

rights() {
  install
  local address
  address=$(k get service chat-chat-api -o jsonpath='{.spec.clusterIP}:{.spec.ports[0].port}')
  k delete rolebinding chat-chat-api >/dev/null
  k rollout restart deployment/chat-chat-api >/dev/null
  k rollout status deployment/chat-chat-api --timeout=300s >/dev/null
  until_true 30 "a message" check_once "$address"
  k logs -l app.kubernetes.io/component=server --tail=-1 --prefix >"$state/log"
  local complaints
  complaints=$(grep -c "rule {apiGroups" "$state/log" || true)
  say "without rights the pods roll and the chat goes on; each missing rule is named once ($complaints lines)"
  [ "$complaints" -ge 1 ] || fail "nobody said which rule is missing"
}

kubectl version >/dev/null || fail "no cluster: set KUBECONFIG"
say "building the clients"
cargo build --locked --quiet --bin chat-api
# The load with optimisations: it should not be the limit.
for test in it chaos; do
  profile=dev
  [ "$test" != chaos ] || profile=release
  cargo test --locked --profile "$profile" --test "$test" --no-run --message-format=json 2>/dev/null |
    sed -n "s/.*\"executable\":\"\([^\"]*\/$test-[^\"]*\)\".*/\1/p" | tail -n 1 >"$state/$test"
  [ -s "$state/$test" ] || fail "the client was not built: run 'cargo test --no-run'"
done

trap cleanup EXIT
kubectl create namespace "$namespace" >/dev/null
kubectl label namespace "$namespace" pod-security.kubernetes.io/enforce=restricted >/dev/null
values=(--set "image.repository=${image%:*},image.tag=${image##*:}" --set config.drain.window=15s --set minReadySeconds=5
  --set "kubernetes.enabled=true,kubernetes.deletionCost=true")
if [ -n "${REDIS_IMAGE:-}" ]; then
  values+=(--set "redis.bundled.image.repository=${REDIS_IMAGE%:*},redis.bundled.image.tag=${REDIS_IMAGE##*:}")
fi
guard=(--set "auth.enabled=true,auth.existingSecret=chat-auth,auth.secretKey=keys,auth.keySet=true" --set config.limits.connections_per_user=0)
SECONDS=0
for scene in $scenes; do
  "$scene"
done
say "done"
