//! The simulator held against the vendor's own API page, example by example: each documented request is sent by curl to
//! a real `jellyjar sim`, and its answer must have the documented status and shape. Names, ids and addresses are the
//! simulated team's; where the page shows a command, it is run as it stands there, but for base URL, token and ids.

mod commands;

use std::process::Command;

use serde_json::{Value, json};

use crate::support::{Process, World, until};

/// What newer answers have besides what the page shows.
const NEWER: [&str; 2] = ["conversation_id", "created_at"];

/// A simulator with the page's conversation, and curl.
struct Page {
    // Before the world, whose folder it writes to.
    _simulator: Process,
    world: World,
    base: String,
    conversation: String,
}

/// An answer as curl saw it.
#[derive(Debug)]
struct Answer {
    status: u16,
    head: String,
    body: Vec<u8>,
}

impl Answer {
    /// The body of an answer that must have this status, and must be JSON and say so.
    fn json(&self, status: u16) -> Value {
        assert_eq!(self.status, status, "{}", String::from_utf8_lossy(&self.body));
        assert!(self.head.to_lowercase().contains("\ncontent-type: application/json"), "{}", self.head);
        serde_json::from_slice(&self.body).unwrap()
    }
}

impl Page {
    fn open(more: &[&str]) -> Self {
        let world = World::new();
        let arguments = [&["sim", "--listen", "127.0.0.1:0", "--messages", "30", "--json"], more].concat();
        let simulator = world.start(world.command(&arguments));
        let mut ready = Value::Null;
        until("the simulator is ready", || {
            ready = serde_json::from_str(&simulator.stdout()).unwrap_or_default();
            ready.is_object()
        });
        let base = ready["base_url"].as_str().unwrap().to_owned();
        Self { _simulator: simulator, world, base, conversation: "c00002".into() }
    }

    /// Runs a command of the page in a shell.
    fn run(&self, command: &str) -> Answer {
        let command = command
            .replace("https://app.letsjelly.com/api", &self.base)
            .replace("YOUR_API_TOKEN", "sim-token")
            .replace("my-conversation", &self.conversation);
        let (_, rest) = command.split_once("curl ").unwrap();
        let command = format!("curl --silent --show-error --dump-header head -w '%{{stderr}}%{{http_code}}' {rest}");
        let mut shell = Command::new("sh");
        shell.env_clear().env("PATH", "/usr/local/bin:/usr/bin:/bin").env("HOME", self.world.path("."));
        let output = shell.current_dir(self.world.path(".")).args(["-c", &command]).output().unwrap();
        let said = String::from_utf8(output.stderr).unwrap();
        let status = said.parse().unwrap_or_else(|_| panic!("is curl installed? {command}\nsaid: {said}"));
        Answer { status, head: std::fs::read_to_string(self.world.path("head")).unwrap(), body: output.stdout }
    }

    fn get(&self, path: &str) -> Answer {
        self.run(&format!("curl \"{}{path}\" -H \"Authorization: Bearer YOUR_API_TOKEN\"", self.base))
    }

    fn post(&self, path: &str, body: &Value) -> Answer {
        self.run(&format!(
            "curl -X POST \"{}{path}\" -H \"Authorization: Bearer YOUR_API_TOKEN\" \
             -H \"Content-Type: application/json\" -d '{}'",
            self.base,
            body.to_string().replace('\'', "'\\''"),
        ))
    }

    fn delete(&self, path: &str) -> Answer {
        self.run(&format!("curl -X DELETE \"{}{path}\" -H \"Authorization: Bearer YOUR_API_TOKEN\"", self.base))
    }
}

