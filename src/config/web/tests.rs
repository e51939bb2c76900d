//! Tests of the settings of webhooks and listeners.

use super::*;
use crate::config::load;

/// Loads the text of a file as `serve` does; paths in it are taken from a folder that has the given files.
fn load_with(toml: &str, files: &[(&str, &str)], variables: &[(&str, &str)]) -> Result<Loaded, String> {
    let folder = tempfile::tempdir().unwrap();
    for (name, text) in files {
        std::fs::write(folder.path().join(name), text).unwrap();
        #[cfg(unix)]
        std::fs::set_permissions(folder.path().join(name), std::os::unix::fs::PermissionsExt::from_mode(0o600))
            .unwrap();
    }
    let path = folder.path().join("c.toml");
    std::fs::write(&path, toml).unwrap();
    #[cfg(unix)]
    std::fs::set_permissions(&path, std::os::unix::fs::PermissionsExt::from_mode(0o600)).unwrap();
    let overrides = Overrides { config: Some(path), read_webhooks: true, skip_tokens: true, ..Overrides::default() };
    let loaded = load(&overrides, &Environment::from_pairs(variables.iter().copied()));
    loaded.map_err(|error| format!("{error} {error:?}").replace(&folder.path().display().to_string(), "DIR"))
}

fn secrets(loaded: &Loaded, team: &str) -> Vec<String> {
    loaded.config.teams[team].webhook.secrets.iter().map(|secret| secret.expose().to_owned()).collect()
}

#[test]
fn a_secret_comes_from_file_environment_or_the_file_that_is_named() {
    let long = "a-secret-of-the-webhook";
    let inline = format!("[teams.default]\nwebhook_secret = \"{long}\"\n");
    let named = "[teams.default]\nwebhook_secret_file = \"secret\"\n";
    for (toml, files, variables) in [
        (inline.as_str(), &[][..], &[][..]),
        (named, &[("secret", "a-secret-of-the-webhook\n")], &[]),
        ("", &[], &[("JELLY_WEBHOOK_SECRET", long)]),
        ("[teams.default]\nwebhook_secret = \"overridden-by-environment\"\n", &[], &[("JELLY_WEBHOOK_SECRET", long)]),
    ] {
        let loaded = load_with(toml, files, variables).unwrap();
        assert_eq!(secrets(&loaded, "default"), [long], "{toml}");
        assert_eq!(loaded.warnings, Vec::<String>::new());
    }
}

#[test]
fn two_secrets_stand_in_one_value() {
    let file = [("secret", "the-new-secret-of-it\nthe-old-secret-of-it\n")];
    let loaded = load_with("[teams.a]\nwebhook_secret_file = \"secret\"\n", &file, &[]).unwrap();
    assert_eq!(secrets(&loaded, "a"), ["the-new-secret-of-it", "the-old-secret-of-it"]);
    let loaded = load_with("", &[], &[("JELLY_WEBHOOK_SECRET", "the-new-secret-of-it the-old-secret-of-it")]).unwrap();
    assert_eq!(secrets(&loaded, "default").len(), 2);
}

#[test]
fn files_of_secrets_are_left_alone_by_other_commands() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("c.toml");
    std::fs::write(&path, "[teams.a]\nwebhook_secret_file = \"nowhere\"\n").unwrap();
    let overrides = Overrides { config: Some(path), ..Overrides::default() };
    let loaded = load(&overrides, &Environment::default()).unwrap();
    assert!(loaded.config.teams["a"].webhook.accepts_any());
    assert!(secrets(&loaded, "a").is_empty());
    let overrides = Overrides { read_webhooks: true, ..overrides };
    let error = load(&overrides, &Environment::default()).unwrap_err();
    assert!(error.to_string().starts_with("cannot read the webhook secret file"), "{error}");
}

