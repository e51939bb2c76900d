//! The calls that change something, and what they refuse.

use serde_json::{Value, json};

use super::*;

impl World {
    /// Sends JSON and gives the status and the JSON of the answer.
    async fn send(&self, method: Method, path: &str, body: &Value) -> (u16, Value) {
        let url = format!("{}{path}", self.sim.base_url());
        let answer = self.client.request(method, url).bearer_auth("sim-token").json(body).send().await.unwrap();
        assert_eq!(answer.headers()[CONTENT_TYPE], "application/json; charset=utf-8", "{path}");
        (answer.status().as_u16(), answer.json().await.unwrap())
    }

    async fn post(&self, path: &str, body: Value) -> (u16, Value) {
        self.send(Method::POST, path, &body).await
    }

    async fn delete(&self, path: &str) -> (u16, Value) {
        self.send(Method::DELETE, path, &json!({})).await
    }

    async fn read(&self, path: &str) -> Value {
        self.api(path).await.json().await.unwrap()
    }

    /// Asserts that a post is refused with these messages.
    async fn refuses(&self, path: &str, body: Value, errors: &[&str]) {
        assert_eq!(self.post(path, body.clone()).await, (422, json!({ "errors": errors })), "{path} {body}");
    }

    async fn lacks(&self, path: &str, body: Value) {
        assert_eq!(self.post(path, body).await, (404, json!({ "error": "Resource not found" })), "{path}");
    }
}

#[tokio::test]
async fn a_label_has_a_name_of_its_own_and_a_known_colour() {
    let world = World::new("").await;
    let (status, label) = world.post("/labels", json!({ "name": "beta", "color": "plum-dark" })).await;
    assert_eq!((status, &label), (201, &json!({ "id": 5, "name": "beta", "color": "plum-dark" })));
    assert_eq!(world.post("/labels", json!({ "name": "Alpha" })).await.1["color"], "gray");
    let labels = world.read("/labels").await;
    let names: Vec<_> = labels.as_array().unwrap().iter().map(|label| label["name"].as_str().unwrap()).collect();
    assert_eq!(names, ["Alpha", "beta", "Invoices", "Orders", "Photos", "Später"], "sorted whatever the case");
    world.refuses("/labels", json!({ "name": " BETA " }), &["Name has already been taken"]).await;
    world.refuses("/labels", json!({ "name": "  " }), &["Name can't be blank"]).await;
    let both = ["Name can't be blank", "Color is not included in the list"];
    world.refuses("/labels", json!({ "color": "pink" }), &both).await;
    world.refuses("/labels", json!({ "name": "c", "color": "dark" }), &["Color is not included in the list"]).await;
    world.refuses("/labels", json!([]), &["Request body must be a JSON object"]).await;
    assert_eq!(world.read("/labels").await, labels, "nothing of that was made");
    let stats = world.sim.stats();
    assert_eq!((stats.writes, stats.reads), (7, 2));
}

