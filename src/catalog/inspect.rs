//! Whether the catalog itself is in order.

use super::{Catalog, Result, at};
use crate::catalog::engine::query_scalar;

impl Catalog {
    /// SQLite's quick check of the whole file, of a catalog in a folder. Gives what it says is wrong; `None` if nothing is.
    pub async fn quick_check(&self) -> Result<Option<String>> {
        let mut connection = self.connection().await;
        let answer: String = query_scalar("-- name: quick_check\nPRAGMA quick_check(1)")
            .fetch_one(&mut connection)
            .await
            .map_err(at("quick_check"))?;
        Ok((answer != "ok").then_some(answer))
    }

    /// The version of its tables.
    pub async fn schema_version(&self) -> Result<i64> {
        let mut connection = self.connection().await;
        query_scalar("-- name: schema_version\nSELECT max(version) FROM _sqlx_migrations")
            .fetch_one(&mut connection)
            .await
            .map_err(at("schema_version"))
    }
}