#[test]
fn what_would_let_strangers_in_or_nobody_is_refused_without_showing_it() {
    let file = [("three", "hush-hush-hush-hush hush2 hush3"), ("empty", " \n")];
    for (toml, variables, expected) in [
        ("[teams.a]\nallow_unsigned_webhooks = true\n", &[][..], "without a signature anybody could send"),
        ("[teams.a]\nwebhook_username = \"u\"\n", &[], "there is no password with it"),
        ("[teams.a]\nwebhook_password = \"hush\"\n", &[], "there is no user name with it"),
        ("[teams.a]\nwebhook_username = \"u:v\"\nwebhook_password = \"hush\"\n", &[], "a user name has no colon"),
        ("[teams.a]\nwebhook_username = \"u\"\nwebhook_password = \"\"\n", &[], "no usable password: it is empty"),
        ("[teams.a]\nwebhook_username = \"u\"\nwebhook_password = \"hush\\nhush\"\n", &[], "more than one line"),
        ("[teams.a]\nwebhook_secret = \"\"\n", &[], "no usable secret: it is empty"),
        ("[teams.a]\nwebhook_secret = \"h\u{fc}sh-hush-hush-hush\"\n", &[], "non-ASCII"),
        ("[teams.a]\nwebhook_secret = [\"hush\"]\n", &[], "a secret is a text in quotes"),
        ("[teams.a]\nwebhook_secret_file = \"three\"\n", &[], "it has more than two words"),
        ("[teams.a]\nwebhook_secret_file = \"empty\"\n", &[], "holds no usable webhook secret: it is empty"),
        ("[teams.a]\nwebhook_secret = \"hush\"\nwebhook_secret_file = \"three\"\n", &[], "both `webhook_secret` and"),
        ("", &[("JELLY_WEBHOOK_SECRET", "hush"), ("JELLY_WEBHOOK_SECRET_FILE", "x")], "are both set"),
        ("", &[("JELLY_WEBHOOK_SECRET", "  ")], "environment variable JELLY_WEBHOOK_SECRET: no usable secret"),
    ] {
        let error = load_with(toml, &file, variables).unwrap_err();
        assert!(error.contains(expected), "{toml}: {error}");
        assert!(!error.contains("hush"), "{toml}: {error}");
    }
}

#[test]
fn listeners_come_from_flag_over_environment_over_file() {
    let toml = "[serve]\nlisten = \"127.0.0.1:1\"\n";
    let loaded = load_with(toml, &[], &[("JELLYJAR_OPS_LISTEN", "[::1]:2")]).unwrap();
    assert_eq!(loaded.config.serve.listen.to_string(), "127.0.0.1:1");
    assert_eq!(loaded.config.serve.ops_listen.to_string(), "[::1]:2");
    let overrides = Overrides { listen: Some("127.0.0.1:3".into()), ..Overrides::default() };
    let environment = Environment::from_pairs([("JELLYJAR_LISTEN", "127.0.0.1:4")]);
    let loaded = load(&overrides, &environment).unwrap();
    assert_eq!(loaded.config.serve.listen.to_string(), "127.0.0.1:3");
    assert_eq!(loaded.sources.of("serve.listen"), Origin::Flag("--listen"));
    let overrides = Overrides { ops_listen: Some("here".into()), ..Overrides::default() };
    let error = load(&overrides, &Environment::default()).unwrap_err().to_string();
    assert!(error.starts_with("--ops-listen: \"here\" is no address to listen on"), "{error}");
}

#[test]
fn listeners_that_cannot_work_are_refused_and_open_ones_are_told() {
    for (toml, expected) in [
        ("[serve]\ntls_key = \"k\"\n", "there is no certificate with it"),
        ("[serve]\ntls_certificate = \"c\"\n", "there is no key with it"),
        ("[serve]\nmax_in_flight = \"64 MiB\"\n", "has no room for one body of `max_body_size` (64 MiB)"),
        ("[serve]\nmax_body_size = \"1 GiB\"\n", "`serve.max_body_size`: `max_in_flight` (84 MiB) has no room"),
        ("[serve]\nops_listen = \"127.0.0.1:8080\"\n", "cannot share an address"),
        ("[serve]\nlisten = \"localhost\"\n", "`serve.listen`: \"localhost\" is no address to listen on"),
    ] {
        let error = load_with(toml, &[], &[]).unwrap_err();
        assert!(error.contains(expected), "{error}");
    }
    let toml = "[serve]\nlisten = \"0.0.0.0:8080\"\nops_listen = \"[::]:8081\"\n";
    let warnings = load_with(toml, &[], &[]).unwrap().warnings;
    assert!(warnings[0].contains("without TLS") && warnings[1].contains("everybody who reaches"), "{warnings:?}");
}

#[test]
fn a_secret_of_the_environment_that_is_for_nobody_is_told() {
    let loaded = load_with("[teams.a]\n", &[], &[("JELLY_WEBHOOK_SECRET", "a-secret-of-the-webhook")]).unwrap();
    assert!(loaded.warnings[0].contains("has no effect"), "{:?}", loaded.warnings);
    assert!(!loaded.config.teams["a"].webhook.accepts_any());
}