/// Asserts that an answer has the fields of the documented one, of the same types, and no others than newer ones. Each
/// entry of an array must be as the documented entries are.
fn has_shape(documented: &Value, answered: &Value, at: &str) {
    match (documented, answered) {
        (Value::Object(documented), Value::Object(answered)) => {
            for (name, value) in documented {
                let found = answered.get(name).unwrap_or_else(|| panic!("{at}.{name} is missing"));
                has_shape(value, found, &format!("{at}.{name}"));
            }
            for name in answered.keys() {
                assert!(
                    documented.contains_key(name) || NEWER.contains(&name.as_str()),
                    "{at}.{name} is not documented"
                );
            }
        }
        (Value::Array(documented), Value::Array(answered)) => {
            if let Some(example) = documented.first() {
                assert!(!answered.is_empty(), "{at} is empty");
                for value in answered {
                    has_shape(example, value, &format!("{at}[]"));
                }
            }
        }
        (documented, answered) => {
            let kind = std::mem::discriminant::<Value>;
            let is_flag = documented.is_boolean() && answered.is_boolean();
            assert!(
                is_flag || kind(documented) == kind(answered),
                "{at}: documented {documented}, answered {answered}"
            );
        }
    }
}

fn member() -> Value {
    json!({ "id": "42", "name": "Michael Bluth", "email": "michael@bluth.company", "role": "owner", "active": true })
}

#[test]
fn labels_are_listed_by_name_and_created() {
    let page = Page::open(&[]);
    let labels = page.get("/labels").json(200);
    has_shape(&json!([{ "id": 1, "name": "Bug", "color": "cherry" }]), &labels, "labels");
    let names: Vec<_> = labels.as_array().unwrap().iter().map(|label| label["name"].as_str().unwrap()).collect();
    assert!(names.is_sorted(), "{names:?}");

    let label = page.post("/labels", &json!({ "name": "Important", "color": "cherry" })).json(201);
    assert_eq!(label, json!({ "id": label["id"].as_u64().unwrap(), "name": "Important", "color": "cherry" }));
    assert!(page.get("/labels").json(200).as_array().unwrap().contains(&label));
    let taken = page.post("/labels", &json!({ "name": "Important" })).json(422);
    assert_eq!(taken, json!({ "errors": ["Name has already been taken"] }));
}

#[test]
fn members_are_the_active_ones_with_ids_as_text() {
    let members = Page::open(&[]).get("/members").json(200);
    has_shape(&json!([member()]), &members, "members");
    assert!(members.as_array().unwrap().iter().all(|member| member["active"] == true));
}

#[test]
fn a_label_goes_onto_a_conversation_and_all_its_labels_come_back() {
    let page = Page::open(&[]);
    let label = page.post("/labels", &json!({ "name": "Important", "color": "cherry" })).json(201);
    let path = format!("/conversations/{}/labels", page.conversation);
    let labels = page.post(&path, &json!({ "label_id": label["id"] })).json(201);
    has_shape(&json!([{ "id": 3, "name": "Important", "color": "cherry" }]), &labels, "labels");
    assert!(labels.as_array().unwrap().contains(&label));
    assert_eq!(page.get(&format!("/conversations/{}", page.conversation)).json(200)["labels"], labels);
}

#[test]
fn a_conversation_is_assigned_and_unassigned_and_doing_so_twice_is_no_error() {
    let page = Page::open(&[]);
    let path = format!("/conversations/{}/assignments", page.conversation);
    let documented = json!({ "id": "stair-car", "subject": "Stair car incident", "status": "open",
                             "assignees": [member()], "labels": [] });
    let assigned = page.post(&path, &json!({ "email": "jonas@harbour.example" })).json(201);
    has_shape(&documented, &assigned, "conversation");
    assert_eq!((&assigned["id"], &assigned["assignees"][0]["id"]), (&json!(page.conversation), &json!("42")));
    assert_eq!(page.post(&path, &json!({ "member_id": "42" })).json(200), assigned, "already assigned");

    let unassigned = page.delete(&format!("{path}/42")).json(200);
    assert_eq!(unassigned["assignees"], json!([]));
    assert_eq!(page.delete(&format!("{path}/42")).json(200), unassigned, "not assigned");

    for body in [json!({}), json!({ "member_id": 42, "email": "jonas@harbour.example" })] {
        page.post(&path, &body).json(422);
    }
    page.post(&path, &json!({ "email": "michael@bluth.company" })).json(404);
}

