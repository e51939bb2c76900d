//! The page's commands as they stand there, and the requests of its JavaScript.

use serde_json::{Value, json};

use super::{Page, attachment};

/// The page's commands, in its order.
#[test]
fn every_curl_command_of_the_page_works() {
    let page = Page::open(&[]);
    page.post("/labels", &json!({ "name": "VIP" })).json(201);
    page.post("/contacts", &json!({ "email": "michael@bluth.company" })).json(201);

    let labels = page.run(
        r#"curl "https://app.letsjelly.com/api/labels" \
  -H "Authorization: Bearer YOUR_API_TOKEN""#,
    );
    assert_eq!(labels.json(200).as_array().unwrap().len(), 5);
    let label = page.run(
        r#"curl -X POST "https://app.letsjelly.com/api/labels" \
  -H "Authorization: Bearer YOUR_API_TOKEN" \
  -H "Content-Type: application/json" \
  -d '{"name": "Bug", "color": "cherry"}'"#,
    );
    let label = label.json(201);
    assert_eq!((&label["name"], &label["color"]), (&json!("Bug"), &json!("cherry")));
    let apply = r#"curl -X POST "https://app.letsjelly.com/api/conversations/my-conversation/labels" \
  -H "Authorization: Bearer YOUR_API_TOKEN" \
  -H "Content-Type: application/json" \
  -d '{"label_id": 123}'"#;
    page.run(apply).json(404);
    let applied = page.run(&apply.replace("123", &label["id"].to_string())).json(201);
    assert!(applied.as_array().unwrap().contains(&label));
    let find = r#"curl "https://app.letsjelly.com/api/contacts/for_email?email=alice@example.com" \
  -H "Authorization: Bearer YOUR_API_TOKEN""#;
    page.run(find).json(404);
    let save = r#"curl -X POST "https://app.letsjelly.com/api/contacts" \
  -H "Authorization: Bearer YOUR_API_TOKEN" \
  -H "Content-Type: application/json" \
  -d '{"email": "alice@example.com", "name": "Alice Smith", "note": "VIP customer", "labels": ["VIP"]}'"#;
    let contact = page.run(save).json(201);
    assert_eq!((&contact["note"], &contact["labels"][0]["name"]), (&json!("VIP customer"), &json!("VIP")));
    assert_eq!(page.run(save).json(200), contact);
    assert_eq!(page.run(find).json(200)["name"], "Alice Smith");
    let draft = r#"curl -X POST "https://app.letsjelly.com/api/conversations/my-conversation/draft_reply" \
  -H "Authorization: Bearer YOUR_API_TOKEN" \
  -H "Content-Type: application/json" \
  -d '{"body": "<p>Thanks for reaching out!</p>", "member_id": 42}'"#;
    let made = page.run(draft).json(201);
    assert_eq!(made["html_body"], "<p>Thanks for reaching out!</p>");
    assert_eq!(page.run(draft).json(409), made);
    let members = page.run(
        r#"curl "https://app.letsjelly.com/api/members" \
  -H "Authorization: Bearer YOUR_API_TOKEN""#,
    );
    let members = members.json(200);
    assert_eq!(members.as_array().unwrap().len(), 3);
    let assign = r#"curl -X POST "https://app.letsjelly.com/api/conversations/my-conversation/assignments" \
  -H "Authorization: Bearer YOUR_API_TOKEN" \
  -H "Content-Type: application/json" \
  -d '{"email": "michael@bluth.company"}'"#;
    // A contact is no member.
    page.run(assign).json(404);
    let assign = assign.replace("michael@bluth.company", "jonas@harbour.example");
    assert_eq!(page.run(&assign).json(201)["assignees"], json!([members[1]]));
    let unassign = page.run(
        r#"curl -X DELETE "https://app.letsjelly.com/api/conversations/my-conversation/assignments/42" \
  -H "Authorization: Bearer YOUR_API_TOKEN""#,
    );
    assert_eq!(unassign.json(200)["assignees"], json!([]));
    let file = attachment(&page);
    let download = r#"curl -L "https://app.letsjelly.com/api/attachments/ATTACHMENT_ID" \
  -H "Authorization: Bearer YOUR_API_TOKEN" \
  -o invoice.pdf"#;
    let answer = page.run(&download.replace("ATTACHMENT_ID", file["id"].as_str().unwrap()));
    assert_eq!(answer.status, 200, "{}", answer.head);
    let bytes = std::fs::read(page.world.path("invoice.pdf")).unwrap();
    assert_eq!(bytes.len() as u64, file["byte_size"]);
}

/// What the page's JavaScript sends: a content type with every request, also with one that has no body, and no field
/// that was not given.
#[test]
fn the_requests_of_the_javascript_examples_work() {
    let page = Page::open(&[]);
    let listed = page.run(
        "curl https://app.letsjelly.com/api/labels -H 'Authorization: Bearer YOUR_API_TOKEN' \
         -H 'Content-Type: application/json'",
    );
    assert_eq!(listed.json(200).as_array().unwrap().len(), 4);
    let label = page.post("/labels", &json!({ "name": "Without a colour" })).json(201);
    assert!(label["color"].is_string());
    assert_eq!(page.post("/contacts", &json!({ "email": "bare@example.com" })).json(201)["name"], Value::Null);
    let path = format!("/conversations/{}/draft_reply", page.conversation);
    page.post(&path, &json!({ "body": "<p>Unowned</p>" })).json(201);
}