#[tokio::test]
async fn a_body_that_is_no_json_is_refused_and_one_that_is_not_declared_is_not_read() {
    let world = World::new("").await;
    let url = format!("{}/labels", world.sim.base_url());
    for (media_type, body, error) in [
        ("application/json", r#"{"name":"#, "Request body is not valid JSON"),
        ("application/x-www-form-urlencoded", r#"{"name":"x"}"#, "Name can't be blank"),
    ] {
        let request = world.client.post(&url).bearer_auth("sim-token").header(CONTENT_TYPE, media_type);
        let answer = request.body(body).send().await.unwrap();
        assert_eq!(answer.status(), StatusCode::UNPROCESSABLE_ENTITY);
        assert_eq!(answer.json::<Value>().await.unwrap(), json!({ "errors": [error] }));
    }
}

#[tokio::test]
async fn labels_go_on_and_off_a_conversation() {
    let world = World::new("").await;
    let path = "/conversations/c00001/labels";
    let before = world.read("/conversations/c00001").await;
    let had: Vec<_> = before["labels"].as_array().unwrap().iter().map(|label| label["id"].as_u64().unwrap()).collect();
    let new = (1..=4).find(|id| !had.contains(id)).unwrap();
    let (status, labels) = world.post(path, json!({ "label_id": new })).await;
    assert_eq!((status, labels.as_array().unwrap().len()), (201, had.len() + 1));
    let (status, again) = world.post(path, json!({ "label_id": new.to_string() })).await;
    assert_eq!((status, &again), (201, &labels), "twice is once");
    let now = world.read("/conversations/c00001").await;
    assert_eq!((&now["labels"], &now["updated_at"]), (&labels, &json!("2027-01-15T08:00:00Z")));
    assert_eq!(now["last_message_at"], before["last_message_at"]);
    let listed = world.read(&format!("/conversations?limit=100&label_id={new}")).await;
    assert!(listed["conversations"].as_array().unwrap().iter().any(|conversation| conversation["id"] == "c00001"));

    for _ in 0..2 {
        assert_eq!(world.delete(&format!("{path}/{new}")).await, (200, before["labels"].clone()));
    }
    world.refuses(path, json!({}), &["Label can't be blank"]).await;
    world.lacks(path, json!({ "label_id": 99 })).await;
    world.lacks("/conversations/nothing/labels", json!({ "label_id": 1 })).await;
    assert_eq!(world.delete(&format!("{path}/99")).await.0, 404);
}

#[tokio::test]
async fn a_conversation_is_assigned_once_to_active_members() {
    let world = World::new("").await;
    let path = "/conversations/c00001/assignments";
    let (status, shown) = world.post(path, json!({ "member_id": 42 })).await;
    assert_eq!((status, &shown["assignees"][0]["id"]), (201, &json!("42")));
    let (status, again) = world.post(path, json!({ "email": "JONAS@harbour.example" })).await;
    assert_eq!((status, &again), (200, &shown));
    let (status, both) = world.post(path, json!({ "email": "ada@harbour.example", "member_id": null })).await;
    assert_eq!((status, both["assignees"].as_array().unwrap().len()), (201, 2));
    assert_eq!(world.read("/conversations/c00001").await["assignees"], both["assignees"]);
    let error = ["Provide exactly one of member_id or email"];
    world.refuses(path, json!({}), &error).await;
    world.refuses(path, json!({ "member_id": 42, "email": "ada@harbour.example" }), &error).await;
    // Nobody, someone of another team, someone who has left.
    for body in
        [json!({ "member_id": 4200 }), json!({ "email": "eve@elsewhere.example" }), json!({ "member_id": "47" })]
    {
        world.lacks(path, body).await;
    }
    for _ in 0..2 {
        let (status, shown) = world.delete(&format!("{path}/42")).await;
        assert_eq!((status, &shown["assignees"][0]["id"]), (200, &json!("41")));
        assert_eq!(shown["assignees"].as_array().unwrap().len(), 1);
    }
    assert_eq!(world.delete(&format!("{path}/4200")).await.0, 404);
}

#[tokio::test]
async fn a_message_has_one_draft_reply_which_is_never_replaced() {
    let world = World::new("").await;
    let path = "/conversations/c00002/draft_reply";
    let messages = world.read("/conversations/c00002/messages").await["messages"].clone();
    let last = messages.as_array().unwrap().last().unwrap();
    assert_eq!(last["inbound"], true);
    world.refuses(path, json!({}), &["Body can't be blank"]).await;
    let (status, draft) = world.post(path, json!({ "body": " <p>Hi</p>" })).await;
    assert_eq!((status, &draft["sent_at"], &draft["html_body"]), (201, &Value::Null, &json!(" <p>Hi</p>")));
    assert_eq!((&draft["to"], &draft["from"], &draft["subject"]), (&last["from"], &last["to"], &last["subject"]));
    assert_eq!(draft["sender"], Value::Null);
    let (status, again) = world.post(path, json!({ "body": "other", "message_id": last["id"] })).await;
    assert_eq!((status, &again), (409, &draft));
    assert_eq!(world.read(&format!("/messages/{}", draft["id"].as_str().unwrap())).await, draft);
    assert_eq!(world.read("/conversations/c00002/messages").await["messages"], messages, "nothing was sent");

    let body = json!({ "body": "x", "message_id": messages[0]["id"], "member_id": "42", "to": "a@b.example",
                       "cc": ["Zoë <z@b.example>", "c@d.example"], "bcc": [] });
    let (status, first) = world.post(path, body).await;
    assert_eq!(
        (status, &first["sender"]["name"], &first["to"]),
        (201, &json!("Jonas Okafor"), &json!(["a@b.example"]))
    );
    assert_eq!(first["cc"], json!(["Zoë <z@b.example>", "c@d.example"]));
    assert_ne!(first["id"], draft["id"]);

    let path = "/conversations/c00003/draft_reply";
    world.lacks(path, json!({ "body": "x", "message_id": last["id"] })).await;
    world.lacks(path, json!({ "body": "x", "member_id": 47 })).await;
    world.refuses(path, json!({ "body": "x", "to": "nobody" }), &["To is invalid"]).await;
    world.refuses(path, json!({ "body": "x", "cc": [5] }), &["Cc is invalid"]).await;
    world.refuses(path, json!({ "body": "x", "bcc": "a b@c" }), &["Bcc is invalid"]).await;
}

#[tokio::test]
async fn comments_are_counted() {
    let world = World::new("").await;
    let path = "/conversations/c00001/comments";
    let (status, comment) = world.post(path, json!({ "body": "Who takes this?" })).await;
    assert_eq!((status, &comment["body"]), (201, &json!("Who takes this?")));
    assert_ne!(world.post(path, json!({ "body": "I do." })).await.1["id"], comment["id"]);
    world.refuses(path, json!({ "body": "" }), &["Body can't be blank"]).await;
    assert_eq!(world.read("/conversations/c00001").await["comments_count"], 2);
}

#[tokio::test]
async fn a_contact_is_one_for_its_address_and_what_is_sent_replaces() {
    let world = World::new("").await;
    let found = world.read("/contacts/for_email?email=zoe.brandt%40brandt-schiffe.example").await;
    assert_eq!(found["name"], "Zoë Brandt");
    assert!(found["id"].is_string() && found["url"].as_str().unwrap().ends_with(found["id"].as_str().unwrap()));
    assert_eq!(world.api("/contacts/for_email?email=no@one.example").await.status(), StatusCode::NOT_FOUND);
    assert_eq!(world.api("/contacts/for_email").await.status(), StatusCode::UNPROCESSABLE_ENTITY);

    let whole = json!({ "email": "new+tag@x.example", "name": "New", "note": "n", "links": { "A": "https://a.example" },
                        "labels": ["orders", "Später"] });
    let (status, made) = world.post("/contacts", whole).await;
    assert_eq!((status, made["id"].is_u64()), (201, true));
    assert_eq!(made["links"], json!([{ "title": "A", "url": "https://a.example" }]));
    let labels = json!([{ "name": "Orders", "color": "mint" }, { "name": "Später", "color": "gray" }]);
    assert_eq!(made["labels"], labels);
    let (status, same) = world.post("/contacts", json!({ "email": "NEW+tag@x.example" })).await;
    assert_eq!((status, &same), (200, &made), "what is not sent stays");
    let change =
        json!({ "email": "new+tag@x.example", "name": "Newer", "links": { "B": "https://b.example" }, "labels": [] });
    let (_, changed) = world.post("/contacts", change).await;
    assert_eq!((&changed["name"], &changed["note"], &changed["labels"]), (&json!("Newer"), &json!("n"), &json!([])));
    assert_eq!(changed["links"], json!([{ "title": "B", "url": "https://b.example" }]));
    assert_eq!(world.read("/contacts/for_email?email=new%2Btag@x.example").await["name"], "Newer");

    world.refuses("/contacts", json!({ "name": "x" }), &["Email can't be blank"]).await;
    let errors = ["Email is invalid", "Links must be an object of titles and URLs", "Label \"VIP\" does not exist"];
    world.refuses("/contacts", json!({ "email": "x", "links": [], "labels": ["Orders", "VIP"] }), &errors).await;
    let labels = json!({ "email": "new+tag@x.example", "name": "Wrong", "labels": "VIP" });
    world.refuses("/contacts", labels, &["Labels must be an array of names"]).await;
    assert_eq!(world.post("/contacts", json!({ "email": "new+tag@x.example" })).await.1, changed);
}

#[tokio::test]
async fn a_call_that_goes_wrong_changes_nothing() {
    let world = World::new("call-500=at:1").await;
    assert_eq!(world.post("/labels", json!({ "name": "New" })).await.0, 500);
    assert_eq!(world.read("/labels").await, json!({ "error": "Internal server error" }), "each call has its own first");
    assert_eq!(world.read("/labels").await.as_array().unwrap().len(), 4);
    assert_eq!(world.post("/labels", json!({ "name": "New" })).await.0, 201);
}
