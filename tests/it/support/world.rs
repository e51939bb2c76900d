//! One test's world: a folder, a simulated Jelly, an archive, and the program run against them.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::{Mutex, PoisonError};

use jellyjar::sim::SimConfig;
use serde_json::Value;
use sqlx::{Connection as _, SqliteConnection};
use tempfile::TempDir;

use super::{Database, Ended, Jelly, Ledger, Process, Receipt, write_lines};

/// The token: so odd that it is found wherever it leaks.
pub(crate) const TOKEN: &str = "tok-canary-5b1f0c7e9d";

/// Short waits, so that faults cost a test no more than they must.
const SETTINGS: &str = "\
[http]
connect_timeout = \"5s\"
read_timeout = \"1s\"
[retry]
base_delay = \"2ms\"
max_delay = \"20ms\"
give_up_after = \"0s\"
";

/// See the module.
pub(crate) struct World {
    pub(crate) jelly: Jelly,
    folder: TempDir,
    /// Where catalogs are databases: each by the folder that it would be in.
    databases: Option<Mutex<BTreeMap<PathBuf, Database>>>,
}

impl World {
    /// A world in which nothing goes wrong.
    pub(crate) fn new() -> Self {
        Self::with(SimConfig::default())
    }

    /// A world with these faults.
    pub(crate) fn with_faults(faults: &str) -> Self {
        Self::with(SimConfig { faults: faults.parse().unwrap(), ..SimConfig::default() })
    }

    /// A world with this Jelly. Its token is [`TOKEN`].
    pub(crate) fn with(config: SimConfig) -> Self {
        let jelly = Jelly::start(SimConfig { token: TOKEN.into(), ..config });
        let databases = on_postgres().then(Mutex::default);
        let world = Self { jelly, folder: TempDir::with_prefix("jellyjar-it-").unwrap(), databases };
        world.settings("");
        world
    }

    /// A path in the test's folder.
    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// Whether the catalog is a database, of which many processes can be workers.
    pub(crate) const fn is_on_postgres(&self) -> bool {
        self.databases.is_some()
    }

    /// The archive.
    pub(crate) fn archive(&self) -> PathBuf {
        self.path("archive")
    }

    /// Writes the configuration file: the tests' own settings, then `more`, whose tables must be others, or dotted.
    pub(crate) fn settings(&self, more: &str) {
        let mut text = format!("{more}\n{SETTINGS}");
        if self.databases.is_some() {
            // What a killed process held is free when its leases have ended: there is no lock that tells of its death.
            if !text.contains("[worker]\n") {
                text.push_str("[worker]\n");
            }
            text = text.replacen("[worker]\n", "[worker]\nlease_duration = \"10s\"\n", 1);
        }
        std::fs::write(self.path("jellyjar.toml"), text).unwrap();
    }

    /// Writes the dump.
    pub(crate) fn dump(&self, events: &[Value]) -> PathBuf {
        let path = self.path("dump/mail.jsonl");
        write_lines(&path, events);
        path
    }

