//! What `config/deploy` says is what the program has, and what the tools for it accept.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use jellyjar::metrics::{FAMILIES, Family, Kind, Metrics};

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("config/deploy")
}

fn read(name: &str) -> String {
    std::fs::read_to_string(folder().join(name)).unwrap()
}

/// Runs a tool in the folder; `None`, with a word, where this machine does not have it.
#[expect(clippy::print_stderr, reason = "whoever reads the tests' output shall know what was not tried")]
fn run(tool: &str, arguments: &[&str]) -> Option<Output> {
    match Command::new(tool).args(arguments).current_dir(folder()).output() {
        Ok(output) => Some(output),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            eprintln!("not tried: there is no {tool} here");
            None
        }
        Err(error) => panic!("{tool}: {error}"),
    }
}

/// A metric in a query: its name, and what its braces and the words around it say of labels.
#[derive(Debug)]
struct Selector {
    name: String,
    matchers: Vec<(String, String, String)>,
}

fn is_name(c: char) -> bool {
    c.is_ascii_alphanumeric() || c == '_'
}

/// The metrics of ours in a query.
fn selectors(query: &str) -> Vec<Selector> {
    let mut found = Vec::new();
    let mut rest = query;
    while let Some(at) = ["jellyjar_", "process_"].iter().filter_map(|prefix| rest.find(prefix)).min() {
        let name: String = rest[at..].chars().take_while(|c| is_name(*c)).collect();
        rest = &rest[at + name.len()..];
        let mut matchers = Vec::new();
        if let Some(braces) = rest.strip_prefix('{') {
            let (inside, behind) = braces.split_once('}').unwrap();
            rest = behind;
            for matcher in inside.split(',') {
                let operator = matcher.find(['=', '!']).unwrap();
                let (label, value) = matcher.split_at(operator);
                let (operator, value) = value.split_once('"').unwrap();
                matchers.push((label.to_owned(), operator.to_owned(), value.trim_end_matches('"').to_owned()));
            }
        }
        found.push(Selector { name, matchers });
    }
    found
}

/// The labels in `by (…)` and `on (…)`.
fn grouped_labels(query: &str) -> BTreeSet<String> {
    let mut labels = BTreeSet::new();
    for word in [" by (", " on (", "by (", "on ("] {
        for (at, _) in query.match_indices(word) {
            let inside = query[at + word.len()..].split(')').next().unwrap();
            labels.extend(inside.split(',').map(|label| label.trim().to_owned()));
        }
    }
    labels
}

/// The family of a series: histograms have three kinds of them.
fn family(series: &str) -> Option<&'static Family> {
    FAMILIES.iter().copied().find(|family| match family.kind {
        Kind::Histogram => {
            series.strip_prefix(family.name).is_some_and(|rest| ["_bucket", "_sum", "_count"].contains(&rest))
        }
        Kind::Counter | Kind::Gauge => series == family.name,
    })
}

/// Labels that Prometheus adds by itself.
const ADDED: [&str; 2] = ["job", "instance"];

/// What is wrong with a query.
fn defects(query: &str, rendered: &str) -> Vec<String> {
    let mut wrong = Vec::new();
    let mut labels: BTreeSet<String> = ADDED.map(str::to_owned).into();
    for Selector { name, matchers } in selectors(query) {
        let Some(family) = family(&name) else {
            wrong.push(format!("there is no metric {name}"));
            continue;
        };
        labels.extend(family.labels.iter().map(|label| (*label).to_owned()));
        if family.kind == Kind::Histogram {
            labels.insert("le".to_owned());
        }
        for (label, operator, value) in matchers {
            if ADDED.contains(&label.as_str()) {
                continue;
            }
            if !family.labels.contains(&label.as_str()) {
                wrong.push(format!("{name} has no label {label}"));
                continue;
            }
            // Values that are words of ours: of those there are samples from the start.
            let is_pattern = operator == "=~";
            let wanted: Vec<&str> = if is_pattern { value.split('|').collect() } else { vec![&value] };
            let samples: Vec<&str> = rendered.lines().filter(|line| line.starts_with(&format!("{name}{{"))).collect();
            for wanted in wanted.into_iter().filter(|wanted| !wanted.starts_with('$') && !samples.is_empty()) {
                if !samples.iter().any(|sample| sample.contains(&format!("{label}=\"{wanted}\""))) {
                    wrong.push(format!("{name} never has {label}=\"{wanted}\""));
                }
            }
        }
    }
    wrong.extend(
        grouped_labels(query)
            .difference(&labels)
            .map(|label| format!("no metric in it has the label {label}: {query}")),
    );
    wrong
}

