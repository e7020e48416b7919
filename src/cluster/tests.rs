//! Against an API of three routes that answers as it is told.

use std::{collections::VecDeque, sync::Arc, time::Instant};

use axum::{
    Router,
    extract::State,
    http::{Method, StatusCode, Uri},
    response::{IntoResponse, Response},
};
use parking_lot::Mutex;
use serde_json::{Value, json};
use tokio::{net::TcpListener, task::JoinSet};

use super::{
    review::rights_with,
    secret::{check_names, ensure_secret_with},
    *,
};
use crate::protocol::ProblemCode;

#[derive(Default)]
struct Script {
    answers: VecDeque<(StatusCode, Value)>,
    requests: Vec<(String, Value)>,
}

struct Api {
    client: Client,
    script: Arc<Mutex<Script>>,
    _server: JoinSet<()>,
}

impl Api {
    async fn start(answers: impl IntoIterator<Item = (StatusCode, Value)>) -> Self {
        let script = Arc::new(Mutex::new(Script { answers: answers.into_iter().collect(), ..Script::default() }));
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
        let uri: Uri = format!("http://{}", listener.local_addr().unwrap()).parse().unwrap();
        let router = Router::new().fallback(answer).with_state(script.clone());
        let mut server = JoinSet::new();
        server.spawn(async move { axum::serve(listener, router).await.unwrap() });
        let mut config = Config::new(uri);
        config.default_namespace = "talk".to_owned();
        config.default_retry = false;
        Self { client: Client::try_from(config).unwrap(), script, _server: server }
    }

    fn requests(&self) -> Vec<(String, Value)> {
        self.script.lock().requests.clone()
    }

    async fn ensure(&self) -> anyhow::Result<EnsureOutcome> {
        ensure_secret_with(self.client.clone(), "chat-redis", "password").await
    }
}

/// Without an answer left, it hangs.
async fn answer(State(script): State<Arc<Mutex<Script>>>, method: Method, uri: Uri, body: String) -> Response {
    let body = serde_json::from_str(&body).unwrap_or_default();
    let next = {
        let mut script = script.lock();
        script.requests.push((format!("{method} {}", uri.path()), body));
        script.answers.pop_front()
    };
    match next {
        Some((status, body)) => (status, axum::Json(body)).into_response(),
        None => std::future::pending().await,
    }
}

fn refusal(status: StatusCode, reason: &str) -> (StatusCode, Value) {
    let body = json!({"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure", "message": "no", "reason": reason, "code": status.as_u16()});
    (status, body)
}

fn created() -> (StatusCode, Value) {
    (
        StatusCode::CREATED,
        json!({"apiVersion": "events.k8s.io/v1", "kind": "Event", "metadata": {"name": "e"}, "eventTime": null}),
    )
}

fn forbidden() -> (StatusCode, Value) {
    refusal(StatusCode::FORBIDDEN, "Forbidden")
}

fn not_found() -> (StatusCode, Value) {
    refusal(StatusCode::NOT_FOUND, "NotFound")
}

fn secret(key: &str, value: &str) -> (StatusCode, Value) {
    (
        StatusCode::OK,
        json!({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "chat-redis"}, "data": {key: value}}),
    )
}

fn metrics() -> Arc<Metrics> {
    Arc::new(Metrics::new().unwrap())
}

fn pod() -> config::Kubernetes {
    let text = |text: &str| Some(text.to_owned());
    config::Kubernetes {
        enabled: true,
        namespace: text("talk"),
        pod_name: text("chat-api-7d9c-x2x"),
        pod_uid: text("6f7c"),
        deletion_cost: true,
        ..config::Kubernetes::default()
    }
}

