//! The two engines behind the catalog: a connection, statements with their parameters, rows and transactions of either.
//! Statements are written once, for SQLite; [`dialect`] says them to PostgreSQL. Where the two differ by more than words, a
//! statement is picked by [`Connection::pick`].

mod dialect;
mod value;
mod within;

use std::borrow::Cow;
use std::time::Duration;

use futures::stream::{BoxStream, StreamExt as _, TryStreamExt as _};
use sqlx::postgres::{PgArguments, PgConnection, PgRow};
use sqlx::sqlite::{SqliteArguments, SqliteConnection, SqliteRow};
use sqlx::{AssertSqlSafe, Connection as _, Postgres, Sqlite};
use within::Answers;

pub(super) use value::{Column, Value};

/// A connection to either engine.
#[derive(Debug)]
pub(super) struct Connection {
    link: Link,
    /// Whether a transaction is open, or was when what held it was dropped.
    is_unfinished: bool,
    /// How long PostgreSQL may take to answer, and whether it always has.
    answers: Answers,
}

#[derive(Debug)]
enum Link {
    Sqlite(SqliteConnection),
    Postgres(Box<PgConnection>),
}

impl From<SqliteConnection> for Connection {
    fn from(connection: SqliteConnection) -> Self {
        Self { link: Link::Sqlite(connection), is_unfinished: false, answers: Answers::within(Duration::MAX) }
    }
}

impl Connection {
    /// One to PostgreSQL, which is given up once a statement has gone unanswered for `answer_timeout`.
    pub(super) fn postgres(connection: PgConnection, answer_timeout: Duration) -> Self {
        let answers = Answers::within(answer_timeout);
        Self { link: Link::Postgres(Box::new(connection)), is_unfinished: false, answers }
    }

    /// Whether it leads to PostgreSQL.
    pub(super) const fn is_postgres(&self) -> bool {
        matches!(self.link, Link::Postgres(_))
    }

    /// The statement of this engine.
    pub(super) const fn pick(&self, sqlite: &'static str, postgres: &'static str) -> &'static str {
        match self.link {
            Link::Sqlite(_) => sqlite,
            Link::Postgres(_) => postgres,
        }
    }

    /// Runs statements without parameters, one after the other.
    pub(super) async fn run(&mut self, sql: impl Into<Cow<'static, str>>) -> sqlx::Result<()> {
        self.run_within(sql, false).await
    }

    /// The same, of statements that walk over whole tables and may take long.
    pub(super) async fn run_long(&mut self, sql: impl Into<Cow<'static, str>>) -> sqlx::Result<()> {
        self.run_within(sql, true).await
    }

    async fn run_within(&mut self, sql: impl Into<Cow<'static, str>>, is_long: bool) -> sqlx::Result<()> {
        let sql = sql.into();
        match &mut self.link {
            Link::Sqlite(link) => {
                sqlx::raw_sql(AssertSqlSafe(sql.into_owned())).execute(link).await?;
            }
            Link::Postgres(link) => {
                let running = sqlx::raw_sql(AssertSqlSafe(dialect::postgres(&sql))).execute(link.as_mut());
                self.answers.of(running, is_long).await?;
            }
        }
        Ok(())
    }

    /// Runs statements that PostgreSQL has no need of.
    pub(super) async fn sqlite_only(&mut self, sql: &'static str) -> sqlx::Result<()> {
        if self.is_postgres() { Ok(()) } else { self.run(sql).await }
    }

    /// Begins a transaction that writes. Dropped without a commit, it is undone.
    pub(super) async fn begin(&mut self) -> sqlx::Result<Transaction<'_>> {
        self.enter().await?;
        Ok(Transaction(self))
    }

    /// Begins a transaction that [`Connection::commit`] ends. SQLite's takes the lock for writing at once.
    pub(super) async fn enter(&mut self) -> sqlx::Result<()> {
        self.is_unfinished = true;
        self.run(self.pick("BEGIN IMMEDIATE", "BEGIN")).await
    }

    /// Ends a transaction that was entered.
    pub(super) async fn commit(&mut self) -> sqlx::Result<()> {
        self.run("COMMIT").await?;
        self.is_unfinished = false;
        Ok(())
    }

    /// Undoes the transaction of whoever had this connection before and did not end it. Should that fail, so does the
    /// statement that follows, and says why.
    pub(super) async fn undo_unfinished(&mut self) {
        if self.is_unfinished {
            let _ = self.run("ROLLBACK").await;
            self.is_unfinished = false;
        }
    }

    /// Ends the connection in order; one that was given up is dropped.
    pub(super) async fn close(mut self) -> sqlx::Result<()> {
        match self.link {
            Link::Sqlite(link) => link.close().await,
            Link::Postgres(link) => self.answers.of(link.close(), false).await,
        }
    }
}