#[test]
fn a_draft_reply_is_made_once_and_then_conflicts_with_itself() {
    let page = Page::open(&[]);
    let path = format!("/conversations/{}/draft_reply", page.conversation);
    let body = json!({ "body": "<p>Thanks for reaching out! We'll look into this right away.</p>", "member_id": 42 });
    let documented = json!({
        "id": "123", "subject": "Re: Stair car", "inbound": false, "sent_at": null,
        "url": "https://app.letsjelly.com/teams/your-team/conversations/stair-car#message_123",
        "from": ["contact@bluth.company"], "to": ["sally@sitwell.test"], "cc": [],
        "html_body": "<p>Thanks for reaching out! We'll look into this right away.</p>", "text_body": "",
        "attachments_count": 0, "attachments": [],
        "sender": { "type": "member", "id": "42", "name": "Michael Bluth", "email": "michael@bluth.company" },
    });
    let draft = page.post(&path, &body).json(201);
    has_shape(&documented, &draft, "draft");
    for name in ["inbound", "html_body", "text_body", "attachments_count", "attachments"] {
        assert_eq!(draft[name], documented[name], "{name}");
    }
    assert_eq!((&draft["sender"]["type"], &draft["sender"]["id"]), (&json!("member"), &json!("42")));
    assert!(draft["url"].as_str().unwrap().ends_with(&format!("#message_{}", draft["id"].as_str().unwrap())));
    let other = page.post(&path, &json!({ "body": "<p>Another</p>" })).json(409);
    assert_eq!(other, draft, "the draft that is there comes back");

    let first = page.get(&format!("/conversations/{}/messages", page.conversation)).json(200)["messages"][0].clone();
    let body = json!({ "body": "<p>x</p>", "message_id": first["id"], "to": "else@where.test", "cc": "c@where.test",
                       "bcc": "b@where.test" });
    let draft = page.post(&path, &body).json(201);
    assert_eq!((&draft["to"], &draft["cc"]), (&json!(["else@where.test"]), &json!(["c@where.test"])));
    assert_eq!(page.post(&path, &json!({})).json(409)["html_body"], other["html_body"]);
    let fresh = page.post("/conversations/c00003/draft_reply", &json!({ "member_id": 42 })).json(422);
    assert_eq!(fresh, json!({ "errors": ["Body can't be blank"] }));
}

#[test]
fn a_contact_is_found_by_its_address() {
    let page = Page::open(&[]);
    page.get("/contacts/for_email?email=alice@example.com").json(404);
    page.post("/contacts", &json!({ "email": "alice@example.com", "name": "Alice Smith" })).json(201);
    let contact = page.get("/contacts/for_email?email=alice@example.com").json(200);
    let documented = json!({ "id": "abc123", "name": "Alice Smith", "email": "alice@example.com",
                             "url": "https://app.letsjelly.com/teams/your-team/contacts/abc123" });
    has_shape(&documented, &contact, "contact");
    assert_eq!((&contact["name"], &contact["email"]), (&documented["name"], &documented["email"]));
    // As `encodeURIComponent` of the page's JavaScript does it.
    assert_eq!(page.get("/contacts/for_email?email=alice%40example.com").json(200), contact);
}

#[test]
fn a_contact_is_created_then_updated_and_what_is_sent_replaces() {
    let page = Page::open(&[]);
    page.post("/labels", &json!({ "name": "VIP", "color": "cherry" })).json(201);
    page.post("/labels", &json!({ "name": "Partner", "color": "mint" })).json(201);
    let body = json!({
        "email": "alice@example.com", "name": "Alice Smith", "note": "VIP customer, handle with care",
        "links": { "LinkedIn": "https://linkedin.com/in/alice", "Website": "https://alice.example.com" },
        "labels": ["VIP", "Partner"],
    });
    let contact = page.post("/contacts", &body).json(201);
    let documented = json!({
        "id": contact["id"].as_u64().unwrap(), "email": "alice@example.com", "name": "Alice Smith",
        "note": "VIP customer, handle with care",
        "links": [
            { "title": "LinkedIn", "url": "https://linkedin.com/in/alice" },
            { "title": "Website", "url": "https://alice.example.com" },
        ],
        "labels": [{ "name": "VIP", "color": "cherry" }, { "name": "Partner", "color": "mint" }],
    });
    assert_eq!(contact, documented);
    assert_eq!(page.post("/contacts", &body).json(200), documented);
    // Only a name, as the page's JavaScript sends it when nothing else is given.
    let renamed = page.post("/contacts", &json!({ "email": "alice@example.com", "name": "Alice" })).json(200);
    assert_eq!((&renamed["name"], &renamed["links"]), (&json!("Alice"), &documented["links"]));
    assert_eq!((&renamed["note"], &renamed["labels"]), (&documented["note"], &documented["labels"]));
    let replaced = json!({ "email": "alice@example.com", "note": "x", "links": {}, "labels": ["Partner"] });
    let replaced = page.post("/contacts", &replaced).json(200);
    assert_eq!((&replaced["note"], &replaced["links"]), (&json!("x"), &json!([])));
    assert_eq!(replaced["labels"], json!([{ "name": "Partner", "color": "mint" }]));
    page.post("/contacts", &json!({ "email": "alice@example.com", "labels": ["Nobody made this"] })).json(422);
}

