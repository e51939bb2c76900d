//! Hearing from PostgreSQL that there is work, or that pauses have changed, on a connection of its own.

use std::time::Duration;

use sqlx::postgres::{PgListener, PgPoolOptions};

use super::open::{postgres_options, unreachable_at};
use super::{CatalogError, CatalogPlace};

/// What was heard.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Heard {
    /// Something may be due.
    Work,
    /// Pauses have begun or ended.
    Pauses,
}

/// Listens for as long as it lives.
#[derive(Debug)]
pub struct Listener(PgListener);

impl Listener {
    /// Listens to a catalog; `None` where it is in a folder.
    pub async fn open(place: &CatalogPlace) -> Result<Option<Self>, CatalogError> {
        let CatalogPlace::Postgres { url, .. } = place else { return Ok(None) };
        let failed = unreachable_at(url);
        let opening = async {
            let pool = PgPoolOptions::new().max_connections(1).max_lifetime(None).idle_timeout(None);
            let mut listener = PgListener::connect_with(&pool.connect_with(postgres_options(url)?).await?).await?;
            listener.ignore_pool_close_event(true);
            listener.listen_all(["jellyjar_work", "jellyjar_pauses"]).await?;
            Ok(listener)
        };
        let opened = tokio::time::timeout(Duration::from_secs(30), opening).await;
        opened.map_err(|_| failed(sqlx::Error::PoolTimedOut))?.map(|listener| Some(Self(listener))).map_err(failed)
    }

    /// Waits for the next. Where the connection was lost and made anew, something may have been missed, and there may be
    /// work. After an error nothing is heard any more.
    pub async fn next(&mut self) -> Result<Heard, CatalogError> {
        let heard = self.0.try_recv().await.map_err(super::at("listen"))?;
        Ok(match heard {
            Some(heard) if heard.channel() == "jellyjar_pauses" => Heard::Pauses,
            _ => Heard::Work,
        })
    }
}
