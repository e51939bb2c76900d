//! `jellyjar config`: checks, shows and begins a configuration. Never prints a secret.

mod explain;
mod settings;

pub(super) use settings::common as common_settings;

use std::fs::OpenOptions;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::Context as _;
use clap::{Args, Subcommand};
use serde_json::json;

use crate::config::{Environment, Loaded, Overrides, load};
use crate::filter::Filter;

/// The reference file, with every setting explained.
pub const REFERENCE: &str = include_str!("../../config/jellyjar.toml");

/// The exit code of a configuration that cannot be used.
const UNUSABLE: u8 = 2;

/// The arguments of `jellyjar config`.
#[derive(Debug, Clone, Args)]
#[command(after_help = "Examples:
  jellyjar config init                          writes ./jellyjar.toml
  jellyjar config check                         explains what is set, and warns
  jellyjar config show --json")]
pub struct ConfigArgs {
    /// What is done.
    #[command(subcommand)]
    pub command: ConfigCommand,
}

/// What `jellyjar config` does.
#[derive(Debug, Clone, Subcommand)]
pub enum ConfigCommand {
    /// Read everything and explain it in sentences; exit 2 if it cannot be used
    #[command(after_help = "Examples:
  jellyjar config check
  jellyjar config check --config /etc/jellyjar.toml --json")]
    Check,
    /// Print every setting with its value and where that came from
    #[command(after_help = "Examples:
  jellyjar config show
  jellyjar config show --archive /srv/archive --json          as a flag would change it")]
    Show,
    /// Write the reference file, with every setting explained; never overwrites
    #[command(after_help = "Examples:
  jellyjar config init                          writes ./jellyjar.toml
  jellyjar config init /etc/jellyjar.toml")]
    Init {
        /// Where to write it
        #[arg(default_value = "jellyjar.toml")]
        path: PathBuf,
    },
}

/// Runs the command. Exits 2 if the configuration cannot be used or the file cannot be written.
///
/// # Errors
/// If standard output or standard error cannot be written.
pub fn run(args: &ConfigArgs, overrides: &Overrides, json: bool) -> anyhow::Result<ExitCode> {
    let environment = Environment::from_process();
    let mut out = std::io::stdout().lock();
    let code = match execute(&args.command, overrides, &environment, json, &mut out) {
        Ok(()) => 0,
        Err(Failure::Unusable(error)) => {
            if json {
                writeln!(out, "{}", json!({ "ok": false, "error": format!("{error:#}") }))?;
            } else {
                writeln!(std::io::stderr().lock(), "error: {error:#}")?;
            }
            UNUSABLE
        }
        Err(Failure::Output(error)) => return Err(error).context("cannot write the answer"),
    };
    out.flush()?;
    Ok(ExitCode::from(code))
}

/// Why the command did not succeed.
#[derive(Debug)]
enum Failure {
    /// The configuration cannot be used, or not be written.
    Unusable(anyhow::Error),
    /// The answer could not be printed.
    Output(std::io::Error),
}

impl From<std::io::Error> for Failure {
    fn from(error: std::io::Error) -> Self {
        Self::Output(error)
    }
}

fn execute(
    command: &ConfigCommand,
    overrides: &Overrides,
    environment: &Environment,
    json: bool,
    out: &mut dyn Write,
) -> Result<(), Failure> {
    let load = |skip_tokens: bool| {
        let overrides = Overrides { skip_tokens, read_webhooks: !skip_tokens, ..overrides.clone() };
        load(&overrides, environment).map_err(|error| Failure::Unusable(error.into()))
    };
    match command {
        ConfigCommand::Check => {
            let loaded = load(false)?;
            compile_filters(&loaded).map_err(Failure::Unusable)?;
            if json {
                writeln!(out, "{}", explain::as_json(&loaded))?;
            } else {
                write!(out, "{}", explain::as_text(&loaded))?;
            }
        }
        ConfigCommand::Show => {
            let loaded = load(true)?;
            if json {
                writeln!(out, "{}", settings::as_json(&loaded))?;
            } else {
                write!(out, "{}", settings::as_text(&loaded))?;
            }
        }
        ConfigCommand::Init { path } => {
            write_reference(path).map_err(Failure::Unusable)?;
            let shown = path.display();
            if json {
                writeln!(out, "{}", json!({ "ok": true, "path": shown.to_string() }))?;
            } else {
                writeln!(out, "Wrote {shown}. Every line is a default; change what you need, then run:")?;
                writeln!(out, "  jellyjar --config {shown} config check")?;
            }
        }
    }
    Ok(())
}

