//! `jellyjar sim` as a process: a large team's mail over real sockets, and mail that arrives meanwhile.

use std::collections::BTreeSet;

use jellyjar::sim::Delivery;
use serde_json::{Value, json};

use crate::support::{Process, SECRET, SERVE, Serve, World, until, until_archived};

/// A simulator and a client of it.
struct Simulator {
    process: Process,
    world: World,
    client: reqwest::Client,
    base: String,
}

impl Simulator {
    fn start(arguments: &[&str]) -> Self {
        let world = World::new();
        let arguments = [&["sim", "--listen", "127.0.0.1:0", "--json"], arguments].concat();
        let process = world.start(world.command(&arguments));
        let mut ready = Value::Null;
        until("the simulator is ready", || {
            ready = serde_json::from_str(&process.stdout()).unwrap_or_default();
            ready.is_object()
        });
        let client = reqwest::Client::builder().no_proxy().build().unwrap();
        Self { process, world, client, base: ready["base_url"].as_str().unwrap().to_owned() }
    }

    fn text(&self, request: reqwest::RequestBuilder) -> String {
        self.world.jelly.block_on(async { request.send().await.unwrap().text().await.unwrap() })
    }

    fn get(&self, path: &str) -> Value {
        let url = format!("{}{path}", self.base);
        serde_json::from_str(&self.text(self.client.get(url).bearer_auth("sim-token"))).unwrap()
    }

    fn control(&self, method: &str, page: &str, body: &Value) -> String {
        let url = format!("{}/_sim/{page}", self.base.trim_end_matches("/api"));
        self.text(self.client.request(method.parse().unwrap(), url).body(body.to_string()))
    }

    fn stats(&self) -> Value {
        serde_json::from_str(&self.control("GET", "stats", &json!({}))).unwrap()
    }

    /// All conversations, page by page, and how many pages there were.
    fn walk(&self) -> (Vec<Value>, u64) {
        let (mut found, mut pages, mut next) = (Vec::new(), 0, String::new());
        loop {
            let cursor: String = url::form_urlencoded::byte_serialize(next.as_bytes()).collect();
            let page = self.get(&format!("/conversations?limit=100&cursor={cursor}"));
            found.extend(page["conversations"].as_array().unwrap().iter().cloned());
            pages += 1;
            match page["next_cursor"].as_str() {
                Some(cursor) => cursor.clone_into(&mut next),
                None => return (found, pages),
            }
        }
    }

    /// The ids that an archive of everything would hold.
    fn truth(&self) -> Vec<Value> {
        let lines = self.control("GET", "truth", &json!({}));
        lines.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    }
}

#[test]
fn a_large_team_is_listed_page_by_page_and_not_held_in_memory() {
    let mail = ["--profile", "plain", "--messages", "6000000", "--with-files", "20", "--conversation-messages", "300"];
    let mut simulator = Simulator::start(&mail);
    let (all, pages) = simulator.walk();
    assert_eq!((all.len(), pages), (20_000, 200));
    let slugs: BTreeSet<_> = all.iter().map(|conversation| conversation["id"].as_str().unwrap()).collect();
    assert_eq!(slugs.len(), 20_000);
    let with_files: Vec<_> = all.iter().filter(|conversation| conversation["attachments_count"] != 0).collect();
    assert_eq!(with_files.len(), 4_000);
    assert!(with_files.iter().all(|conversation| conversation["attachments_count"] == 300));
    let path = format!("/conversations/{}/messages?limit=100", with_files[0]["id"].as_str().unwrap());
    let page = simulator.get(&path);
    assert_eq!(page["messages"].as_array().unwrap().len(), 100);
    assert!(page["next_cursor"].is_string());
    let stats = simulator.stats();
    assert_eq!((&stats["conversation_pages"], &stats["message_pages"]), (&json!(200), &json!(1)));
    assert!(simulator.process.is_running());
    simulator.process.interrupt();
    let ended = simulator.process.wait();
    assert!(ended.peak_kib < 128 << 10, "{} KiB for mail that would fill gigabytes", ended.peak_kib);
}

#[test]
fn mail_arrives_during_a_walk_and_the_truth_knows_it() {
    let receiver = World::new();
    // Nothing takes webhooks there: they fail, and are counted.
    let hook = receiver.jelly.base_url();
    let mail =
        ["--profile", "plain", "--messages", "900", "--with-files", "30", "--mail-every", "2", "--webhook", &hook];
    let simulator = Simulator::start(&mail);
    let before = simulator.truth();
    assert_eq!(before.len(), 270);
    let (_, pages) = simulator.walk();
    assert!(pages >= 3, "{pages}");
    simulator.control("DELETE", "schedule", &json!({}));
    let message: Value = serde_json::from_str(&simulator.control(
        "POST",
        "mail",
        &json!({ "conversation": "c7", "attachments": 2, "inline": 1, "webhook": false }),
    ))
    .unwrap();
    assert_eq!(message["attachments_count"], 3);
    assert!(simulator.control("POST", "mail", &json!({ "conversation": "c999" })).contains("not found"));
    assert!(simulator.control("POST", "mail", &json!({ "attachment": 2 })).contains("unknown field"));
    let (all, _) = simulator.walk();
    assert_eq!(all[0]["id"], "c7");

    let truth = simulator.truth();
    let arrived: Vec<_> = truth.iter().filter(|known| known["arrived"] == true).collect();
    assert_eq!(arrived.len() as u64, pages / 2 + 2, "one for every second page, and two");
    let listed: u64 = all.iter().map(|conversation| conversation["attachments_count"].as_u64().unwrap()).sum();
    assert_eq!(listed, truth.len() as u64 + 1, "all but the inline one");
    until("webhooks have ended", || simulator.stats()["webhooks_failed"] == pages / 2);
    let stats = simulator.stats();
    assert_eq!((&stats["arrived"], &stats["webhooks_sent"]), (&json!(pages / 2 + 1), &json!(0)));
}

#[test]
fn new_mail_of_the_team_reaches_a_service_by_webhook() {
    let world = World::new();
    world.settings(SERVE);
    let serve = Serve::start(&world);
    world.jelly.set_webhook(&serve.webhook_url("default"), SECRET);
    world.jelly.set_faults("webhook-drop=at:2");
    let delivery = Delivery { attachments: 2, inline: 1, ..Delivery::default() };
    let messages: Vec<_> = (0..3).map(|_| world.jelly.deliver(&delivery)).collect();
    let truth = world.jelly.truth();
    let of = |message: &Value| {
        let own = truth.iter().filter(|known| message["id"] == known.message_id);
        own.map(|known| known.id.clone()).collect::<BTreeSet<_>>()
    };
    assert!(messages.iter().all(|message| of(message).len() == 2));
    until_archived(&world.archive(), &(&of(&messages[0]) | &of(&messages[2])));
    until("both webhooks were answered", || world.jelly.stats().webhooks_sent == 2);
    let stats = world.jelly.stats();
    assert_eq!((stats.arrived, stats.webhooks_failed, stats.webhooks_dropped), (3, 0, 1));
    serve.stop(&world);
}