/// A page with a sample of everything that has labels of our own words.
fn rendered() -> String {
    use jellyjar::metrics::{AttachmentState, Labels as _};
    let metrics = Metrics::new(["support"], ["default"], jiff::Timestamp::UNIX_EPOCH);
    let team = metrics.team("support");
    for state in AttachmentState::ALL {
        team.attachments.of(*state).set(1);
    }
    team.paused.set(0);
    metrics.group("default").paused.set(0);
    metrics.local_paused.set(0);
    let kinds = jellyjar::notify::Kind::ALL.into_iter().filter(|kind| kind.lasts());
    metrics.troubles.replace(kinds.map(|kind| (kind.name().to_owned(), 0)));
    metrics.render(jiff::Timestamp::UNIX_EPOCH)
}

/// The queries of the alert rules: what stands behind `expr:`, on its line or indented below.
fn alert_queries() -> Vec<String> {
    let text = read("alerts.yaml");
    let mut queries: Vec<String> = Vec::new();
    let mut is_open = false;
    for line in text.lines() {
        if let Some(query) = line.trim().strip_prefix("expr:") {
            is_open = query.trim() == ">-";
            queries.push(if is_open { String::new() } else { query.to_owned() });
        } else if is_open && line.starts_with("          ") {
            let query = queries.last_mut().unwrap();
            query.push(' ');
            query.push_str(line.trim());
        } else {
            is_open = false;
        }
    }
    queries
}

fn dashboard_queries() -> Vec<String> {
    let dashboard: serde_json::Value = serde_json::from_str(&read("grafana-dashboard.json")).unwrap();
    let panels = dashboard["panels"].as_array().unwrap();
    let targets = panels.iter().filter_map(|panel| panel["targets"].as_array()).flatten();
    let variables = dashboard["templating"]["list"].as_array().unwrap().iter();
    let variables = variables.filter_map(|variable| variable["definition"].as_str());
    targets.map(|target| target["expr"].as_str().unwrap()).chain(variables).map(str::to_owned).collect()
}