#[tokio::test]
async fn a_drain_is_told_about_this_pod() {
    let api = Api::start([created(), created()]).await;
    let cluster = Cluster::new(api.client.clone(), &pod(), metrics()).unwrap();
    cluster.event(ClusterEvent::DrainStarted { connections: 7 }).await;
    cluster.event(ClusterEvent::DrainCompleted { closed: 6, forced: 1, seconds: 40.04 }).await;
    let [(path, started), (_, completed)] = api.requests().try_into().unwrap();
    assert_eq!(path, "POST /apis/events.k8s.io/v1/namespaces/talk/events");
    let regarding =
        json!({"apiVersion": "v1", "kind": "Pod", "namespace": "talk", "name": "chat-api-7d9c-x2x", "uid": "6f7c"});
    assert_eq!(started["regarding"], regarding);
    assert_eq!(started["metadata"], json!({"generateName": "chat-api-7d9c-x2x-", "namespace": "talk"}));
    let of = |event: &Value, key: &str| event[key].as_str().unwrap().to_owned();
    assert_eq!(
        [of(&started, "reason"), of(&started, "type"), of(&started, "action")],
        ["DrainStarted", "Normal", "Drain"]
    );
    assert_eq!(
        [of(&started, "reportingController"), of(&started, "reportingInstance")],
        ["chat-api", "chat-api-7d9c-x2x"]
    );
    assert_eq!(of(&started, "note"), "Draining 7 connections");
    assert_eq!([of(&completed, "reason"), of(&completed, "type")], ["DrainCompleted", "Warning"]);
    assert_eq!(of(&completed, "note"), "Drained in 40.0 s: 6 connections closed, 1 cut");
    assert!(of(&started, "eventTime").parse::<Timestamp>().is_ok(), "{started}");
}

#[tokio::test]
async fn an_api_that_refuses_or_hangs_delays_nothing() {
    let api = Api::start([forbidden(), refusal(StatusCode::SERVICE_UNAVAILABLE, "ServiceUnavailable")]).await;
    let cluster = Cluster::new(api.client.clone(), &pod(), metrics()).unwrap();
    let start = Instant::now();
    for _ in 0..2 {
        cluster.event(ClusterEvent::DrainStarted { connections: 0 }).await;
    }
    assert!(start.elapsed() < DEADLINE, "refusals are not retried");
    assert!(cluster.complained[0].load(Ordering::Relaxed) && !cluster.complained[1].load(Ordering::Relaxed));
    let rule = cluster.missing_rule(KubernetesCall::Event);
    assert!(rule.contains("{apiGroups: [events.k8s.io], resources: [events], verbs: [create]}"), "{rule}");
    cluster.event(ClusterEvent::DrainStarted { connections: 0 }).await;
    assert!(start.elapsed() < DEADLINE * 3, "{:?}", start.elapsed());
    assert_eq!(api.requests().len(), 3);
}

