#!/usr/bin/env bash
# Installs the chart into the cluster that KUBECONFIG names and rolls it under 200 sockets.
#
#   IMAGE        image of chat-api that the cluster has or can pull   (chat-api:dev)
#   REDIS_IMAGE  the same for Redis                                   (the chart's own)
#   E2E_RUN      a command put before the client, to run it where the cluster's Service addresses answer; empty on a node
#
# Shows: three replicas ready in a namespace that enforces restricted Pod Security; `helm test`; a message from pod to pod; a rollout under
# load that loses nothing acknowledged.
set -euo pipefail
cd "$(dirname "$0")/../.."

namespace=${NAMESPACE:-chat-e2e}
image=${IMAGE:-chat-api:dev}
read -r -a prefix <<<"${E2E_RUN:-}"
state=$(mktemp -d)
client=

say() { printf '[%3ss] %s\n' "$SECONDS" "$*"; }
k() { kubectl --namespace "$namespace" "$@"; }
await() { # FILE SECONDS WHAT
  for ((i = 0; i < $2 * 5; i++)); do
    [ -e "$1" ] && return
    if ! kill -0 "$client" 2>/dev/null; then
      wait "$client" || true
      echo "the client ended before: $3" >&2
      exit 1
    fi
    sleep 0.2
  done
  echo "not within $2 s: $3" >&2
  exit 1
}
cleanup() {
  status=$?
  [ -z "$client" ] || kill "$client" 2>/dev/null || true
  if [ $status -ne 0 ]; then
    k get pods -o wide || true
    k get events --sort-by=.lastTimestamp | tail -n 20 || true
    k logs -l app.kubernetes.io/component=server --tail=20 --prefix | grep -v connected || true
  fi
  helm --namespace "$namespace" uninstall chat --wait >/dev/null 2>&1 || true
  kubectl delete namespace "$namespace" --wait=false >/dev/null 2>&1 || true
  rm -rf "$state"
}

kubectl version >/dev/null || { echo "no cluster: set KUBECONFIG" >&2; exit 1; }
say "building the client"
cargo test --locked --test it --no-run --message-format=json 2>/dev/null |
  sed -n 's/.*"executable":"\([^"]*\/it-[^"]*\)".*/\1/p' | tail -n 1 >"$state/client"
[ -s "$state/client" ] || { echo "the client was not built: run 'cargo test --no-run'" >&2; exit 1; }

trap cleanup EXIT
kubectl create namespace "$namespace" >/dev/null
kubectl label namespace "$namespace" pod-security.kubernetes.io/enforce=restricted >/dev/null
values=(--set "image.repository=${image%:*},image.tag=${image##*:}" --set config.drain.window=15s --set minReadySeconds=5
  --set kubernetes.enabled=true)
if [ -n "${REDIS_IMAGE:-}" ]; then
  values+=(--set "redis.bundled.image.repository=${REDIS_IMAGE%:*},redis.bundled.image.tag=${REDIS_IMAGE##*:}")
fi
say "helm install with the bundled Redis"
helm --namespace "$namespace" install chat charts/chat-api "${values[@]}" --wait --timeout 240s >/dev/null
k get pods -o wide
ready=$(k get deployment chat-chat-api -o jsonpath='{.status.readyReplicas}')
[ "$ready" = 3 ] || { echo "$ready replicas are ready, not 3" >&2; exit 1; }
say "3 replicas ready under restricted Pod Security"
helm --namespace "$namespace" test chat --timeout 120s | grep -E 'Phase|TEST SUITE'

address=$(k get service chat-chat-api -o jsonpath='{.spec.clusterIP}:{.spec.ports[0].port}')
say "200 sockets through the Service, $address"
E2E_ADDRESS=$address E2E_STATE=$state "${prefix[@]}" "$(cat "$state/client")" --ignored --exact --nocapture e2e::rollout_under_load &
client=$!
await "$state/flowing" 60 "messages flow"
mapfile -t before < <(k get pods -l app.kubernetes.io/component=server -o name)
k rollout restart deployment/chat-chat-api >/dev/null
k rollout status deployment/chat-chat-api --timeout=300s
k wait --for=delete --timeout=120s "${before[@]}" >/dev/null
say "every pod was replaced"
touch "$state/rolled"
wait "$client"
client=
for reason in DrainStarted DrainCompleted; do
  count=$(k get events.events.k8s.io -o jsonpath="{range .items[?(@.reason=='$reason')]}x{end}" | wc -c)
  [ "$count" -ge 3 ] || { echo "$count Events $reason, not 3" >&2; exit 1; }
done
k get events.events.k8s.io -o jsonpath="{range .items[?(@.reason=='DrainCompleted')]}{.regarding.name}: {.note}{'\n'}{end}"
say "done: nothing acknowledged was lost"
