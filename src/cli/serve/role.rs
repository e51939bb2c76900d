//! What of a service a process is: `serve` is all of it on one machine; `receive` and `work` are its halves, each as often
//! as wanted, with a catalog between them.

use std::path::PathBuf;

use clap::Args;

use crate::cli::session::{no_token, settings};
use crate::cli::{UsageError, fleet};
use crate::config::{Config, Loaded, Overrides};
use crate::web::Hooks;

/// The part that a process has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::cli) enum Role {
    /// Takes webhooks and archives.
    Serve,
    /// Archives what stands in the catalog.
    Work,
    /// Takes webhooks, and what they bring into journal and catalog.
    Receive,
}

/// Where the public listener is.
#[derive(Debug, Clone, Args)]
#[expect(clippy::doc_markdown, reason = "these are help texts, where backticks would show")]
struct PublicAddress {
    /// Where webhooks are taken: an address of this machine and a port [env: JELLYJAR_LISTEN] [default: 127.0.0.1:8080]
    #[arg(long, value_name = "ADDRESS")]
    listen: Option<String>,
}

/// Where the operators' listener is.
#[derive(Debug, Clone, Args)]
#[expect(clippy::doc_markdown, reason = "these are help texts, where backticks would show")]
struct OperationsAddress {
    /// Where /healthz, /readyz and /metrics are told; each process needs a port of its own, and 0 is any that is free
    /// [env: JELLYJAR_OPS_LISTEN] [default: 127.0.0.1:8081]
    #[arg(long, value_name = "ADDRESS")]
    ops_listen: Option<String>,
}

/// The arguments of `jellyjar serve`.
#[derive(Debug, Clone, Args)]
#[command(after_help = "Examples:
  export JELLY_API_TOKEN=… JELLY_WEBHOOK_SECRET=…
  jellyjar serve --archive /srv/archive --listen 127.0.0.1:8080
  jellyjar serve --config /etc/jellyjar/jellyjar.toml
  curl http://127.0.0.1:8081/readyz               what it needs, and how that is

Jelly posts webhooks to https://YOUR.HOST/webhooks/TEAM, where TEAM is `default` unless teams are configured. A webhook is \
answered with 2xx only once it is durable in the inbox. SIGTERM stops it in good order, SIGHUP reads settings, tokens and \
secrets again; so does a change of their files, within 10 s. Stop it, kill it and start it again as you like: nothing that was \
accepted is lost.")]
pub(in crate::cli) struct ServeArgs {
    #[command(flatten)]
    public: PublicAddress,
    #[command(flatten)]
    operations: OperationsAddress,
}

/// The arguments of `jellyjar receive`.
#[derive(Debug, Clone, Args)]
#[command(after_help = "Examples:
  export JELLY_WEBHOOK_SECRET=… JELLYJAR_CATALOG=postgres://…
  jellyjar receive --archive s3://example-mail/jelly --listen 127.0.0.1:8080
  jellyjar receive --config /etc/jellyjar/jellyjar.toml

`serve` without its worker: a webhook is answered with 2xx once it is durable in this machine's inbox, and what it brings is \
entered into the catalog, where a `work` finds it, on this machine or another. It asks Jelly for nothing and needs no \
API token. It may run on many machines, behind one load balancer; each has an inbox of its own. Signals and reloading \
are those of `serve`.")]
pub(in crate::cli) struct ReceiveArgs {
    #[command(flatten)]
    public: PublicAddress,
    #[command(flatten)]
    operations: OperationsAddress,
}

/// The arguments of `jellyjar work`.
#[derive(Debug, Clone, Args)]
#[command(after_help = "Examples:
  export JELLY_API_TOKEN=… JELLYJAR_CATALOG=postgres://…
  jellyjar work --archive s3://example-mail/jelly
  jellyjar work --config /etc/jellyjar/jellyjar.toml --ops-listen 127.0.0.1:8082      a second one on this machine

`serve` without its listener for webhooks: it archives what stands in the catalog, for all teams of the configuration, and \
does backfills, the gap sweep and compaction. It has no inbox and needs no webhook secret. On PostgreSQL many share the \
work, on as many machines as you like; on SQLite one works, and the others follow until it ends. SIGTERM stops it in \
good order, SIGHUP reads settings and tokens again; so does a change of their files, within 10 s.")]
pub(in crate::cli) struct WorkArgs {
    #[command(flatten)]
    operations: OperationsAddress,
}

/// Which part to be, and where to listen.
#[derive(Debug)]
pub(in crate::cli) struct Part {
    pub(super) role: Role,
    pub(super) listen: Option<String>,
    pub(super) ops_listen: Option<String>,
}

