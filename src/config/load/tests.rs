//! Tests of [`super::load`], with a folder and an environment of their own.

use std::fs;

use super::*;

/// A folder that plays the working directory.
pub(super) struct Place(tempfile::TempDir);

impl Place {
    pub(super) fn new(files: &[(&str, &str)]) -> Self {
        let place = Self(tempfile::tempdir().unwrap());
        for (name, text) in files {
            fs::create_dir_all(place.path(name).parent().unwrap()).unwrap();
            fs::write(place.path(name), text).unwrap();
        }
        place
    }

    pub(super) fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    pub(super) fn load(&self, overrides: &Overrides, variables: &[(&str, &str)]) -> Result<Loaded, ConfigError> {
        load_in(self.0.path(), overrides, &Environment::from_pairs(variables.iter().copied()))
    }

    pub(super) fn refusal(&self, variables: &[(&str, &str)]) -> String {
        self.load(&Overrides::default(), variables).unwrap_err().to_string()
    }
}

/// The common archive as it would be written.
fn archive_of(loaded: &Loaded) -> String {
    loaded.config.archive.as_ref().unwrap().to_string()
}

fn token_of(loaded: &Loaded, team: &str) -> String {
    loaded.config.teams[team].token.as_ref().unwrap().expose().to_owned()
}

#[test]
fn everything_works_without_a_file() {
    let loaded = Place::new(&[]).load(&Overrides::default(), &[("JELLY_API_TOKEN", "abc")]).unwrap();
    assert_eq!(loaded.config.teams.keys().collect::<Vec<_>>(), ["default"]);
    assert_eq!(token_of(&loaded, "default"), "abc");
    assert_eq!(loaded.config.api.base_url, "https://app.letsjelly.com/api");
    assert_eq!(loaded.sources.of("teams.default.token"), Origin::Environment("JELLY_API_TOKEN"));
    assert_eq!(loaded.sources.of("api.base_url"), Origin::Default);
    assert!(loaded.warnings.is_empty(), "{:?}", loaded.warnings);
}

#[test]
fn without_any_team_or_token_there_is_a_team_default_without_token() {
    let loaded = Place::new(&[]).load(&Overrides::default(), &[]).unwrap();
    assert!(loaded.config.teams["default"].token.is_none());
}

#[test]
fn a_flag_goes_over_the_environment_over_the_file_over_the_default() {
    let place = Place::new(&[("jellyjar.toml", "archive = \"in-file\"\n[worker]\nconcurrency = 3\n")]);
    let file = place.load(&Overrides::default(), &[]).unwrap();
    assert_eq!(archive_of(&file), place.path("in-file").to_str().unwrap());
    assert_eq!(file.sources.of("archive"), Origin::File { line: 1 });
    assert_eq!(file.config.worker.concurrency, 3);
    assert_eq!(file.sources.of("worker.concurrency"), Origin::File { line: 3 });

    let variables = [("JELLYJAR_ARCHIVE", "in-environment"), ("JELLYJAR_CONCURRENCY", "4")];
    let environment = place.load(&Overrides::default(), &variables).unwrap();
    assert_eq!(archive_of(&environment), "in-environment");
    assert_eq!(environment.config.worker.concurrency, 4);

    let flags = Overrides { archive: Some("in-flag".into()), concurrency: Some(5), ..Overrides::default() };
    let flag = place.load(&flags, &variables).unwrap();
    assert_eq!(archive_of(&flag), "in-flag");
    assert_eq!(flag.sources.of("archive"), Origin::Flag("--archive"));
    assert_eq!(flag.config.worker.concurrency, 5);
    assert_eq!(flag.config.worker.max_leases, 1024);
}