/// Redis goes and comes, a configuration is refused, the node is full: each is told, once.
#[tokio::test]
async fn what_is_counted_is_told() {
    let api = Api::start(std::iter::repeat_with(created).take(20)).await;
    let metrics = metrics();
    metrics.redis_up.set(1);
    metrics.connections.set(9);
    let cluster = Arc::new(Cluster::new(api.client.clone(), &pod(), metrics.clone()).unwrap());
    let mut story = JoinSet::new();
    story.spawn(Story { cluster, metrics: metrics.clone(), deletion_cost: false }.tell());
    let told = || api.requests().iter().map(|(_, event)| event["reason"].clone()).collect::<Vec<_>>();
    let so_far = async |count: usize| {
        while told().len() < count {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        told()
    };
    tokio::time::sleep(Duration::from_millis(500)).await; // it has looked once
    metrics.redis_up.set(0);
    assert_eq!(so_far(1).await, ["RedisLost"]);
    metrics.redis_up.set(1);
    metrics.config_reload(false).inc();
    metrics.upgrade_failure(ProblemCode::Full).inc_by(7);
    assert_eq!(so_far(4).await, ["RedisLost", "RedisRestored", "ConfigRejected", "ConnectionLimitReached"]);
    assert_eq!(metrics.kubernetes_call(KubernetesCall::Event, "ok").get(), 4);
}

#[tokio::test]
async fn a_pod_says_what_it_would_cost() {
    let patched = || {
        (
            StatusCode::OK,
            json!({"apiVersion": "meta.k8s.io/v1", "kind": "PartialObjectMetadata", "metadata": {"name": "p"}}),
        )
    };
    let api = Api::start([patched(), forbidden()]).await;
    let cluster = Cluster::new(api.client.clone(), &pod(), metrics()).unwrap();
    assert!(cluster.set_deletion_cost(512).await);
    assert!(!cluster.set_deletion_cost(1024).await);
    let (path, patch) = api.requests().remove(0);
    assert_eq!(path, "PATCH /api/v1/namespaces/talk/pods/chat-api-7d9c-x2x");
    let annotations = json!({"controller.kubernetes.io/pod-deletion-cost": "512"});
    assert_eq!(patch, json!({"metadata": {"uid": "6f7c", "annotations": annotations}}));
    assert_eq!(cluster.metrics.kubernetes_call(KubernetesCall::DeletionCost, "forbidden").get(), 1);
    assert!(cluster.missing_rule(KubernetesCall::DeletionCost).contains("resources: [pods], verbs: [patch]"));
}

#[tokio::test]
async fn rights_are_asked_for_one_by_one() {
    let review = |allowed: bool| {
        let body = json!({
            "apiVersion": "authorization.k8s.io/v1", "kind": "SelfSubjectAccessReview", "metadata": {}, "spec": {}, "status": {"allowed": allowed}
        });
        (StatusCode::CREATED, body)
    };
    let api = Api::start([review(true), review(false)]).await;
    let rights = rights_with(api.client.clone(), &pod()).await.unwrap();
    let right = |what: &str, allowed| Right { what: what.to_owned(), allowed };
    assert_eq!(rights, [right("create events.k8s.io/events", true), right("patch pods", false)]);
    assert_eq!(api.requests()[1].1["spec"]["resourceAttributes"]["name"], "chat-api-7d9c-x2x");
}

#[tokio::test]
async fn outside_of_a_cluster_there_is_none() {
    assert!(Cluster::connect(&config::Kubernetes { enabled: false, ..pod() }, &metrics()).is_none());
    assert!(Cluster::connect(&pod(), &metrics()).is_none());
    let error = format!("{:#}", ensure_secret("chat-redis", "password").await.unwrap_err());
    assert!(error.contains("no pod with a ServiceAccount token"), "{error}");
    let api = Api::start([]).await;
    let nameless = config::Kubernetes { pod_name: None, ..pod() };
    let error = Cluster::new(api.client.clone(), &nameless, metrics()).unwrap_err().to_string();
    assert!(error.contains("kubernetes.pod_name is not set"), "{error}");
}

#[tokio::test]
async fn a_missing_secret_is_created_with_a_random_value() {
    let api = Api::start([not_found(), secret("password", "c2VjcmV0")]).await;
    assert_eq!(api.ensure().await.unwrap(), EnsureOutcome::Created);
    let [(get, _), (create, body)] = api.requests().try_into().unwrap();
    assert_eq!(get, "GET /api/v1/namespaces/talk/secrets/chat-redis");
    assert_eq!(create, "POST /api/v1/namespaces/talk/secrets");
    assert_eq!(body["metadata"], json!({"name": "chat-redis", "labels": {"app.kubernetes.io/managed-by": "chat-api"}}));
    let value = body["stringData"]["password"].as_str().unwrap();
    assert!(value.len() == 64 && value.bytes().all(|b| b.is_ascii_hexdigit()), "{value}");
    assert_ne!(value[..32], value[32..]);
}

#[tokio::test]
async fn a_secret_that_exists_is_left_alone() {
    let api = Api::start([secret("password", "c2VjcmV0")]).await;
    assert_eq!(api.ensure().await.unwrap(), EnsureOutcome::Kept);
    assert_eq!(api.requests().len(), 1);

    let faster = refusal(StatusCode::CONFLICT, "AlreadyExists");
    let api = Api::start([not_found(), faster, secret("password", "c2VjcmV0")]).await;
    assert_eq!(api.ensure().await.unwrap(), EnsureOutcome::Kept, "someone else was faster");
}

#[tokio::test]
async fn what_cannot_be_done_is_said() {
    let cases = [
        (vec![secret("other", "c2VjcmV0")], "exists without the key password"),
        (vec![secret("password", "")], "nothing under password"),
        (vec![forbidden()], "{apiGroups: [\"\"], resources: [secrets], verbs: [get, create]}"),
        (vec![not_found(), forbidden()], "namespace talk"),
        (vec![refusal(StatusCode::INTERNAL_SERVER_ERROR, "InternalError")], "cannot read or create secret chat-redis"),
    ];
    for (answers, expected) in cases {
        let error = format!("{:#}", Api::start(answers).await.ensure().await.unwrap_err());
        assert!(error.contains(expected), "{error}");
    }
    for (name, key) in
        [("../pods", "a"), ("Chat", "a"), ("", "a"), ("a..b", "a"), ("-a", "a"), ("a", ""), ("a", "a/b"), ("a", "..")]
    {
        assert!(check_names(name, key).is_err(), "{name:?} {key:?}");
    }
    assert!(check_names("chat-api.redis-0", "redis_password.A-1").is_ok());
}