/// A transaction that writes.
#[derive(Debug)]
pub(super) struct Transaction<'a>(&'a mut Connection);

impl Transaction<'_> {
    pub(super) async fn commit(self) -> sqlx::Result<()> {
        self.0.commit().await
    }
}

impl std::ops::Deref for Transaction<'_> {
    type Target = Connection;

    fn deref(&self) -> &Connection {
        self.0
    }
}

impl std::ops::DerefMut for Transaction<'_> {
    fn deref_mut(&mut self) -> &mut Connection {
        self.0
    }
}

impl Drop for Transaction<'_> {
    fn drop(&mut self) {
        // SQLite's lock is given back at once: the first poll hands the statement to the thread that has the database. If it
        // does not, whoever takes the connection next undoes it.
        if self.0.is_unfinished && !self.0.is_postgres() {
            let _ = futures::FutureExt::now_or_never(self.0.run("ROLLBACK"));
        }
    }
}

/// A statement that walks over whole tables and may take long, for either engine.
pub(super) fn long_query<'q>(sql: impl Into<Cow<'static, str>>) -> Query<'q> {
    Query { is_long: true, ..query(sql) }
}

/// The same, that gives one column.
pub(super) fn long_query_scalar<'q, T>(sql: impl Into<Cow<'static, str>>) -> Scalar<'q, T> {
    Scalar(long_query(sql), std::marker::PhantomData)
}

/// A statement, for either engine.
pub(super) fn query<'q>(sql: impl Into<Cow<'static, str>>) -> Query<'q> {
    Query { sql: sql.into(), values: Vec::new(), is_long: false }
}

/// A statement that gives one column.
pub(super) fn query_scalar<'q, T>(sql: impl Into<Cow<'static, str>>) -> Scalar<'q, T> {
    Scalar(query(sql), std::marker::PhantomData)
}

/// A statement with its parameters.
#[derive(Debug)]
pub(super) struct Query<'q> {
    sql: Cow<'static, str>,
    values: Vec<Value<'q>>,
    is_long: bool,
}

/// What a statement changed.
#[derive(Debug, Clone, Copy)]
pub(super) struct Done {
    rows: u64,
    last_row: Option<i64>,
}

impl Done {
    /// How many rows it inserted, updated or deleted.
    pub(super) const fn rows_affected(&self) -> u64 {
        self.rows
    }

    /// The row that it inserted last; PostgreSQL does not tell.
    pub(super) const fn last_insert_rowid(&self) -> Option<i64> {
        self.last_row
    }
}

impl<'q> Query<'q> {
    /// Adds the next parameter.
    pub(super) fn bind(mut self, value: impl Into<Value<'q>>) -> Self {
        self.values.push(value.into());
        self
    }

