//! Tests that the files under `config/` say what the program understands, all of it, and the true defaults.

use std::collections::BTreeSet;
use std::path::Path;

use super::*;

const REFERENCE: &str = include_str!("../../../config/jellyjar.toml");

/// Takes away the `#` before settings: of all, or of those only whose comment does not call them an example.
fn uncommented(examples_too: bool) -> String {
    let mut text = String::new();
    let mut in_comment = false;
    let mut is_example = false;
    for line in REFERENCE.lines() {
        let prose = line == "#" || line.starts_with("# ");
        if prose {
            is_example = (in_comment && is_example) || line.contains("(example)");
        }
        in_comment = prose;
        match line.strip_prefix('#').filter(|_| !prose && (examples_too || !is_example)) {
            Some(setting) => text.push_str(setting),
            None => text.push_str(line),
        }
        text.push('\n');
    }
    text
}

/// The settings of a section as the program names them when it is given one that is not there.
fn settings_of(section: &str) -> BTreeSet<String> {
    let text = if section.is_empty() { "nope = 1".to_owned() } else { format!("[{section}]\nnope = 1") };
    let error = parse(Path::new("f"), &text).unwrap_err();
    let ConfigError::File { message, .. } = error else { panic!("{error}") };
    assert!(message.starts_with("there is no setting `nope`"), "{message}");
    message.split('`').skip(3).step_by(2).map(str::to_owned).collect()
}

#[test]
fn the_reference_file_has_every_setting_and_no_other() {
    let text = uncommented(true);
    let parsed = parse(Path::new("config/jellyjar.toml"), &text).unwrap();
    let mut sections: Vec<String> = vec![String::new(), "teams.default".into(), "teams.default.filter".into()];
    sections
        .extend(settings_of("").into_iter().filter(|name| !["archive", "catalog", "teams"].contains(&name.as_str())));
    for section in sections {
        let mut settings = settings_of(&section);
        assert!(!settings.is_empty(), "{section}");
        let prefix = if section.is_empty() { String::new() } else { format!("{section}.") };
        let written: BTreeSet<_> = parsed
            .lines
            .keys()
            .filter_map(|key| key.strip_prefix(&prefix))
            .filter(|key| !key.contains('.'))
            .map(str::to_owned)
            .collect();
        settings.retain(|key| !written.contains(key));
        assert!(settings.is_empty(), "the reference file has no {settings:?} in [{section}]");
    }
}

#[test]
fn the_reference_file_sets_nothing_as_it_stands() {
    let parsed = parse(Path::new("config/jellyjar.toml"), REFERENCE).unwrap();
    let mut expected = ConfigFile::default();
    expected.teams.insert("default".into(), TeamFile::default());
    assert_eq!(format!("{:?}", parsed.file), format!("{expected:?}"));
}

#[test]
fn the_reference_file_shows_the_true_defaults() {
    let mut file = parse(Path::new("config/jellyjar.toml"), &uncommented(false)).unwrap().file;
    assert_eq!(file.quota.requests_per_window.take(), Some(crate::config::LIVE_REQUESTS_PER_WINDOW));
    assert_eq!(file.quota.requests_per_day.take(), Some(crate::config::LIVE_REQUESTS_PER_DAY));
    let team = file.teams.get_mut("default").unwrap();
    assert_eq!(team.archive_key.take().as_deref(), Some("default"));
    assert_eq!(team.egress_group.take().as_deref(), Some("default"));
    let mut expected = ConfigFile::default();
    expected.teams.insert("default".into(), TeamFile::default());
    assert_eq!(format!("{file:?}"), format!("{expected:?}"));
}

#[test]
fn every_file_under_config_is_understood() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("config");
    let mut count = 0;
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_some_and(|extension| extension == "toml") {
            let overrides = crate::config::Overrides { config: Some(path), skip_tokens: true, ..Default::default() };
            let environment = crate::config::Environment::default();
            let loaded = crate::config::load(&overrides, &environment).unwrap();
            assert!(loaded.warnings.is_empty(), "{:?}", loaded.warnings);
            count += 1;
        }
    }
    assert!(count >= 3, "{count}");
}