    /// The program, with an environment that holds nothing but the way to Jelly, in the test's folder.
    pub(crate) fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_jellyjar"));
        command.env_clear().current_dir(self.folder.path());
        command.env("HOME", self.folder.path()).env("TMPDIR", self.folder.path());
        command.env("JELLY_API_URL", self.jelly.base_url()).env("JELLY_API_TOKEN", TOKEN);
        let mut arguments = arguments.to_vec();
        if self.databases.is_some() {
            // A password is no argument.
            command.env("JELLYJAR_CATALOG", self.database_for(&mut arguments));
        }
        command.args(arguments);
        command
    }

    /// The database in the place of the catalog that a command would use, which its arguments name no more.
    fn database_for(&self, arguments: &mut Vec<&str>) -> String {
        let place_of = |name: &str| arguments.iter().position(|argument| *argument == name);
        let folder = match (place_of("--catalog"), place_of("--archive")) {
            (Some(place), _) => self.path(arguments.drain(place..place + 2).as_slice()[1]),
            (None, Some(place)) => self.path(arguments[place + 1]).join(".jellyjar"),
            (None, None) => self.archive().join(".jellyjar"),
        };
        self.database(&folder, Database::url)
    }

    /// Asks the database in the place of a catalog; makes it where it is new.
    fn database<T>(&self, folder: &Path, ask: impl FnOnce(&Database) -> T) -> T {
        let databases = self.databases.as_ref().expect("catalogs are databases");
        let mut databases = databases.lock().unwrap_or_else(PoisonError::into_inner);
        let make = || Database::create().expect("tests/servers/run starts a PostgreSQL");
        ask(databases.entry(folder.to_owned()).or_insert_with(make))
    }

    /// Starts a command.
    pub(crate) fn start(&self, command: Command) -> Process {
        Process::start(command, self.folder.path(), Stdio::null())
    }

    /// Starts a command with a pipe as its standard input.
    pub(crate) fn start_with_stdin(&self, command: Command) -> Process {
        Process::start(command, self.folder.path(), Stdio::piped())
    }

    /// Runs the program to its end, and checks what holds for every run.
    pub(crate) fn run(&self, arguments: &[&str]) -> Ended {
        let ended = self.start(self.command(arguments)).wait();
        self.check(&ended);
        ended
    }

    /// The arguments of a replay of `dump/` into the archive.
    pub(crate) const REPLAY: [&str; 5] = ["replay", "dump", "--archive", "archive", "--json"];

    /// Replays `dump/` into the archive.
    pub(crate) fn replay(&self) -> Receipt {
        self.replay_with(&[])
    }

    /// The same with more arguments.
    pub(crate) fn replay_with(&self, more: &[&str]) -> Receipt {
        self.run(&[&Self::REPLAY[..], more].concat()).receipt()
    }

    /// Starts the same.
    pub(crate) fn start_replay(&self) -> Process {
        self.start(self.command(&Self::REPLAY))
    }

    /// What holds for every run, whatever went wrong: secrets and links stay inside, and the storage sees no token.
    pub(crate) fn check(&self, ended: &Ended) {
        for text in [&ended.stdout, &ended.stderr] {
            for secret in [TOKEN, "X-Amz-", "eyJfcmFpbHMi"] {
                assert!(!text.contains(secret), "{secret} was printed:\n{text}");
            }
            assert!(!text.contains("panicked"), "{text}");
            if self.databases.is_some() {
                let password =
                    self.database(&self.archive().join(".jellyjar"), |database| database.password().to_owned());
                assert!(!text.contains(&password), "the database's password was printed:\n{text}");
            }
        }
        let stats = self.jelly.stats();
        assert_eq!(stats.storage_authorization_seen, 0, "the storage was sent a token");
        assert_eq!(stats.storage_referer_seen, 0, "the storage was sent a referer or a cookie");
    }

    /// The archive's files, which must be sound.
    pub(crate) fn ledger(&self) -> Ledger {
        Ledger::sound(&self.archive())
    }

    /// The archive that the same dump gives where nothing goes wrong. All faults end, and the counters begin anew.
    pub(crate) fn fair_weather(&self) -> Ledger {
        self.jelly.set_faults("");
        self.run(&["replay", "dump", "--archive", "reference", "--json"]).receipt();
        self.jelly.reset();
        Ledger::sound(&self.path("reference"))
    }

    /// Removes the catalog, as a lost disk would.
    pub(crate) fn lose_catalog(&self) {
        let folder = self.archive().join(".jellyjar");
        if self.databases.is_some() {
            self.database(&folder, Database::lose);
            // Downloads are spooled there, wherever the catalog is.
            let _ = std::fs::remove_dir_all(folder);
            return;
        }
        std::fs::remove_dir_all(folder).unwrap();
    }

    /// One column of a query on the catalog, as text.
    pub(crate) fn catalog(&self, query: &'static str) -> Vec<String> {
        self.catalog_in("archive/.jellyjar", query)
    }

    /// The same, where the catalog is in this folder.
    pub(crate) fn catalog_in(&self, folder: &str, query: &'static str) -> Vec<String> {
        if self.databases.is_some() {
            return self.database(&self.path(folder), |database| database.query(query));
        }
        let path = self.path(folder).join("catalog.sqlite");
        self.jelly.block_on(async {
            let mut connection = SqliteConnection::connect(&format!("sqlite://{}", path.display())).await.unwrap();
            match sqlx::query_scalar::<_, String>(query).fetch_all(&mut connection).await {
                // The program has not made its tables yet.
                Err(error) if error.to_string().contains("no such table") => vec![],
                rows => rows.unwrap(),
            }
        })
    }

    /// What was rejected: source, line, byte offset and reason.
    pub(crate) fn rejects(&self) -> Vec<(String, u64, u64, String)> {
        // As both engines can say it; no source has a line break in its name.
        let rows = self.catalog(
            "SELECT source || '\n' || line || '\n' || byte_offset || '\n' || reason FROM rejects
             ORDER BY source, byte_offset, reason",
        );
        let rejects = rows.iter().map(|row| {
            let [source, line, byte_offset, reason] = row.splitn(4, '\n').collect::<Vec<_>>().try_into().unwrap();
            (source.to_owned(), line.parse().unwrap(), byte_offset.parse().unwrap(), reason.to_owned())
        });
        rejects.collect()
    }

    /// A folder's whole content as bytes, one file after another.
    pub(crate) fn bytes_below(folder: &Path) -> Vec<u8> {
        let mut bytes = Vec::new();
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                bytes.extend(Self::bytes_below(&path));
            } else {
                bytes.extend(std::fs::read(&path).unwrap());
            }
        }
        bytes
    }
}

/// Whether catalogs are to be databases of a PostgreSQL.
#[expect(clippy::disallowed_methods, reason = "the environment of the tests, not the program's")]
fn on_postgres() -> bool {
    match std::env::var("JELLYJAR_TEST_CATALOG").as_deref() {
        Err(_) | Ok("" | "sqlite") => false,
        Ok("postgres") => true,
        Ok(other) => panic!("JELLYJAR_TEST_CATALOG is sqlite or postgres, not {other:?}"),
    }
}