    fn sqlite(self) -> sqlx::Result<sqlx::query::Query<'q, Sqlite, SqliteArguments>> {
        let mut arguments = SqliteArguments::default();
        for value in self.values {
            value.add_to_sqlite(&mut arguments).map_err(sqlx::Error::Encode)?;
        }
        Ok(match self.sql {
            Cow::Borrowed(sql) => sqlx::query_with(sql, arguments),
            Cow::Owned(sql) => sqlx::query_with(AssertSqlSafe(sql), arguments),
        })
    }

    fn postgres(self) -> sqlx::Result<sqlx::query::Query<'q, Postgres, PgArguments>> {
        let mut arguments = PgArguments::default();
        for value in self.values {
            value.add_to_postgres(&mut arguments).map_err(sqlx::Error::Encode)?;
        }
        Ok(sqlx::query_with(AssertSqlSafe(dialect::postgres(&self.sql)), arguments))
    }

    pub(super) async fn execute(self, connection: &mut Connection) -> sqlx::Result<Done> {
        let is_long = self.is_long;
        Ok(match &mut connection.link {
            Link::Sqlite(link) => {
                let done = self.sqlite()?.execute(link).await?;
                Done { rows: done.rows_affected(), last_row: Some(done.last_insert_rowid()) }
            }
            Link::Postgres(link) => {
                let done = connection.answers.of(self.postgres()?.execute(link.as_mut()), is_long).await?;
                Done { rows: done.rows_affected(), last_row: None }
            }
        })
    }

    pub(super) async fn fetch_all(self, connection: &mut Connection) -> sqlx::Result<Vec<Row>> {
        let is_long = self.is_long;
        Ok(match &mut connection.link {
            Link::Sqlite(link) => self.sqlite()?.fetch_all(link).await?.into_iter().map(Row::Sqlite).collect(),
            Link::Postgres(link) => {
                let rows = connection.answers.of(self.postgres()?.fetch_all(link.as_mut()), is_long).await?;
                rows.into_iter().map(Row::Postgres).collect()
            }
        })
    }

    pub(super) async fn fetch_optional(self, connection: &mut Connection) -> sqlx::Result<Option<Row>> {
        let is_long = self.is_long;
        Ok(match &mut connection.link {
            Link::Sqlite(link) => self.sqlite()?.fetch_optional(link).await?.map(Row::Sqlite),
            Link::Postgres(link) => {
                let row = connection.answers.of(self.postgres()?.fetch_optional(link.as_mut()), is_long).await?;
                row.map(Row::Postgres)
            }
        })
    }

    pub(super) async fn fetch_one(self, connection: &mut Connection) -> sqlx::Result<Row> {
        self.fetch_optional(connection).await?.ok_or(sqlx::Error::RowNotFound)
    }

    /// The rows as they come.
    pub(super) fn fetch<'c>(self, connection: &'c mut Connection) -> BoxStream<'c, sqlx::Result<Row>>
    where
        'q: 'c,
    {
        let is_long = self.is_long;
        let failed = |error| futures::stream::once(std::future::ready(Err(error))).boxed();
        match &mut connection.link {
            Link::Sqlite(link) => match self.sqlite() {
                Ok(query) => query.fetch(link).map_ok(Row::Sqlite).boxed(),
                Err(error) => failed(error),
            },
            Link::Postgres(link) => match self.postgres() {
                Ok(query) => {
                    let rows = query.fetch(link.as_mut()).map_ok(Row::Postgres).boxed();
                    connection.answers.of_each(rows, is_long)
                }
                Err(error) => failed(error),
            },
        }
    }
}

/// A statement that gives one column, with its parameters.
#[derive(Debug)]
pub(super) struct Scalar<'q, T>(Query<'q>, std::marker::PhantomData<T>);

impl<'q, T: for<'r> Column<'r>> Scalar<'q, T> {
    /// Adds the next parameter.
    pub(super) fn bind(self, value: impl Into<Value<'q>>) -> Self {
        Self(self.0.bind(value), self.1)
    }

    pub(super) async fn fetch_all(self, connection: &mut Connection) -> sqlx::Result<Vec<T>> {
        self.0.fetch_all(connection).await?.iter().map(|row| row.try_get(0)).collect()
    }

    pub(super) async fn fetch_optional(self, connection: &mut Connection) -> sqlx::Result<Option<T>> {
        self.0.fetch_optional(connection).await?.as_ref().map(|row| row.try_get(0)).transpose()
    }

    pub(super) async fn fetch_one(self, connection: &mut Connection) -> sqlx::Result<T> {
        self.0.fetch_one(connection).await?.try_get(0)
    }
}

/// A row that a statement gave.
pub(super) enum Row {
    Sqlite(SqliteRow),
    Postgres(PgRow),
}

impl Row {
    /// A column of it. Panics where the column has another type: a statement's columns are those of its text.
    pub(super) fn get<'r, T: Column<'r>>(&'r self, column: usize) -> T {
        self.try_get(column).expect("the statement has this column, of this type")
    }

    fn try_get<'r, T: Column<'r>>(&'r self, column: usize) -> sqlx::Result<T> {
        match self {
            Self::Sqlite(row) => T::of_sqlite(row, column),
            Self::Postgres(row) => T::of_postgres(row, column),
        }
    }
}