#[test]
fn the_file_is_looked_for_in_order() {
    let archive = |text: &str| format!("archive = \"/{text}\"\n");
    let place = Place::new(&[
        ("flag.toml", &archive("flag")),
        ("variable.toml", &archive("variable")),
        ("jellyjar.toml", &archive("here")),
        ("xdg/jellyjar/jellyjar.toml", &archive("xdg")),
        ("home/.config/jellyjar/jellyjar.toml", &archive("home")),
    ]);
    let path = |name| place.path(name).to_str().unwrap().to_owned();
    let (xdg, home, variable) = (path("xdg"), path("home"), path("variable.toml"));
    let variables = [("JELLYJAR_CONFIG", &*variable), ("XDG_CONFIG_HOME", &*xdg), ("HOME", &*home)];
    let archive =
        |overrides: &Overrides, variables: &[(&str, &str)]| archive_of(&place.load(overrides, variables).unwrap());
    let flag = Overrides { config: Some(place.path("flag.toml")), ..Overrides::default() };
    assert_eq!(archive(&flag, &variables), "/flag");
    assert_eq!(archive(&Overrides::default(), &variables), "/variable");
    assert_eq!(archive(&Overrides::default(), &variables[1..]), "/here");
    fs::remove_file(place.path("jellyjar.toml")).unwrap();
    assert_eq!(archive(&Overrides::default(), &variables[1..]), "/xdg");
    assert_eq!(archive(&Overrides::default(), &variables[2..]), "/home");
    assert_eq!(place.load(&Overrides::default(), &[]).unwrap().sources.file, None);
}

#[test]
fn a_file_that_was_asked_for_must_be_there() {
    let error = Place::new(&[]).refusal(&[("JELLYJAR_CONFIG", "/nowhere/jellyjar.toml")]);
    assert!(error.contains("/nowhere/jellyjar.toml"), "{error}");
}

#[test]
fn paths_in_the_file_are_taken_from_its_folder_and_from_home() {
    let text = "archive = \"~/archive\"\n[teams.a]\ntoken_file = \"secrets/a\"\n";
    let place = Place::new(&[("etc/jellyjar.toml", text), ("etc/secrets/a", "abc\n")]);
    let overrides = Overrides { config: Some(place.path("etc/jellyjar.toml")), ..Overrides::default() };
    let loaded = place.load(&overrides, &[("HOME", "/home/ann")]).unwrap();
    assert_eq!(archive_of(&loaded), "/home/ann/archive");
    assert_eq!(token_of(&loaded, "a"), "abc");
    let error = place.load(&overrides, &[]).unwrap_err().to_string();
    assert!(error.contains("jellyjar.toml:1: `archive`: `~`"), "{error}");
}

#[test]
fn a_token_of_the_environment_goes_over_that_of_the_file() {
    let place = Place::new(&[("jellyjar.toml", "[teams.default]\ntoken = \"from-file\"\n"), ("t", "from-flag\n")]);
    assert_eq!(token_of(&place.load(&Overrides::default(), &[]).unwrap(), "default"), "from-file");
    let variables = [("JELLY_API_TOKEN", "from-environment")];
    assert_eq!(token_of(&place.load(&Overrides::default(), &variables).unwrap(), "default"), "from-environment");
    let flags = Overrides { token_file: Some(place.path("t")), ..Overrides::default() };
    let loaded = place.load(&flags, &variables).unwrap();
    assert_eq!(token_of(&loaded, "default"), "from-flag");
    assert_eq!(loaded.sources.of("teams.default.token_file"), Origin::Flag("--token-file"));
}

#[test]
fn a_token_of_the_environment_beside_other_teams_makes_a_team_and_a_warning() {
    let place = Place::new(&[("jellyjar.toml", "[teams.support]\ntoken = \"abc\"\n")]);
    let loaded = place.load(&Overrides::default(), &[("JELLY_API_TOKEN", "def")]).unwrap();
    assert_eq!(token_of(&loaded, "default"), "def");
    assert_eq!(token_of(&loaded, "support"), "abc");
    assert!(loaded.warnings.iter().any(|warning| warning.contains("besides `support`")), "{:?}", loaded.warnings);
    let loaded = place.load(&Overrides::default(), &[]).unwrap();
    assert!(!loaded.config.teams.contains_key("default"));
}