/// Makes the rules of every team ready, to find what is wrong with them.
///
/// # Errors
/// If a rule cannot be used; the message names its place.
pub fn compile_filters(loaded: &Loaded) -> anyhow::Result<()> {
    let own = loaded
        .config
        .teams
        .iter()
        .filter_map(|(name, team)| Some((format!("teams.{name}.filter"), team.filter.as_ref()?)));
    for (section, config) in std::iter::once(("filter".to_owned(), &loaded.config.filter)).chain(own) {
        if let Err(error) = Filter::compile(config) {
            let key = format!("{section}.{}", error.key);
            let place = loaded.sources.locate(&key).map(|place| format!("{place}: ")).unwrap_or_default();
            anyhow::bail!("{place}`{key}`: {}", error.problem);
        }
    }
    Ok(())
}

/// Writes the reference file, for its owner only. A file that is there already is left alone.
fn write_reference(path: &Path) -> anyhow::Result<()> {
    let mut options = OpenOptions::new();
    options.write(true).create_new(true);
    #[cfg(unix)]
    {
        use std::os::unix::fs::OpenOptionsExt as _;
        options.mode(0o600);
    }
    let shown = path.display();
    let mut file = match options.open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => {
            anyhow::bail!("{shown} is there already and is left as it is; name another path: jellyjar config init PATH")
        }
        Err(error) => return Err(error).with_context(|| format!("cannot write {shown}")),
    };
    file.write_all(REFERENCE.as_bytes()).with_context(|| format!("cannot write {shown} to its end; remove it"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn execute_to_text(
        command: &ConfigCommand,
        toml: &str,
        variables: &[(&str, &str)],
        json: bool,
    ) -> Result<String, String> {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("c.toml");
        std::fs::write(&path, toml).unwrap();
        let overrides = Overrides { config: Some(path), ..Overrides::default() };
        let environment = Environment::from_pairs(variables.iter().copied());
        let mut out = Vec::new();
        let shown = folder.path().display().to_string();
        match execute(command, &overrides, &environment, json, &mut out) {
            Ok(()) => Ok(String::from_utf8(out).unwrap().replace(&shown, "DIR")),
            Err(Failure::Unusable(error)) => Err(format!("{error:#}").replace(&shown, "DIR")),
            Err(Failure::Output(error)) => panic!("{error}"),
        }
    }

    const FILE: &str = "archive = \"/srv/jar\"\n[http]\nproxy = \"http://me:hush@proxy.example:3128\"\n[filter]\nskip_names = [\"*.ics\"]\nmax_size = \"10 MiB\"\n[teams.default]\n[teams.sales]\narchive_key = \"s-1\"\n[teams.sales.filter]\ninline = \"keep\"\n";
    const TOKEN: [(&str, &str); 1] = [("JELLY_API_TOKEN", "hush")];

    #[test]
    fn check_explains_in_sentences() {
        let text = execute_to_text(&ConfigCommand::Check, FILE, &TOKEN, false).unwrap();
        insta::assert_snapshot!(text, @r#"
        The configuration file is DIR/c.toml (from --config).
        The archive is /srv/jar (file, line 1).
        Jelly is asked at https://app.letsjelly.com/api (default).
        All requests go through the proxy http://[set]@proxy.example:3128.
        At most 5,000 requests are made in each 5 minutes and egress group, the limit of the live service.
        At most 100,000 requests are made in each UTC day and team, the limit of the live service.

        Team `default`:
          Its token is set (environment JELLY_API_TOKEN).
          It shares the 5-minute limit of the egress group `default`.

        Team `sales`:
          It has no token; set `token_file` under [teams.sales].
          In the archive its name is `s-1`.
          It shares the 5-minute limit of the egress group `default`.
          It has rules of its own:
            Files that the HTML body refers to (inline) are kept like all others.

        The rules for teams without their own:
          Files that the HTML body refers to (inline) are skipped.
          Files with these names are skipped: "*.ics".
          Files declared larger than 10 MiB are skipped.

        The configuration can be used.
        "#);
    }

    #[test]
    fn check_prints_one_object() {
        let text = execute_to_text(&ConfigCommand::Check, FILE, &TOKEN, true).unwrap();
        assert!(!text.contains("hush"), "{text}");
        let object: serde_json::Value = serde_json::from_str(&text).unwrap();
        assert_eq!(object["ok"], true);
        assert_eq!(object["quota"]["requests_per_window"], 5_000);
        assert_eq!(object["teams"][0]["token"], "set");
        assert_eq!(object["teams"][1]["token"], serde_json::Value::Null);
        assert_eq!(object["teams"][1]["archive_key"], "s-1");
    }

    #[test]
    fn check_names_the_place_of_a_bad_pattern() {
        let error =
            execute_to_text(&ConfigCommand::Check, "[teams.a.filter]\n\nnames = [\"[a\"]\n", &[], false).unwrap_err();
        assert!(error.starts_with("DIR/c.toml:3: `teams.a.filter.names`: the pattern \"[a\""), "{error}");
    }

    #[test]
    fn an_unreadable_token_file_is_told_with_its_cause() {
        let file = "[teams.a]\ntoken_file = \"nowhere\"\n";
        let error = execute_to_text(&ConfigCommand::Check, file, &[], false).unwrap_err();
        assert!(error.contains("DIR/nowhere") && error.contains("os error 2"), "{error}");
        assert!(execute_to_text(&ConfigCommand::Show, file, &[], false).is_ok());
    }

    #[test]
    fn show_prints_every_setting_with_its_origin() {
        let text = execute_to_text(&ConfigCommand::Show, FILE, &TOKEN, false).unwrap();
        assert!(!text.contains("hush"), "{text}");
        for line in [
            "# file: DIR/c.toml",
            "archive = \"/srv/jar\"  # file, line 1",
            "# catalog is not set",
            "http.read_timeout = \"30s\"  # default",
            "http.proxy = \"http://[set]@proxy.example:3128\"  # file, line 3",
            "quota.requests_per_window = 5000  # default",
            "quota.live_share = 0.2  # default",
            "filter.skip_names = [\"*.ics\"]  # file, line 5",
            "teams.default.token = \"[set]\"  # environment JELLY_API_TOKEN",
            "# teams.sales.token is not set",
            "teams.sales.filter.inline = \"keep\"  # file, line 11",
        ] {
            assert!(text.lines().any(|shown| shown == line), "{line} is not in\n{text}");
        }
    }

    #[test]
    fn how_webhooks_are_known_is_explained_without_secrets() {
        let file = "[teams.default]\n[teams.a]\nwebhook_secret = \"hush-hush-hush-hush hush-hush-hush-hush2\"\nwebhook_username = \
                    \"jelly\"\nwebhook_password = \"hush\"\nallow_unsigned_webhooks = true\n";
        let variables = [("JELLY_WEBHOOK_SECRET", "hush-hush-hush-hush")];
        let text = execute_to_text(&ConfigCommand::Check, file, &variables, false).unwrap();
        for line in [
            "Replays and other bulk work leave 20 % of them to what comes by webhook (default).",
            "  Its webhooks are known by their signature.",
            "  Its webhooks are known by their signature with one of 2 secrets, where they have one, and by the user name `jelly` and \
             its password.",
        ] {
            assert!(text.lines().any(|shown| shown == line), "{line} is not in\n{text}");
        }
        let shown = execute_to_text(&ConfigCommand::Show, file, &variables, false).unwrap();
        for line in [
            "serve.listen = \"127.0.0.1:8080\"  # default",
            "teams.default.webhook_secret = \"[set]\"  # environment JELLY_WEBHOOK_SECRET",
            "teams.a.webhook_password = \"[set]\"  # file, line 5",
            "# teams.a.webhook_secret_file is not set",
        ] {
            assert!(shown.lines().any(|found| found == line), "{line} is not in\n{shown}");
        }
        let json = execute_to_text(&ConfigCommand::Check, file, &variables, true).unwrap();
        assert!(!text.contains("hush") && !json.contains("hush") && !shown.contains("hush"));
    }

    #[test]
    fn buckets_are_explained_without_their_keys() {
        let file = "archive = \"s3://mail/jelly\"\n[s3]\ntags = { team = \"a b\" }\n";
        let variables = [
            ("AWS_ACCESS_KEY_ID", "hush"),
            ("AWS_SECRET_ACCESS_KEY", "hush"),
            ("AWS_REGION", "eu-central-1"),
            ("AWS_ENDPOINT_URL", "http://localhost:9000"),
        ];
        let text = execute_to_text(&ConfigCommand::Check, file, &variables, false).unwrap();
        for line in [
            "The archive is s3://mail/jelly (file, line 1).",
            "S3 is asked at http://localhost:9000 (environment AWS_ENDPOINT_URL), in the region eu-central-1 (environment \
             AWS_REGION), with credentials of the environment (AWS_ACCESS_KEY_ID).",
        ] {
            assert!(text.lines().any(|shown| shown == line), "{line} is not in\n{text}");
        }
        let json = execute_to_text(&ConfigCommand::Check, file, &variables, true).unwrap();
        let object: serde_json::Value = serde_json::from_str(&json).unwrap();
        assert_eq!(object["archive"], "s3://mail/jelly");
        assert_eq!(object["buckets"][0]["region"], "eu-central-1");
        let shown = execute_to_text(&ConfigCommand::Show, file, &variables, false).unwrap();
        for line in [
            "archive = \"s3://mail/jelly\"  # file, line 1",
            "bucket.part_size = \"8 MiB\"  # default",
            "s3.endpoint = \"http://localhost:9000\"  # environment AWS_ENDPOINT_URL",
            "s3.tags = { \"team\" = \"a b\" }  # file, line 3",
            "# s3.profile is not set",
        ] {
            assert!(shown.lines().any(|found| found == line), "{line} is not in\n{shown}");
        }
        assert!(!text.contains("hush") && !json.contains("hush") && !shown.contains("hush"));
    }

    #[test]
    fn show_has_every_setting_of_the_reference_file() {
        let file = "[teams.default]\ntoken_file = \"x\"\n[teams.default.filter]\n";
        let text = execute_to_text(&ConfigCommand::Show, file, &[], true).unwrap();
        let object: serde_json::Value = serde_json::from_str(&text).unwrap();
        let mut section = String::new();
        for line in REFERENCE.lines().map(|line| line.strip_prefix('#').unwrap_or(line)) {
            if let Some(name) = line.strip_prefix('[').and_then(|line| line.strip_suffix(']')) {
                section = format!("{name}.");
            } else if let Some((name, _)) = line.split_once(" = ").filter(|(name, _)| !name.contains(' ')) {
                let key = format!("{section}{name}");
                assert!(object["settings"].get(&key).is_some(), "{key}");
            }
        }
    }

    #[test]
    fn init_writes_the_reference_file_once_and_for_its_owner_only() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("new.toml");
        let command = ConfigCommand::Init { path: path.clone() };
        let init = || execute(&command, &Overrides::default(), &Environment::default(), false, &mut Vec::new());
        init().unwrap();
        assert_eq!(std::fs::read_to_string(&path).unwrap(), REFERENCE);
        #[cfg(unix)]
        {
            use std::os::unix::fs::PermissionsExt as _;
            assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        }
        std::fs::write(&path, "mine").unwrap();
        let Err(Failure::Unusable(error)) = init() else { panic!("it was overwritten") };
        assert!(error.to_string().contains("is there already"), "{error}");
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "mine");
    }
}