impl From<ServeArgs> for Part {
    fn from(ServeArgs { public, operations }: ServeArgs) -> Self {
        Self { role: Role::Serve, listen: public.listen, ops_listen: operations.ops_listen }
    }
}

impl From<ReceiveArgs> for Part {
    fn from(ReceiveArgs { public, operations }: ReceiveArgs) -> Self {
        Self { role: Role::Receive, listen: public.listen, ops_listen: operations.ops_listen }
    }
}

impl From<WorkArgs> for Part {
    fn from(WorkArgs { operations }: WorkArgs) -> Self {
        Self { role: Role::Work, listen: None, ops_listen: operations.ops_listen }
    }
}

impl Role {
    /// Its command.
    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::Serve => fleet::SERVE,
            Self::Work => "work",
            Self::Receive => fleet::RECEIVE,
        }
    }

    /// Whether it takes webhooks, and so has an inbox.
    pub(super) const fn receives(self) -> bool {
        matches!(self, Self::Serve | Self::Receive)
    }

    /// Whether it asks Jelly and fetches.
    pub(super) const fn works(self) -> bool {
        matches!(self, Self::Serve | Self::Work)
    }

    /// What of the settings it reads: no secrets that it has no use for.
    pub(super) fn overrides(self, from: Overrides) -> Overrides {
        Overrides { read_webhooks: self.receives(), skip_tokens: !self.works(), ..from }
    }

    /// Reads the settings, and refuses those with which nothing could be done.
    pub(super) fn settings(self, overrides: &Overrides) -> anyhow::Result<Loaded> {
        let mut loaded = settings(overrides)?;
        self.check(&loaded.config)?;
        loaded.config.webhooks_elsewhere = self == Self::Work;
        Ok(loaded)
    }

    fn check(self, config: &Config) -> anyhow::Result<()> {
        if config.teams.is_empty() {
            return Err(no_token(crate::config::DEFAULT_TEAM).into());
        }
        for (name, team) in &config.teams {
            if self.works() && team.token.is_none() {
                return Err(no_token(name).into());
            }
            if config.archive_for(name).is_none() {
                let text =
                    format!("team {name} has no archive; add --archive PLACE, or set `archive` in the configuration");
                return Err(UsageError(text).into());
            }
        }
        if self.receives() && Hooks::new(&config.teams).teams().is_empty() {
            let text = "no team has a webhook secret, so no webhook could be accepted; set JELLY_WEBHOOK_SECRET, or \
                        `webhook_secret_file` under [teams.NAME]";
            return Err(UsageError(text.into()).into());
        }
        Ok(())
    }

    /// Where it is kept over restarts what people were told. Workers of one machine are told apart by their operations
    /// listeners; one whose port is any that is free has no lasting name, and keeps nothing.
    pub(super) fn notified_file(self, config: &Config) -> Option<PathBuf> {
        if self.receives() {
            return Some(config.inbox_folder()?.join("notified.json"));
        }
        let address = config.serve.ops_listen;
        let folder = config.state_home.as_ref().filter(|_| address.port() != 0)?.join("jellyjar");
        // An address of IPv6 has characters that not every file system takes.
        let name = address.to_string().replace(|c: char| !c.is_ascii_alphanumeric() && c != '.', "-");
        Some(folder.join(format!("notified-work-{name}.json")))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{Environment, load};

    #[test]
    fn workers_of_one_machine_keep_what_they_told_apart_and_a_receiver_in_its_inbox() {
        let mut config = Config { state_home: Some("/state".into()), ..Config::default() };
        let mut file = |role: Role, address: &str| {
            config.serve.ops_listen = address.parse().unwrap();
            role.notified_file(&config).map(|path| path.display().to_string())
        };
        for (address, name) in [("127.0.0.1:8082", "127.0.0.1-8082"), ("[::1]:8082", "---1--8082")] {
            assert_eq!(file(Role::Work, address), Some(format!("/state/jellyjar/notified-work-{name}.json")));
            for role in [Role::Serve, Role::Receive] {
                assert_eq!(file(role, address).as_deref(), Some("/state/jellyjar/inbox/notified.json"));
            }
        }
        assert_eq!(file(Role::Work, "127.0.0.1:0"), None);
    }

    #[test]
    fn a_worker_may_have_the_address_where_others_take_webhooks() {
        let given = Overrides { ops_listen: Some("127.0.0.1:8080".into()), ..Overrides::default() };
        let loaded = |role: Role| load(&role.overrides(given.clone()), &Environment::default());
        for role in [Role::Serve, Role::Receive] {
            let error = loaded(role).unwrap_err().to_string();
            assert!(error.contains("cannot share an address"), "{error}");
        }
        assert_eq!(loaded(Role::Work).unwrap().config.serve.ops_listen.port(), 8080);
    }
}