#[test]
fn a_command_that_asks_jelly_for_nothing_leaves_token_files_unread() {
    let place = Place::new(&[("jellyjar.toml", "[teams.default]\ntoken_file = \"/nowhere\"\n")]);
    assert!(matches!(place.load(&Overrides::default(), &[]), Err(ConfigError::ReadSecret { .. })));
    let overrides = Overrides { skip_tokens: true, ..Overrides::default() };
    let loaded = place.load(&overrides, &[]).unwrap();
    assert_eq!(loaded.config.teams["default"].token_file, Some("/nowhere".into()));
}

#[test]
fn no_error_and_no_debug_form_holds_a_token() {
    let place = Place::new(&[]);
    for variables in
        [[("JELLY_API_TOKEN", "hush hush"), ("X", "")], [("JELLY_API_TOKEN", "hush"), ("JELLY_API_TOKEN_FILE", "f")]]
    {
        let error = place.load(&Overrides::default(), &variables).unwrap_err();
        assert!(!error.to_string().contains("hush") && !format!("{error:?}").contains("hush"), "{error:?}");
    }
    let loaded = place.load(&Overrides::default(), &[("JELLY_API_TOKEN", "hush")]).unwrap();
    assert!(!format!("{loaded:?}").contains("hush"));
    let error = place.refusal(&[("JELLY_API_URL", "https://me:hush@jelly.example/api")]);
    assert!(error.starts_with("environment variable JELLY_API_URL: ") && !error.contains("hush"), "{error}");
}

#[cfg(unix)]
#[test]
fn files_with_secrets_that_others_can_read_are_warned_of() {
    use std::os::unix::fs::PermissionsExt as _;
    let place =
        Place::new(&[("jellyjar.toml", "[teams.a]\ntoken = \"abc\"\n[teams.b]\ntoken_file = \"t\"\n"), ("t", "def")]);
    for (mode, expected) in [(0o600, 0), (0o640, 2), (0o604, 2)] {
        for name in ["jellyjar.toml", "t"] {
            fs::set_permissions(place.path(name), fs::Permissions::from_mode(mode)).unwrap();
        }
        let loaded = place.load(&Overrides::default(), &[]).unwrap();
        assert_eq!(loaded.warnings.len(), expected, "{mode:o}: {:?}", loaded.warnings);
    }
}

#[test]
fn two_teams_cannot_have_one_name_in_one_archive() {
    let clash = "archive = \"/a\"\n[teams.one]\narchive_key = \"same\"\n[teams.two]\narchive_key = \"same\"\n";
    let error = Place::new(&[("jellyjar.toml", clash)]).refusal(&[]);
    assert!(error.contains("`one` and `two` are both `same`") && error.contains("jellyjar.toml:5"), "{error}");
    let apart = format!("{clash}archive = \"/b\"\n");
    assert!(Place::new(&[("jellyjar.toml", &apart)]).load(&Overrides::default(), &[]).is_ok());
    let by_name = "[teams.one]\narchive_key = \"two\"\n[teams.two]\n";
    assert!(Place::new(&[("jellyjar.toml", by_name)]).refusal(&[]).contains("both `two`"));
}

