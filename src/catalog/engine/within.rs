//! How long PostgreSQL may take to answer. A connection can go silent without ending, as one through a proxy after a failover:
//! nobody would ever hear of it. What was sent on it may have been done or not, so it is never used again.

use std::future::Future;
use std::io;
use std::time::Duration;

use futures::stream::{self, BoxStream, StreamExt as _};

/// What walks over whole tables may take so long: making an index of a hundred million rows, say.
const LONG: Duration = Duration::from_hours(6);

/// See the module.
#[derive(Debug)]
pub(super) struct Answers {
    timeout: Duration,
    /// Whether an answer did not come.
    is_given_up: bool,
}

impl Answers {
    /// Each answer is waited for so long.
    pub(super) const fn within(timeout: Duration) -> Self {
        Self { timeout, is_given_up: false }
    }

    /// Waits for the answer to one statement. `is_long` says that it may take long by its nature.
    pub(super) async fn of<T>(
        &mut self,
        answer: impl Future<Output = sqlx::Result<T>>,
        is_long: bool,
    ) -> sqlx::Result<T> {
        let timeout = if is_long { self.timeout.max(LONG) } else { self.timeout };
        if self.is_given_up {
            return Err(silent(timeout));
        }
        tokio::time::timeout(timeout, answer).await.unwrap_or_else(|_| {
            self.is_given_up = true;
            Err(silent(timeout))
        })
    }

    /// The same for each row of an answer that is read as it comes.
    pub(super) fn of_each<'c, T: Send + 'c>(
        &'c mut self,
        rows: BoxStream<'c, sqlx::Result<T>>,
        is_long: bool,
    ) -> BoxStream<'c, sqlx::Result<T>> {
        stream::unfold(Some((self, rows)), move |state| async move {
            let (answers, mut rows) = state?;
            let next = async { rows.next().await.transpose() };
            match answers.of(next, is_long).await {
                Ok(Some(row)) => Some((Ok(row), Some((answers, rows)))),
                Ok(None) => None,
                Err(error) => Some((Err(error), None)),
            }
        })
        .boxed()
    }
}

fn silent(timeout: Duration) -> sqlx::Error {
    let text = format!("PostgreSQL did not answer within {} s; this connection is given up", timeout.as_secs_f64());
    sqlx::Error::Io(io::Error::new(io::ErrorKind::TimedOut, text))
}

#[cfg(test)]
mod tests {
    use futures::TryStreamExt as _;

    use super::*;

    #[tokio::test]
    async fn after_one_answer_that_did_not_come_nothing_is_asked_any_more() {
        let mut answers = Answers::within(Duration::from_millis(20));
        assert_eq!(answers.of(async { Ok(1) }, false).await.unwrap(), 1);
        let error = answers.of(std::future::pending::<sqlx::Result<()>>(), false).await.unwrap_err();
        assert!(error.to_string().contains("did not answer within 0.02 s"), "{error}");
        assert!(answers.of(async { Ok(1) }, true).await.is_err());
    }

    #[tokio::test]
    async fn of_rows_each_is_waited_for() {
        let mut answers = Answers::within(Duration::from_millis(20));
        let rows = stream::iter([Ok(1), Ok(2)]).chain(stream::pending()).boxed();
        let mut rows = answers.of_each(rows, false);
        assert_eq!((rows.try_next().await.unwrap(), rows.try_next().await.unwrap()), (Some(1), Some(2)));
        assert!(rows.try_next().await.is_err());
        assert_eq!(rows.try_next().await.unwrap(), None);
        drop(rows);
        assert!(answers.is_given_up);
    }
}
