//! Tests of what is shown, and of the cells behind it.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use super::*;

fn at(seconds: i64) -> Timestamp {
    Timestamp::from_second(seconds).unwrap()
}

fn metrics() -> Metrics {
    Metrics::new(["support", "sales"], ["default"], at(1_000))
}

/// The samples by what stands before the number.
fn samples(text: &str) -> BTreeMap<&str, &str> {
    let lines = text.lines().filter(|line| !line.starts_with('#'));
    let samples: Vec<_> = lines.map(|line| line.rsplit_once(' ').unwrap()).collect();
    let count = samples.len();
    for (series, number) in &samples {
        assert!(number.parse::<f64>().is_ok(), "{series} {number}");
    }
    let samples: BTreeMap<_, _> = samples.into_iter().collect();
    assert_eq!(samples.len(), count, "a series is there twice: {text}");
    samples
}

#[test]
fn every_family_is_shown_once_in_the_order_of_the_list() {
    let text = metrics().render(at(2_000));
    let shown: Vec<&str> = text
        .lines()
        .filter_map(|line| line.strip_prefix("# TYPE "))
        .map(|rest| rest.split(' ').next().unwrap())
        .collect();
    let listed: Vec<&str> = FAMILIES.iter().map(|family| family.name).collect();
    assert_eq!(shown, listed);
}

#[test]
fn names_follow_the_rules_of_prometheus() {
    let mut seen = BTreeSet::new();
    for family in FAMILIES {
        let name = family.name;
        assert!(seen.insert(name), "{name} is there twice");
        assert!(name.starts_with("jellyjar_") || name.starts_with("process_"), "{name}");
        assert!(name.chars().all(|c| c.is_ascii_lowercase() || c == '_'), "{name}");
        assert_eq!(family.kind == Kind::Counter, name.ends_with("_total"), "{name}");
        assert_eq!(
            family.kind == Kind::Histogram,
            name.ends_with("_duration_seconds") || name.ends_with("_delay_seconds"),
            "{name}"
        );
        assert!(family.help.ends_with('.') && !family.help.contains('\n'), "{name}: {}", family.help);
    }
}

