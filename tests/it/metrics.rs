//! What `/metrics` tells of a service that has really worked, number by number.

use std::collections::BTreeMap;

use serde_json::json;

use crate::support::{SECRET, SERVE, Serve, World, attachments, events, until};

/// A quota, so that something is left of it; and people are told of trouble at once.
const SETTINGS: &str = "\
[quota]
requests_per_window = 50
requests_per_day = 100
[notify]
delay = \"0s\"
[filter]
skip_names = [\"*.skip\"]
";

/// Sizes of the attachments that are archived.
const BYTES: (u64, u64) = (1500, 1500);

/// Every sample, by its name with its labels.
fn samples(serve: &Serve) -> BTreeMap<String, f64> {
    let (status, text) = serve.ask("/metrics");
    assert_eq!(status, 200);
    let lines = text.lines().filter(|line| !line.starts_with('#'));
    lines
        .map(|line| {
            let (series, number) = line.rsplit_once(' ').unwrap();
            (series.to_owned(), number.parse().unwrap())
        })
        .collect()
}

/// Waits until `series` has this value.
fn until_is(serve: &Serve, series: &str, value: f64) {
    until(&format!("{series} is {value}"), || samples(serve).get(series) == Some(&value));
}

/// Checks values that must be there exactly.
fn are(samples: &BTreeMap<String, f64>, expected: &[(&str, f64)]) {
    for (series, value) in expected {
        assert_eq!(samples.get(*series), Some(value), "{series}; there are: {samples:#?}");
    }
}

#[test]
#[expect(clippy::too_many_lines, reason = "one life, told from its start to its end")]
fn the_metrics_of_a_service_tell_what_it_has_done() {
    let world = World::new();
    world.settings(&format!("{SERVE}{SETTINGS}"));
    let mut command = Serve::command(&world);
    command.env("JELLYJAR_LOG", "info");
    let serve = Serve::start_with(&world, command);
    until("it is ready", || serve.is_ready());
    let before = jellyjar::clock::Clock::system().now_ms();

    // Three are archived, and one is left out by a rule.
    let mut mail = events(4, 1, BYTES);
    let lost = mail.remove(3);
    let mut out = attachments(&mut mail[2])[0].clone();
    out["id"] = json!("att_that_is_skipped");
    out["filename"] = json!("notes.skip");
    attachments(&mut mail[2]).push(out);
    for event in &mail {
        serve.post(event);
    }
    until_is(&serve, "jellyjar_attachments{team=\"default\",state=\"archived\"}", 3.0);
    // Known, of no interest, unreadable, and from a stranger.
    serve.post(&mail[0]);
    serve.post(&json!({"event": "something.else", "data": {}}));
    assert_eq!(serve.sender().post("default", SECRET, b"{ no JSON"), Some(200));
    assert_eq!(serve.sender().post("default", "wrong", b"{}"), Some(401));
    // One that is gone: asked for three times.
    world.jelly.set_faults("api-404=1.0");
    serve.post(&lost);
    until_is(&serve, "jellyjar_attachments{team=\"default\",state=\"failed\"}", 1.0);
    until_is(&serve, "jellyjar_inbox_lag_bytes{team=\"default\"}", 0.0);
    until_is(&serve, "jellyjar_connections", 0.0);
    until_is(&serve, "jellyjar_pending_oldest_age_seconds{team=\"default\"}", 0.0);

    let stats = world.jelly.stats();
    assert_eq!(stats.api_requests, 6, "{stats:?}");
    let found = samples(&serve);
    are(
        &found,
        &[
            ("jellyjar_webhooks_total{team=\"default\",result=\"accepted\"}", 7.0),
            ("jellyjar_webhooks_total{team=\"default\",result=\"unauthorized\"}", 1.0),
            ("jellyjar_payloads_total{team=\"default\",result=\"new\"}", 4.0),
            ("jellyjar_payloads_total{team=\"default\",result=\"known\"}", 1.0),
            ("jellyjar_payloads_total{team=\"default\",result=\"ignored\"}", 1.0),
            ("jellyjar_payloads_total{team=\"default\",result=\"rejected\"}", 1.0),
            ("jellyjar_attachments{team=\"default\",state=\"pending\"}", 0.0),
            ("jellyjar_attachments{team=\"default\",state=\"skipped\"}", 1.0),
            ("jellyjar_attachments{team=\"default\",state=\"quarantined\"}", 0.0),
            ("jellyjar_attempts_total{team=\"default\",result=\"fetched\"}", 3.0),
            ("jellyjar_attempts_total{team=\"default\",result=\"retry\"}", 2.0),
            ("jellyjar_attempts_total{team=\"default\",result=\"failed\"}", 1.0),
            ("jellyjar_attempts_total{team=\"default\",result=\"released\"}", 0.0),
            ("jellyjar_outcomes_total{team=\"default\",outcome=\"archived\",reason=\"stored\"}", 3.0),
            ("jellyjar_outcomes_total{team=\"default\",outcome=\"skipped\",reason=\"rule\"}", 1.0),
            ("jellyjar_outcomes_total{team=\"default\",outcome=\"failed\",reason=\"gone\"}", 1.0),
            ("jellyjar_archived_bytes_total{team=\"default\"}", 4500.0),
            ("jellyjar_stored_bytes_total{team=\"default\"}", 4500.0),
            ("jellyjar_api_requests_total{team=\"default\",answer=\"ok\"}", 3.0),
            ("jellyjar_api_requests_total{team=\"default\",answer=\"not_found\"}", 3.0),
            ("jellyjar_quota_day_limit_requests{team=\"default\"}", 100.0),
            ("jellyjar_quota_day_remaining_requests{team=\"default\"}", 94.0),
            ("jellyjar_quota_window_limit_requests{egress_group=\"default\"}", 50.0),
            ("jellyjar_quota_window_remaining_requests{egress_group=\"default\"}", 44.0),
            ("jellyjar_paused{scope=\"team\",name=\"default\"}", 0.0),
            ("jellyjar_paused{scope=\"egress_group\",name=\"default\"}", 0.0),
            ("jellyjar_paused{scope=\"local\",name=\"\"}", 0.0),
            ("jellyjar_in_flight_attachments", 0.0),
            ("jellyjar_spool_bytes", 0.0),
            ("jellyjar_body_in_flight_bytes", 0.0),
            ("jellyjar_inbox_oldest_age_seconds{team=\"default\"}", 0.0),
            ("jellyjar_inbox_failing{team=\"default\"}", 0.0),
            ("jellyjar_ready{dependency=\"inbox\"}", 1.0),
            ("jellyjar_archive_delay_seconds_count", 3.0),
            ("jellyjar_stage_duration_seconds_count{stage=\"receive\"}", 7.0),
            ("jellyjar_stage_duration_seconds_count{stage=\"append\"}", 7.0),
            ("jellyjar_stage_duration_seconds_count{stage=\"exchange\"}", 6.0),
            ("jellyjar_stage_duration_seconds_count{stage=\"download\"}", 3.0),
        ],
    );
    for stage in ["ingest", "commit"] {
        assert!(found[&format!("jellyjar_stage_duration_seconds_count{{stage=\"{stage}\"}}")] >= 2.0, "{found:#?}");
    }
    for place in ["inbox", "catalog", "spool", "archive"] {
        let series = format!("jellyjar_disk_free_bytes{{place=\"{place}\"}}");
        until(&format!("{series} is read"), || samples(&serve).get(&series).is_some_and(|free| *free > 0.0));
    }
    #[expect(clippy::cast_precision_loss, reason = "a time in milliseconds is far below 2^53")]
    let seconds = |ms: i64| ms as f64 / 1000.0;
    let now = jellyjar::clock::Clock::system().now_ms();
    for moment in ["last_webhook", "last_success"] {
        let at = found[&format!("jellyjar_{moment}_timestamp_seconds{{team=\"default\"}}")];
        assert!((seconds(before)..=seconds(now)).contains(&at), "{moment} {at}");
    }
    until("people are told of the failure", || {
        serve.process.stderr().contains("an attachment of team default failed for good")
    });

    // A token that is refused pauses the team; that is told of, and spends no attempt.
    world.jelly.set_faults("");
    world.jelly.set_token("another");
    serve.post(&events(5, 1, BYTES)[4]);
    until_is(&serve, "jellyjar_paused{scope=\"team\",name=\"default\"}", 1.0);
    until_is(&serve, "jellyjar_troubles{condition=\"team_paused\"}", 1.0);
    until_is(&serve, "jellyjar_attempts_total{team=\"default\",result=\"released\"}", 1.0);
    until_is(&serve, "jellyjar_attachments{team=\"default\",state=\"pending\"}", 1.0);
    are(
        &samples(&serve),
        &[
            ("jellyjar_api_requests_total{team=\"default\",answer=\"unauthorized\"}", 1.0),
            ("jellyjar_paused{scope=\"egress_group\",name=\"default\"}", 0.0),
            ("jellyjar_troubles{condition=\"no_success\"}", 0.0),
        ],
    );
    serve.stop(&world);
}