/// A message's first attachment that is a file with some bytes.
fn attachment(page: &Page) -> Value {
    let list = page.get("/conversations?limit=100").json(200);
    let slugs = list["conversations"].as_array().unwrap().iter().map(|entry| entry["id"].as_str().unwrap());
    let mut files = slugs.flat_map(|slug| {
        let messages = page.get(&format!("/conversations/{slug}/messages")).json(200)["messages"].clone();
        let messages: Vec<Value> = serde_json::from_value(messages).unwrap();
        messages.into_iter().flat_map(|message| message["attachments"].as_array().unwrap().clone())
    });
    files.find(|file| file["inline"] == false && file["byte_size"].as_u64() > Some(0)).unwrap()
}

#[test]
fn an_attachment_is_described_and_its_id_is_exchanged_for_a_link_of_a_few_minutes() {
    let page = Page::open(&["--link-ttl", "0s"]);
    let file = attachment(&page);
    let documented = json!({
        "id": "eyJfcmFpbHMiOnsiZGF0YSI6MTIz...", "filename": "invoice.pdf", "content_type": "application/pdf",
        "byte_size": 48291, "inline": false,
        "url": "https://app.letsjelly.com/api/attachments/eyJfcmFpbHMiOnsiZGF0YSI6MTIz...",
    });
    has_shape(&documented, &file, "attachment");
    let id = file["id"].as_str().unwrap();
    assert!(id.starts_with("eyJfcmFpbHMiOnsiZGF0YSI6"), "{id}");
    assert_eq!(file["url"], format!("https://app.letsjelly.com/api/attachments/{id}"));

    let location = |answer: &Answer| {
        let line = answer.head.lines().find_map(|line| line.strip_prefix("Location: "));
        line.unwrap().to_owned()
    };
    let first = page.get(&format!("/attachments/{id}"));
    let second = page.get(&format!("/attachments/{id}"));
    assert_eq!((first.status, second.status), (302, 302));
    assert_ne!(location(&first), location(&second), "a fresh link on each request");
    let expired = page.run(&format!("curl '{}'", location(&second)));
    assert_eq!(expired.status, 403, "after its time a link is dead");
    page.get("/attachments/eyJfcmFpbHMiOnsiZGF0YSI6MTIz--00").json(404);
}

#[test]
fn errors_are_json_with_the_documented_texts() {
    let page = Page::open(&["--fault", "call-500=at:3"]);
    let invalid = json!({ "error": "Invalid API token" });
    assert_eq!(page.run("curl https://app.letsjelly.com/api/labels").json(401), invalid);
    let wrong = "curl https://app.letsjelly.com/api/labels -H 'Authorization: Bearer wrong'";
    assert_eq!(page.run(wrong).json(401), invalid);
    assert_eq!(page.get("/conversations/no-such-thing").json(404), json!({ "error": "Resource not found" }));
    for answer in [page.get("/nothing"), page.get(""), page.delete("/members"), page.post("/members", &json!({}))] {
        assert_eq!(answer.json(404), json!({ "error": "Endpoint not found" }));
    }
    for _ in 0..2 {
        assert_eq!(page.post("/labels", &json!({})).json(422), json!({ "errors": ["Name can't be blank"] }));
    }
    assert_eq!(page.post("/labels", &json!({})).json(500), json!({ "error": "Internal server error" }));
}