#[test]
fn counters_are_there_from_the_start_and_gauges_only_once_they_are_read() {
    let metrics = metrics();
    let text = metrics.render(at(2_000));
    let before = samples(&text);
    assert_eq!(before[r#"jellyjar_webhooks_total{team="sales",result="accepted"}"#], "0");
    assert_eq!(before[r#"jellyjar_outcomes_total{team="support",outcome="failed",reason="gone"}"#], "0");
    assert_eq!(before["process_start_time_seconds"], "1000.000");
    assert!(!before.contains_key(r#"jellyjar_inbox_bytes{team="sales"}"#));
    assert!(!before.contains_key(r#"jellyjar_last_success_timestamp_seconds{team="sales"}"#));

    let sales = metrics.team("sales");
    sales.webhooks.count(WebhookResult::Accepted);
    sales.webhooks.add(WebhookResult::Accepted, 2);
    sales.inbox_bytes.set(4_096);
    sales.last_success.set(at(1_999));
    sales.attachments.of(AttachmentState::Pending).set(7);
    metrics.team("support").outcomes.count(Outcome::Gone);
    metrics.group("default").quota_window_left.set(4_999);
    metrics.ready.replace([("inbox".to_owned(), 1), ("archive \"a\"\\".to_owned(), 0)]);
    let text = metrics.render(at(2_000));
    let after = samples(&text);
    for (name, value) in [
        (r#"jellyjar_webhooks_total{team="sales",result="accepted"}"#, "3"),
        (r#"jellyjar_webhooks_total{team="support",result="accepted"}"#, "0"),
        (r#"jellyjar_inbox_bytes{team="sales"}"#, "4096"),
        (r#"jellyjar_last_success_timestamp_seconds{team="sales"}"#, "1999.000"),
        (r#"jellyjar_attachments{team="sales",state="pending"}"#, "7"),
        (r#"jellyjar_outcomes_total{team="support",outcome="failed",reason="gone"}"#, "1"),
        (r#"jellyjar_quota_window_remaining_requests{egress_group="default"}"#, "4999"),
        (r#"jellyjar_ready{dependency="archive \"a\"\\"}"#, "0"),
    ] {
        assert_eq!(after.get(name), Some(&value), "{name}: {text}");
    }
    sales.inbox_bytes.set(None);
    assert!(!metrics.render(at(2_000)).contains("jellyjar_inbox_bytes{"));
}

#[test]
fn an_age_grows_by_itself_and_never_below_zero() {
    let metrics = metrics();
    let age = |now| {
        let text = metrics.render(at(now));
        samples(&text)[r#"jellyjar_pending_oldest_age_seconds{team="sales"}"#].to_owned()
    };
    assert_eq!(age(2_000), "0.000");
    metrics.team("sales").oldest_pending.set(at(2_000));
    assert_eq!([age(2_030), age(1_000)], ["30.000", "0.000"]);
    metrics.team("sales").oldest_pending.set(None);
    assert_eq!(age(2_060), "0.000");
}

#[test]
fn a_histogram_counts_what_is_at_most_as_long_as_each_bound() {
    let metrics = metrics();
    for ms in [1, 2, 40, 50, 51, 120_000] {
        metrics.stages.of(Stage::Download).observe(Duration::from_millis(ms));
    }
    let text = metrics.render(at(2_000));
    let shown = samples(&text);
    let bucket = |bound: &str| {
        shown[format!(r#"jellyjar_stage_duration_seconds_bucket{{stage="download",le="{bound}"}}"#).as_str()]
    };
    assert_eq!(["0.001", "0.002", "0.05", "0.1", "60", "+Inf"].map(bucket), ["1", "2", "4", "5", "5", "6"]);
    assert_eq!(shown[r#"jellyjar_stage_duration_seconds_count{stage="download"}"#], "6");
    assert_eq!(shown[r#"jellyjar_stage_duration_seconds_sum{stage="download"}"#], "120.144000");
    metrics.archive_delay.observe(Duration::from_millis(80));
    assert!(metrics.render(at(2_000)).contains("jellyjar_archive_delay_seconds_bucket{le=\"0.1\"} 1\n"));
}

#[test]
fn what_belongs_to_no_configured_team_is_one_series_whatever_it_is_called() {
    let metrics = metrics();
    let before = metrics.render(at(2_000)).lines().count();
    for name in ["nobody", "x\"} 1\n", "(none)", ""] {
        metrics.team(name).webhooks.count(WebhookResult::Refused);
        metrics.group(name).paused.set(1);
    }
    let text = metrics.render(at(2_000));
    assert_eq!(text.lines().count(), before);
    assert_eq!(samples(&text)[r#"jellyjar_webhooks_total{team="(none)",result="refused"}"#], "4");
    assert!(NO_TEAM.parse::<crate::model::TeamKey>().is_err(), "a team could have this name");
}

#[test]
fn readings_by_name_are_bounded_and_those_left_out_disappear() {
    let metrics = metrics();
    metrics.disk_free_bytes.replace((0..5_000).map(|n| (format!("place {n}"), n)));
    assert_eq!(metrics.disk_free_bytes.values().len(), 1_024);
    metrics.disk_free_bytes.replace([("inbox".to_owned(), 5)]);
    assert_eq!(metrics.disk_free_bytes.values(), BTreeMap::from([("inbox".to_owned(), 5)]));
}

#[test]
fn every_label_has_a_cell_of_its_own_and_as_many_values_as_its_family_has_labels() {
    fn check<L: Labels + std::fmt::Debug>(labels: usize) {
        let mut seen = BTreeSet::new();
        for (index, label) in L::ALL.iter().enumerate() {
            assert_eq!(label.index(), index, "{label:?}");
            assert_eq!(label.values().len(), labels, "{label:?}");
            assert!(seen.insert(label.values()), "{label:?}");
        }
    }
    check::<WebhookResult>(1);
    check::<Payload>(1);
    check::<AttachmentState>(1);
    check::<Attempt>(1);
    check::<Outcome>(2);
    check::<ApiAnswer>(1);
    check::<Stage>(1);
    check::<Success>(1);
    check::<Delivery>(2);
}

#[test]
fn a_gauge_at_its_end_is_still_shown() {
    let gauge = Gauge::default();
    assert_eq!(gauge.value(), None);
    gauge.set(u64::MAX);
    assert!(gauge.value().is_some());
}

#[test]
fn a_status_has_one_label() {
    for (status, label) in [
        (Some(200), ApiAnswer::Ok),
        (Some(302), ApiAnswer::Ok),
        (Some(400), ApiAnswer::Refused),
        (Some(401), ApiAnswer::Unauthorized),
        (Some(422), ApiAnswer::Refused),
        (Some(429), ApiAnswer::RateLimited),
        (Some(502), ApiAnswer::ServerError),
        (Some(999), ApiAnswer::Refused),
        (None, ApiAnswer::NoAnswer),
    ] {
        assert_eq!(ApiAnswer::of_status(status), label, "{status:?}");
    }
}

#[test]
fn teams_that_stay_keep_their_cells_and_those_that_are_gone_are_shown_no_more() {
    let metrics = Metrics::new(["old", "stays"], ["here"], Timestamp::UNIX_EPOCH);
    for name in ["old", "stays"] {
        metrics.team(name).webhook_bytes.add(7);
    }
    let held = metrics.team("old");
    metrics.reconfigure(["stays", "new"], ["there"]);
    held.webhook_bytes.add(1);
    let text = metrics.render(Timestamp::UNIX_EPOCH);
    assert!(text.contains("jellyjar_webhook_bytes_total{team=\"stays\"} 7\n"), "{text}");
    assert!(text.contains("jellyjar_webhook_bytes_total{team=\"new\"} 0\n"), "{text}");
    assert!(!text.contains("team=\"old\"") && !text.contains("name=\"here\""), "{text}");
    metrics.team("old").webhook_bytes.add(5);
    assert!(
        metrics
            .render(Timestamp::UNIX_EPOCH)
            .contains(&format!("jellyjar_webhook_bytes_total{{team=\"{NO_TEAM}\"}} 5\n"))
    );
}