#[test]
fn settings_that_do_not_go_together_are_refused_where_they_stand() {
    for (text, expected) in [
        ("[teams.\"a b\"]\n", "jellyjar.toml:1: `teams.a b`: "),
        ("[teams.a]\ntoken = \"x\"\ntoken_file = \"y\"\n", "jellyjar.toml:1: `teams.a`: both "),
        ("[retry]\nbase_delay = \"40m\"\n", "jellyjar.toml:2: `retry.base_delay`: "),
        ("[filter]\nmin_size = \"2 MiB\"\nmax_size = \"1 MiB\"\n", "jellyjar.toml:2: `filter.min_size`: "),
        ("[filter]\nsince = 2026-02-01\nuntil = 2026-02-01\n", "jellyjar.toml:2: `filter.since`: "),
        ("[api]\nbase_url = \"jelly\"\n", "jellyjar.toml:2: `api.base_url`: "),
        ("[api]\nbase_url = \"ftp://jelly.example/api\"\n", "jellyjar.toml:2: `api.base_url`: "),
        ("[http]\nca_file = \"/nowhere.pem\"\n", "jellyjar.toml:2: `http.ca_file`: "),
        ("[http]\nproxy = \"socks5://localhost\"\n", "jellyjar.toml:2: `http.proxy`: "),
    ] {
        let error = Place::new(&[("jellyjar.toml", text)]).refusal(&[]);
        assert!(error.contains(expected), "{error}");
    }
}

#[test]
fn what_could_never_be_reached_is_lowered_with_a_word_on_it() {
    let text = "[worker]\nmax_leases = 10\nconcurrency = 20\n[spool]\nmax_size = \"1 GiB\"\n";
    let loaded = Place::new(&[("jellyjar.toml", text)]).load(&Overrides::default(), &[]).unwrap();
    let worker = &loaded.config.worker;
    assert_eq!((worker.concurrency, worker.batch_size), (10, 10));
    assert_eq!(loaded.warnings.len(), 2, "{:?}", loaded.warnings);
}

#[test]
fn a_misspelt_variable_is_warned_of() {
    let loaded = Place::new(&[]).load(&Overrides::default(), &[("JELLYJAR_ARCHVE", "/a"), ("PATH", "/bin")]).unwrap();
    assert_eq!(loaded.warnings.len(), 1);
    assert!(loaded.warnings[0].contains("JELLYJAR_ARCHVE"));
}

#[test]
fn the_quota_is_the_live_one_unless_set_or_on_loopback() {
    let load = |text: &str| Place::new(&[("jellyjar.toml", text)]).load(&Overrides::default(), &[]).unwrap().config;
    let config = load("");
    assert!(!config.api.is_loopback());
    assert_eq!(config.quota_limits(false), (Some(5_000), Some(100_000)));
    assert_eq!(config.quota_limits(true), (None, None));
    let config = load("[quota]\nrequests_per_day = 7\n");
    assert_eq!(config.quota_limits(false), (Some(5_000), Some(7)));
    assert_eq!(config.quota_limits(true), (None, Some(7)));
    for base in [
        "http://127.0.0.1:8080/api/",
        "http://localhost/api",
        "http://[::1]/api",
        "http://2130706433/api",
        "http://[::ffff:127.0.0.1]",
    ] {
        assert!(load(&format!("[api]\nbase_url = \"{base}\"\n")).api.is_loopback(), "{base}");
    }
    for base in ["https://localhost.example/api", "https://10.0.0.1/api"] {
        assert!(!load(&format!("[api]\nbase_url = \"{base}\"\n")).api.is_loopback(), "{base}");
    }
}

#[test]
fn the_base_url_loses_its_final_slash() {
    let loaded =
        Place::new(&[]).load(&Overrides::default(), &[("JELLY_API_URL", "https://jelly.example/api/")]).unwrap();
    assert_eq!(loaded.config.api.base_url, "https://jelly.example/api");
}

#[test]
fn every_example_can_be_used_as_it_stands() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("config");
    let mut names = Vec::new();
    for entry in fs::read_dir(folder).unwrap().map(Result::unwrap).filter(|entry| entry.path().is_file()) {
        let overrides = Overrides { config: Some(entry.path()), skip_tokens: true, ..Overrides::default() };
        let loaded = load(&overrides, &Environment::from_pairs([("HOME", "/nowhere")])).unwrap();
        assert_eq!(loaded.warnings, [""; 0], "{}", entry.path().display());
        names.push(entry.file_name());
    }
    assert!(names.contains(&"fleet.toml".into()), "{names:?}");
}
