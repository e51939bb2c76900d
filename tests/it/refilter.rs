//! `refilter`: what was skipped by rules of yesterday is fetched by those of today, without its dump.

use serde_json::{Value, json};

use crate::support::{World, attachments, events, ids};

/// Six messages; the first two have PDFs, the third has an inline picture.
fn mail() -> Vec<Value> {
    let mut mail = events(6, 1, (100, 100));
    for (index, event) in mail.iter_mut().enumerate() {
        let pdf = index < 2;
        attachments(event)[0]["content_type"] = json!(if pdf { "application/pdf" } else { "image/png" });
        attachments(event)[0]["inline"] = json!(index == 2);
        event["data"]["message"]["from"] = json!([format!("s{index}@x.example")]);
    }
    mail
}

fn refilter(world: &World, flags: &[&str]) -> Value {
    let ended = world.run(&[&["refilter", "--archive", "archive", "--json"], flags].concat());
    assert_eq!(ended.code(), Some(0), "{ended:?}");
    ended.json()
}

#[test]
fn what_the_rules_accept_now_is_fetched_from_its_stable_id() {
    let world = World::new();
    world.dump(&mail());
    assert_eq!(world.replay_with(&["--type", "application/pdf"]).archived, 2);
    std::fs::remove_dir_all(world.path("dump")).unwrap();

    let plan = refilter(&world, &["--dry-run", "--type", "image/*"]);
    assert_eq!((&plan["accepted"], &plan["accepted_bytes"]), (&json!(3), &json!(300)), "{plan}");
    assert_eq!((&plan["still_skipped"], &plan["archived_against_rules"]), (&json!(1), &json!(2)), "{plan}");
    assert_eq!(world.jelly.stats().exchanges, 2, "a dry run asks for nothing");
    assert_eq!(world.ledger().count("archived"), 2);

    let done = refilter(&world, &["--type", "image/*"]);
    assert_eq!((&done["attachments"], &done["archived"]), (&json!(3), &json!(3)), "{done}");
    assert_eq!(done["refilter"]["archived_against_rules"], 2, "{done}");
    assert_eq!((world.jelly.stats().exchanges, world.ledger().count("archived")), (5, 5), "what is archived stays");

    let again = refilter(&world, &["--type", "image/*"]);
    assert_eq!((&again["attachments"], &again["api_requests"]), (&json!(0), &json!(0)), "{again}");
    assert_eq!(refilter(&world, &["--inline", "keep"])["archived"], 1);
    assert_eq!(world.ledger().ids("archived"), ids(&mail()));
    world.lose_catalog();
    assert_eq!(refilter(&world, &["--dry-run"])["accepted"], 0, "the journal has it all");
}

#[test]
fn any_message_that_is_accepted_wins() {
    let world = World::new();
    let mut mail = mail();
    let shared = attachments(&mut mail[3])[0].clone();
    *attachments(&mut mail[4]) = vec![shared];
    world.dump(&mail[3..5]);
    assert_eq!(world.replay_with(&["--type", "application/pdf"]).skipped, 1);
    assert_eq!(refilter(&world, &["--sender", "s4@*"])["archived"], 1);
}

#[test]
fn rules_in_the_configuration_count_and_a_token_is_needed_to_fetch() {
    let world = World::new();
    world.dump(&mail());
    world.settings("[filter]\nsenders = [\"s0@*\"]\n");
    assert_eq!(world.replay().archived, 1);
    world.settings("[filter]\nskip_senders = [\"s0@*\"]\n");
    let mut command = world.command(&["refilter", "--archive", "archive", "--dry-run", "--json"]);
    command.env_remove("JELLY_API_TOKEN");
    let plan = world.start(command).wait();
    assert_eq!((plan.code(), &plan.json()["accepted"]), (Some(0), &json!(4)), "{plan:?}");
    let mut command = world.command(&["refilter", "--archive", "archive"]);
    command.env_remove("JELLY_API_TOKEN");
    let refused = world.start(command).wait();
    assert_eq!(refused.code(), Some(2), "{refused:?}");
    let text = world.run(&["refilter", "--archive", "archive"]);
    assert!(
        text.stdout.contains("1 that are archived would be skipped by these rules; they stay archived."),
        "{text:?}"
    );
    assert_eq!(world.ledger().count("archived"), 5);
}

#[test]
fn an_attachment_that_fails_on_the_way_is_told_and_pending_work_survives_a_crash() {
    let world = World::new();
    world.dump(&mail());
    world.replay_with(&["--type", "application/pdf"]);
    world.jelly.set_faults("api-404=1.0");
    let ended = world.run(&["refilter", "--archive", "archive", "--json"]);
    assert_eq!((ended.code(), &ended.json()["failed"]), (Some(1), &json!(3)), "{ended:?}");
    world.jelly.set_faults("");
    assert_eq!(world.run(&["retry", "--archive", "archive", "--json"]).json()["archived"], 3);
}