#[test]
fn alert_rules_and_dashboard_use_the_names_labels_and_words_that_the_program_has() {
    let (alerts, dashboard) = (alert_queries(), dashboard_queries());
    assert!(alerts.len() >= 15 && dashboard.len() >= 40, "{} {}", alerts.len(), dashboard.len());
    assert!(alerts.iter().chain(&dashboard).all(|query| query.len() > 10), "{alerts:?}");
    let rendered = rendered();
    let wrong: Vec<_> = alerts.iter().chain(&dashboard).flat_map(|query| defects(query, &rendered)).collect();
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn every_metric_is_on_the_dashboard() {
    let queries = dashboard_queries();
    let shown: BTreeSet<&str> = queries
        .iter()
        .flat_map(|query| selectors(query))
        .filter_map(|selector| family(&selector.name))
        .map(|family| family.name)
        .collect();
    let missing: Vec<_> = FAMILIES.iter().map(|family| family.name).filter(|name| !shown.contains(name)).collect();
    assert!(missing.is_empty(), "{missing:?}");
}

#[test]
fn a_wrong_name_label_or_word_would_be_found() {
    let rendered = rendered();
    for (query, defect) in [
        ("rate(jellyjar_webhook_total[5m])", "there is no metric jellyjar_webhook_total"),
        ("jellyjar_stage_duration_seconds", "there is no metric jellyjar_stage_duration_seconds"),
        ("jellyjar_inbox_bytes{tema=\"a\"}", "jellyjar_inbox_bytes has no label tema"),
        ("jellyjar_webhooks_total{result=\"acepted\"}", "jellyjar_webhooks_total never has result=\"acepted\""),
        ("jellyjar_attachments{state=~\"failed|lost\"}", "jellyjar_attachments never has state=\"lost\""),
        ("sum by (teams) (jellyjar_inbox_bytes)", "no metric in it has the label teams"),
    ] {
        let found = defects(query, &rendered);
        assert!(found.len() == 1 && found[0].starts_with(defect), "{query}: {found:?}");
    }
    let right = "sum by (le, stage) (rate(jellyjar_stage_duration_seconds_bucket{job=~\"$job\",stage=\"ingest\"}[5m]))";
    assert_eq!(defects(right, &rendered), [""; 0]);
}

#[test]
fn prometheus_accepts_the_alert_rules_and_they_fire_when_they_should() {
    for arguments in [["check", "rules", "alerts.yaml"], ["test", "rules", "alerts_test.yaml"]] {
        let Some(output) = run("promtool", &arguments) else { return };
        assert!(output.status.success(), "{output:?}");
    }
}

#[test]
fn the_systemd_unit_is_valid_and_exposes_little() {
    let Some(output) = run("systemd-analyze", &["security", "--offline=true", "./jellyjar.service"]) else { return };
    let text = String::from_utf8(output.stdout).unwrap();
    let level = text.split("Overall exposure level for jellyjar.service: ").nth(1).unwrap_or_else(|| panic!("{text}"));
    let level: f64 = level.split_whitespace().next().unwrap().parse().unwrap();
    assert!(level <= 2.0, "{level}: {text}");

    let output = run("systemd-analyze", &["verify", "./jellyjar.service"]).unwrap();
    let said = String::from_utf8(output.stderr).unwrap();
    // The program is not installed where it is built.
    let defects: Vec<_> =
        said.lines().filter(|line| line.contains("jellyjar") && !line.contains("is not executable")).collect();
    assert!(defects.is_empty(), "{said}");
}

#[test]
fn the_unit_is_valid_as_a_receiver_and_as_a_worker_and_each_has_its_own_secrets_alone() {
    for (role, secret, others) in [("receive", "webhook-secret", "api-token"), ("work", "api-token", "webhook-secret")]
    {
        let drop_in = read(&format!("{role}.conf"));
        let credentials: Vec<_> = drop_in.lines().filter_map(|line| line.strip_prefix("LoadCredential=")).collect();
        // The empty one forgets what the unit has.
        assert_eq!(credentials, ["", &format!("{secret}:/etc/jellyjar/{secret}")]);
        let variable = others.replace("api", "jelly_api").replace("webhook", "jelly_webhook").replace('-', "_");
        let forgotten = format!("UnsetEnvironment={}_FILE", variable.to_uppercase());
        assert!(drop_in.lines().any(|line| line == forgotten), "{role}.conf has no {forgotten}");
        let command = format!("ExecStart=/usr/local/bin/jellyjar {role} --config /etc/jellyjar/jellyjar.toml");
        assert!(drop_in.lines().any(|line| line == command), "{drop_in}");

        let machine = tempfile::tempdir().unwrap();
        let drop_ins = machine.path().join("jellyjar.service.d");
        std::fs::create_dir(&drop_ins).unwrap();
        std::fs::copy(folder().join("jellyjar.service"), machine.path().join("jellyjar.service")).unwrap();
        std::fs::write(drop_ins.join(format!("{role}.conf")), drop_in).unwrap();
        let unit = machine.path().join("jellyjar.service");
        let Some(output) = run("systemd-analyze", &["verify", unit.to_str().unwrap()]) else { return };
        let said = String::from_utf8(output.stderr).unwrap();
        let defects: Vec<_> =
            said.lines().filter(|line| line.contains("jellyjar") && !line.contains("is not executable")).collect();
        assert!(defects.is_empty(), "{said}");
    }
}

#[test]
fn the_watchdog_and_the_stop_leave_the_service_the_time_it_needs() {
    let unit = read("jellyjar.service");
    for line in ["Type=notify", "DynamicUser=yes", "StateDirectory=jellyjar", "WatchdogSec=60", "TimeoutStopSec=45"] {
        assert!(unit.lines().any(|found| found == line), "{line}");
    }
    assert!(read("kubernetes.yaml").contains("terminationGracePeriodSeconds: 45"));
    assert!(read("compose.yaml").contains("stop_grace_period: 45s"));
}

#[test]
fn the_policy_allows_what_the_readme_says_and_no_deletion_of_blobs() {
    let policy: serde_json::Value = serde_json::from_str(&read("s3-policy.json")).unwrap();
    let list = |value: &serde_json::Value| -> Vec<String> {
        let one = value.as_str().map(|text| vec![text.to_owned()]);
        one.unwrap_or_else(|| value.as_array().unwrap().iter().map(|v| v.as_str().unwrap().to_owned()).collect())
    };
    let mut actions = BTreeSet::new();
    for statement in policy["Statement"].as_array().unwrap() {
        assert_eq!(statement["Effect"], "Allow");
        let these = list(&statement["Action"]);
        for resource in list(&statement["Resource"]) {
            assert!(resource.starts_with("arn:aws:s3:::example-mail"), "{resource}");
            if these.iter().any(|action| action.contains("Delete")) {
                let key = resource.strip_prefix("arn:aws:s3:::example-mail/jelly/").unwrap();
                assert!(!key.starts_with('*') && !key.starts_with("blobs") && key != "jellyjar.json", "{key}");
            }
        }
        actions.extend(these);
    }
    let readme = std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("README.md")).unwrap();
    let rights = readme.split("\"Version\": \"2012-10-17\"").nth(1).unwrap().split("\n\n").next().unwrap();
    let told = rights.split('"').filter(|word| word.starts_with("s3:")).map(str::to_owned).collect::<BTreeSet<_>>();
    assert_eq!(actions, told);

    let lifecycle: serde_json::Value = serde_json::from_str(&read("s3-lifecycle.json")).unwrap();
    let rule = &lifecycle["Rules"][0];
    assert_eq!(
        (&rule["Status"], &rule["AbortIncompleteMultipartUpload"]["DaysAfterInitiation"]),
        (&"Enabled".into(), &7.into())
    );
    assert!(rule.get("Expiration").is_none());
}

#[test]
fn the_folder_s_readme_names_every_file() {
    let readme = read("README.md");
    for entry in std::fs::read_dir(folder()).unwrap() {
        let name = entry.unwrap().file_name().into_string().unwrap();
        let is_part = ["README.md", "alerts_test.yaml", "Dockerfile.dockerignore"].contains(&name.as_str());
        assert!(is_part || readme.contains(&format!("| `{name}` |")), "{name}");
    }
}
