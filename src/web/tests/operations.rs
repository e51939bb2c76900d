//! What operators and their monitors are told.

use super::client::{ask, request};
use super::*;

#[derive(Debug, Clone, Default)]
struct Dependencies(Arc<Mutex<Vec<Dependency>>>, Arc<Mutex<Vec<String>>>);

impl Health for Dependencies {
    fn dependencies(&self) -> Vec<Dependency> {
        self.0.lock().unwrap().clone()
    }

    fn hanging(&self) -> Vec<String> {
        self.1.lock().unwrap().clone()
    }
}

#[tokio::test]
async fn health_readiness_and_metrics_are_told() {
    let config = config();
    let health = Dependencies::default();
    let listener = Listener::operations(&config).await.unwrap();
    let address = listener.address();
    let operations = Operations::new(health.clone(), || "jellyjar_up 1\n".into());
    tokio::spawn(listener.serve(Arc::new(operations), Signal::default(), Duration::ZERO));
    let get = async |path| ask(address, &request("GET", path, &[], b"")).await;

    let well = Dependency { name: "inbox".into(), state: Ok(()) };
    health.0.lock().unwrap().push(well);
    let reply = get("/readyz").await;
    assert_eq!(reply.status, 200);
    let text = r#"{"dependencies":[{"name":"inbox","ready":true,"reason":null}],"ready":true}"#;
    assert_eq!(reply.body.trim_end(), text);

    health.0.lock().unwrap().push(Dependency { name: "archive:a".into(), state: Err("disk \"full\"".into()) });
    let reply = get("/readyz").await;
    assert_eq!((reply.status, reply.header("content-type")), (503, Some("application/json")));
    let object: serde_json::Value = serde_json::from_str(&reply.body).unwrap();
    assert_eq!(object["ready"], false);
    assert_eq!(object["dependencies"][1]["reason"], "disk \"full\"");
    assert_eq!(get("/healthz").await.status, 200, "it is alive all the same");
    health.1.lock().unwrap().push("inbox of team a".into());
    let reply = get("/healthz").await;
    assert_eq!((reply.status, reply.body.trim_end()), (503, "no sign of life: inbox of team a"));
    health.1.lock().unwrap().clear();
    assert_eq!(get("/healthz").await.status, 200);

    let reply = get("/metrics").await;
    assert_eq!((reply.status, reply.body.as_str()), (200, "jellyjar_up 1\n"));
    assert!(reply.header("content-type").unwrap().starts_with("text/plain; version=0.0.4"));
    assert_eq!(get("/webhooks/default").await.status, 404);
    assert_eq!(ask(address, &request("POST", "/readyz", &[], b"x")).await.status, 405);
}
