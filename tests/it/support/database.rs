//! A PostgreSQL database of a test's own, in the server that runs beside the tests.

use sqlx::postgres::PgConnectOptions;
use sqlx::{AssertSqlSafe, Connection as _, PgConnection};
use tokio::runtime::Builder;
use ulid::Ulid;
use url::Url;

use super::bucket::variable;

/// See the module. Dropping it drops the database.
pub(crate) struct Database {
    /// Where databases are made.
    server: Url,
    name: String,
}

impl Database {
    /// Makes an empty one; `None`, with a word on why, where no server runs beside the tests.
    pub(crate) fn create() -> Option<Self> {
        let server: Url = variable("JELLYJAR_TEST_POSTGRES")?.parse().unwrap();
        let name = format!("it_{}", Ulid::generate()).to_lowercase();
        let database = Self { server, name };
        database.make();
        Some(database)
    }

    /// The database as the setting `catalog` takes it.
    pub(crate) fn url(&self) -> String {
        let mut url = self.server.clone();
        url.set_path(&self.name);
        url.into()
    }

    /// What nobody may ever see.
    pub(crate) fn password(&self) -> &str {
        self.server.password().unwrap()
    }

    /// One column of a query, as text.
    pub(crate) fn query(&self, query: &str) -> Vec<String> {
        ask(&self.url(), query)
    }

    /// Loses all that is in it, also while others are connected.
    pub(crate) fn lose(&self) {
        self.remove();
        self.make();
    }

    fn make(&self) {
        ask(self.server.as_str(), &format!("CREATE DATABASE {}", self.name));
    }

    fn remove(&self) {
        ask(self.server.as_str(), &format!("DROP DATABASE {} WITH (FORCE)", self.name));
    }
}

impl Drop for Database {
    fn drop(&mut self) {
        // A test that has failed may have left the server stopped.
        if !std::thread::panicking() {
            self.remove();
        }
    }
}

/// Runs one statement on a connection of its own, and gives the one column of its answer.
fn ask(url: &str, statement: &str) -> Vec<String> {
    Builder::new_current_thread().enable_all().build().unwrap().block_on(async {
        // The program's tables are in a schema of its own.
        let options = url.parse::<PgConnectOptions>().unwrap().options([("search_path", "jellyjar,public")]);
        let mut connection = PgConnection::connect_with(&options).await.unwrap();
        let statement = AssertSqlSafe(statement.to_owned());
        let rows = match sqlx::query_scalar::<_, String>(statement).fetch_all(&mut connection).await {
            // The program has not made its tables yet.
            Err(error) if error.as_database_error().is_some_and(|error| error.code().as_deref() == Some("42P01")) => {
                vec![]
            }
            rows => rows.unwrap(),
        };
        connection.close().await.unwrap();
        rows
    })
}

#[test]
fn a_database_begins_empty_and_can_be_lost() {
    let (Some(one), Some(other)) = (Database::create(), Database::create()) else { return };
    one.query("CREATE TABLE words (word TEXT)");
    assert_eq!(one.query("INSERT INTO words VALUES ('kept') RETURNING word"), ["kept"]);
    assert_eq!(one.query("SELECT word FROM words"), ["kept"]);
    let tables = "SELECT tablename::TEXT FROM pg_tables WHERE schemaname = 'public'";
    assert_eq!((one.query(tables), other.query(tables)), (vec!["words".to_owned()], vec![]));
    one.lose();
    assert_eq!(one.query(tables), [""; 0]);
    let name = one.name.clone();
    drop(one);
    let left = other.query("SELECT datname::TEXT FROM pg_database WHERE datname LIKE 'it\\_%'");
    assert!(!left.contains(&name) && left.contains(&other.name), "{left:?}");
}
