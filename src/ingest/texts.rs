//! Leaving out what was taken in before, byte for byte.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use tokio::runtime::Handle;
use tokio::task::JoinHandle;

use super::Team;
use crate::catalog::{Catalog, CatalogError, RulesId, TakenTexts, TeamRow};
use crate::digest::{Digest, Hasher};
use crate::source::{Memory, TextId};

/// So many texts wait to be remembered: many at once are far cheaper. A crash forgets them, and costs no more than that.
const AHEAD: usize = 65_536;

/// Knows the texts that were taken in before by the same rules. For the reading thread, through [`Texts::memory`], and for
/// who takes in what it reads.
#[derive(Debug)]
pub struct Texts {
    catalog: Arc<Catalog>,
    rules: RulesId,
    ahead: Mutex<BTreeMap<TeamRow, TakenTexts>>,
}

impl Texts {
    /// For payloads of `teams`, by name; what names none belongs to `default_team`.
    pub fn new(catalog: Arc<Catalog>, teams: &BTreeMap<String, Team>, default_team: &str) -> Self {
        let mut hasher = Hasher::default();
        let mut add = |bytes: &[u8]| {
            hasher.update(&(bytes.len() as u64).to_be_bytes());
            hasher.update(bytes);
        };
        // Another version may read more in the same text.
        add(env!("CARGO_PKG_VERSION").as_bytes());
        add(default_team.as_bytes());
        for (name, team) in teams {
            add(name.as_bytes());
            add(&team.row.to_be_bytes());
            add(team.filter.identity().as_bytes());
        }
        let rules = RulesId::new(hasher.finish());
        Self { catalog, rules, ahead: Mutex::default() }
    }

    /// The memory of a reading thread, which is no thread of the runtime.
    pub fn memory(self: &Arc<Self>) -> impl Memory + use<> {
        Recall { texts: Arc::clone(self), runtime: Handle::current() }
    }

    /// Remembers texts of one team, once enough have come together.
    pub async fn remember(&self, team: TeamRow, mut texts: TakenTexts) -> Result<(), CatalogError> {
        let is_full = self.ahead(|ahead| {
            let ahead = ahead.entry(team).or_default();
            ahead.append(&mut texts);
            ahead.count() >= AHEAD
        });
        if is_full { self.flush().await } else { Ok(()) }
    }

    /// Remembers all that wait.
    pub async fn flush(&self) -> Result<(), CatalogError> {
        for (team, mut texts) in self.ahead(std::mem::take) {
            self.catalog.remember_texts(team, self.rules, &mut texts).await?;
        }
        Ok(())
    }

    fn ahead<T>(&self, work: impl FnOnce(&mut BTreeMap<TeamRow, TakenTexts>) -> T) -> T {
        work(&mut self.ahead.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

/// So many are looked up at once.
const LOOKUP: usize = 256;

async fn look_up(texts: Arc<Texts>, digests: Vec<TextId>) -> Vec<bool> {
    texts.catalog.meet_texts(texts.rules, &digests).await.unwrap_or_else(|error| {
        // Whoever takes the texts in meets the same trouble, and says so.
        tracing::debug!("texts are not looked up: {error}");
        vec![false; digests.len()]
    })
}

struct Recall {
    texts: Arc<Texts>,
    runtime: Handle,
}

impl Memory for Recall {
    fn recall(&mut self, texts: &[&[u8]]) -> Vec<(TextId, bool)> {
        // Some are looked up while the next are hashed.
        let lookups: Vec<_> = texts
            .chunks(LOOKUP)
            .map(|texts| {
                let digests: Vec<TextId> = texts.iter().map(|text| Digest::of(text).short()).collect();
                let lookup = self.runtime.spawn(look_up(Arc::clone(&self.texts), digests.clone()));
                (digests, lookup)
            })
            .collect();
        let answer = |(digests, lookup): (Vec<TextId>, JoinHandle<Vec<bool>>)| {
            // Of what cannot be asked nothing is known.
            let known = self.runtime.block_on(lookup).unwrap_or_else(|_| vec![false; digests.len()]);
            digests.into_iter().zip(known)
        };
        lookups.into_iter().flat_map(answer).collect()
    }
}
