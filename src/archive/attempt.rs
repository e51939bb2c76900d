//! One attempt at one attachment: what is asked of Jelly and the storage, and what each answer leads to.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Mutex;
use tokio::time::Instant;
use tracing::{debug, warn};

use super::{Holds, OwnToken};
use crate::catalog::{Job, Lease, NewState, Pause};
use crate::clock::Clock;
use crate::config::{HttpConfig, RetryConfig};
use crate::digest::Digest;
use crate::fetch::{Declared, FetchError, fetch};
use crate::http::{Decision, HttpClients};
use crate::jelly::{ApiError, JellyClient};
use crate::metrics::{Metrics, Outcome, Stage};
use crate::model::{Lane, TeamKey};
use crate::spool::{Spool, Spooled};

/// How to ask for one team's attachments.
#[derive(Debug, Clone)]
pub struct TeamAccess {
    /// Its name in the archive.
    pub key: TeamKey,
    /// Its client.
    pub client: JellyClient,
    /// The scopes of the pauses that hold it: its own, then its egress group's, then a person's.
    pub scopes: [String; 3],
    /// The scope of pauses that hold its bulk work alone.
    pub bulk_scope: String,
    /// The scope of this process's own pause, for its own token that was refused: other processes have others.
    pub token_scope: String,
    /// Whether its own token was refused.
    pub own_token: OwnToken,
    /// Which process this is, where others work for the team, too.
    pub among: Option<String>,
    /// When the members were last asked for, with success, in milliseconds since the Unix epoch.
    pub probed_at_ms: Arc<Mutex<Option<i64>>>,
}

impl TeamAccess {
    /// The pause that keeps the team from sending work of a lane now. What holds live work holds bulk work, too.
    pub fn held(&self, holds: &Holds, lane: Lane, now_ms: i64) -> Option<Pause> {
        let [own, group, person] = &self.scopes;
        let live = [own, group, &self.token_scope, person, LOCAL_SCOPE];
        match lane {
            Lane::Live => holds.held(&live, now_ms),
            Lane::Bulk => holds.held(&[&live[..], &[&self.bulk_scope]].concat(), now_ms),
        }
    }

    /// The pause that a refused token leads to, to be kept in the catalog. Where others work for the team, it says whose token
    /// it was, and holds this process until its own is accepted; `None` where they have been told before: one of them may
    /// have ended that pause, as its token is good.
    pub fn refused(&self, holds: &Holds, reason: &str) -> Option<Pause> {
        let until_ms = i64::MAX;
        let Some(process) = &self.among else {
            return Some(Pause { scope: self.scopes[0].clone(), until_ms, reason: reason.to_owned() });
        };
        let reason = format!("{reason}; that is the token of {process}");
        holds.hold(Pause { scope: self.token_scope.clone(), until_ms, reason: reason.clone() });
        self.own_token.refuse().then(|| Pause { scope: self.scopes[0].clone(), until_ms, reason })
    }

    /// The scope in which this process's token is known to be refused.
    fn refusal_scope(&self) -> &str {
        if self.among.is_some() { &self.token_scope } else { &self.scopes[0] }
    }
}

/// The scope of pauses for this machine's own trouble, which hold every team.
pub const LOCAL_SCOPE: &str = "local";

/// A probe of the members answers for all 403s of this long, so that many of them cost one request.
const PROBE_HOLDS_MS: i64 = 60_000;

/// Trouble of this machine that lasts at least this long pauses everything, instead of one attachment.
const LASTING: Duration = Duration::from_mins(1);

/// What a lease's work led to; nothing of it is durable yet.
#[derive(Debug)]
pub enum Finished {
    /// Bytes that are to be stored.
    Fetched {
        /// The lease.
        lease: Lease<Job>,
        /// The team's name in the archive.
        team: TeamKey,
        /// The bytes.
        spooled: Spooled,
        /// Why they go to quarantine instead of the blobs.
        quarantine: Option<String>,
    },
    /// No bytes: failed, or to be tried again.
    Ended {
        /// The lease.
        lease: Lease<Job>,
        /// The team's name in the archive.
        team: TeamKey,
        /// Failed or retry.
        state: NewState,
        /// What it counts as, where it failed.
        failure: Option<Outcome>,
        /// A pause to be kept.
        pause: Option<Pause>,
    },
}

impl Finished {
    /// The pause that is kept with it.
    pub fn pause(&self) -> Option<&Pause> {
        match self {
            Self::Ended { pause, .. } => pause.as_ref(),
            Self::Fetched { .. } => None,
        }
    }

    /// The memory that its bytes take up until they are stored.
    pub fn memory_bytes(&self) -> u64 {
        match self {
            Self::Fetched { spooled, .. } if spooled.in_memory().is_some() => spooled.size_bytes(),
            _ => 0,
        }
    }
}

/// Fetches attachments of any team.
#[derive(Debug, Clone)]
pub struct Fetcher {
    /// Both HTTP clients.
    pub clients: HttpClients,
    /// Where downloads go.
    pub spool: Spool,
    /// Bounds of downloads.
    pub http: HttpConfig,
    /// How attempts are spaced.
    pub retry: RetryConfig,
    /// How long everything pauses when this machine is in lasting trouble (disk full).
    pub local_pause: Duration,
    /// The pauses in force.
    pub holds: Arc<Holds>,
    /// The time.
    pub clock: Clock,
    /// Where it is told how long it all takes.
    pub metrics: Metrics,
}

/// How often one attempt asks for a fresh link after a dead one.
const FRESH_LINKS: u32 = 2;

/// 429 answers that ask for at most this long hold the whole egress group: the 5-minute window is per address.
const EGRESS_PAUSE_MAX: Duration = Duration::from_mins(5);

enum Step {
    Spooled(Spooled, Option<String>),
    Ended(NewState, Option<Pause>),
    Failed(Outcome, String),
}

impl Fetcher {
    /// Works on one lease to its end. Dropping the future leaves nothing behind but the lease.
    pub async fn attempt(&self, lease: Lease<Job>, team: &TeamAccess) -> Finished {
        let step = self.steps(&lease, team).await;
        let key = team.key.clone();
        match step {
            Step::Spooled(spooled, quarantine) => Finished::Fetched { lease, team: key, spooled, quarantine },
            Step::Ended(state, pause) => {
                if let Some(pause) = &pause {
                    self.holds.hold(pause.clone());
                }
                Finished::Ended { lease, team: key, state, failure: None, pause }
            }
            Step::Failed(failure, reason) => Finished::Ended {
                lease,
                team: key,
                state: NewState::Failed { reason },
                failure: Some(failure),
                pause: None,
            },
        }
    }

    async fn steps(&self, lease: &Lease<Job>, team: &TeamAccess) -> Step {
        let job = lease.job();
        let declared = Declared { size_bytes: job.declared_size() };
        let mut fresh_links = 0;
        let mut contradiction: Option<Digest> = None;
        loop {
            // Admission comes before the exchange: the link lives for minutes only.
            let reservation = match self.spool.reserve(job.declared_size()).await {
                Ok(reservation) => reservation,
                Err(error) => return self.decide(lease, team, error.decision(), error.to_string()).await,
            };
            let permit = match team.client.permit(job.lane()).await {
                Ok(permit) => permit,
                Err(error) => return self.not_linked(lease, team, error).await,
            };
            let began = Instant::now();
            let link = team.client.exchange(permit, job.attachment_id()).await;
            self.metrics.stages.of(Stage::Exchange).observe(began.elapsed());
            let link = match link {
                Ok(link) => link,
                Err(error) => return self.not_linked(lease, team, error).await,
            };
            let began = Instant::now();
            let fetched = fetch(&self.clients, link, &declared, &self.spool, reservation, &self.http).await;
            self.metrics.stages.of(Stage::Download).observe(began.elapsed());
            match fetched {
                Ok(spooled) => return Step::Spooled(spooled, None),
                Err(FetchError::Mismatch { spooled, facts }) => match contradiction {
                    Some(before) if before == spooled.sha256() => {
                        let reason = format!("{facts}; a second download gave the same bytes");
                        return Step::Spooled(*spooled, Some(reason));
                    }
                    Some(_) => {
                        let reason = format!("{facts}; two downloads gave different bytes");
                        return self.decide(lease, team, Decision::RetryAfter(None), reason).await;
                    }
                    None => contradiction = Some(spooled.sha256()),
                },
                Err(error) if error.decision() == Decision::Reexchange && fresh_links < FRESH_LINKS => {
                    debug!(attachment.id_hash = %job.key(), error = %error, "exchanging afresh");
                    fresh_links += 1;
                }
                Err(error) => return self.decide(lease, team, error.decision(), error.to_string()).await,
            }
        }
    }

    /// What follows from a request that failed, or that the quota did not allow: then the lane waits, in this process.
    async fn not_linked(&self, lease: &Lease<Job>, team: &TeamAccess, error: ApiError) -> Step {
        let ApiError::QuotaUsedUp { retry_after } = error else {
            return self.decide(lease, team, error.decision(), error.to_string()).await;
        };
        let (scope, reason) = match lease.job().lane() {
            Lane::Live => (&team.scopes[0], "the request quota is used up"),
            Lane::Bulk => (&team.bulk_scope, "what bulk work may use of the request quota is used up"),
        };
        self.holds.hold(self.pause(scope, retry_after, reason));
        Step::Ended(released(None), None)
    }

    /// What follows from a failed request.
    async fn decide(&self, lease: &Lease<Job>, team: &TeamAccess, decision: Decision, reason: String) -> Step {
        let job = lease.job();
        let id = job.key();
        match decision {
            // A dead link that fresh ones did not cure, or bytes that contradict themselves, count as any failure.
            Decision::RetryAfter(_) | Decision::Reexchange | Decision::Quarantine => {
                let asked = if let Decision::RetryAfter(asked) = decision { asked } else { None };
                let attempts = job.attempts() + 1;
                let most = match decision {
                    Decision::RetryAfter(_) => self.retry.max_attempts.max(self.retry.outage_attempts),
                    _ => self.retry.max_attempts,
                };
                if attempts >= most {
                    warn!(attachment.id_hash = %id, job.attempt = attempts, error = %reason, "failed for good");
                    let reason = format!("{reason} (attempt {attempts}, the last)");
                    return Step::Failed(Outcome::AttemptsUsedUp, reason);
                }
                let delay = self.backoff(job.attempts()).max(asked.unwrap_or_default());
                debug!(attachment.id_hash = %id, job.attempt = attempts, error = %reason, "to be tried again");
                let state = NewState::Retry { delay, attempt_spent: true, not_found: false, reason: Some(reason) };
                Step::Ended(state, None)
            }
            Decision::RetryGone => {
                if job.not_found_count() >= 2 {
                    warn!(attachment.id_hash = %id, error = %reason, "gone");
                    return Step::Failed(Outcome::Gone, format!("gone: {reason}, three times"));
                }
                let delay = self.backoff(job.attempts());
                let state = NewState::Retry { delay, attempt_spent: true, not_found: true, reason: Some(reason) };
                Step::Ended(state, None)
            }
            Decision::Fail => {
                warn!(attachment.id_hash = %id, error = %reason, "failed for good");
                Step::Failed(Outcome::Refused, reason)
            }
            Decision::PauseTeam => {
                if team.held(&self.holds, job.lane(), self.clock.now_ms()).is_none() {
                    warn!(team = %team.key, error = %reason, "the token is refused: the team is paused");
                }
                let pause = team.refused(&self.holds, &reason);
                Step::Ended(released(Some(reason)), pause)
            }
            Decision::PauseTeamFor(wait) => {
                let pause = self.pause(&team.scopes[0], wait, &reason);
                self.holds.pause(&pause, self.clock.now_ms());
                Step::Ended(released(Some(reason)), Some(pause))
            }
            Decision::PauseEgressGroup(wait) => {
                let scope = &team.scopes[usize::from(wait <= EGRESS_PAUSE_MAX)];
                let pause = self.pause(scope, wait, &reason);
                self.holds.pause(&pause, self.clock.now_ms());
                Step::Ended(released(Some(reason)), Some(pause))
            }
            Decision::HoldOff(wait) if wait >= LASTING => {
                if self.holds.held(&[LOCAL_SCOPE], self.clock.now_ms()).is_none() {
                    warn!(error = %reason, "everything pauses");
                }
                self.holds.hold(self.pause(LOCAL_SCOPE, self.local_pause, &reason));
                Step::Ended(released(Some(reason)), None)
            }
            Decision::HoldOff(wait) => {
                let wait_ms = u64::try_from(wait.as_millis()).unwrap_or(u64::MAX);
                if self.holds.is_to_be_told(self.clock.now_ms()) {
                    warn!(error = %reason, wait_ms, "holding off; more of this within a minute is not told");
                } else {
                    debug!(attachment.id_hash = %id, error = %reason, wait_ms, "holding off");
                }
                let state =
                    NewState::Retry { delay: wait, attempt_spent: false, not_found: false, reason: Some(reason) };
                Step::Ended(state, None)
            }
            Decision::ProbeMembers => match self.probe(team).await {
                Ok(true) => {
                    warn!(attachment.id_hash = %id, error = %reason, "failed: the token works, but not for this one");
                    Step::Failed(Outcome::Forbidden, reason)
                }
                Ok(false) => {
                    let reason = format!("{reason}; the team's members are refused as well");
                    let pause = team.refused(&self.holds, &reason);
                    if pause.is_some() {
                        warn!(team = %team.key, error = %reason, "the token is refused: the team is paused");
                    }
                    Step::Ended(released(Some(reason)), pause)
                }
                Err(error) => {
                    let reason = format!("{reason}; whether the token still works cannot be told: {error}");
                    let delay = self.backoff(job.attempts());
                    let state = NewState::Retry { delay, attempt_spent: true, not_found: false, reason: Some(reason) };
                    Step::Ended(state, None)
                }
            },
        }
    }

    /// Asks whether the token still works, unless it is known to have worked just now.
    async fn probe(&self, team: &TeamAccess) -> Result<bool, ApiError> {
        let mut probed_at_ms = team.probed_at_ms.lock().await;
        let now = self.clock.now_ms();
        if probed_at_ms.is_some_and(|at| (0..PROBE_HOLDS_MS).contains(&(now - at))) {
            return Ok(true);
        }
        // Of its own scope: a person's pause says nothing of the token.
        if self.holds.held(&[team.refusal_scope()], now).is_some_and(|pause| pause.is_of_refused_token()) {
            return Ok(false);
        }
        let works = team.client.probe_members().await?;
        *probed_at_ms = works.then_some(now);
        if !works {
            // At once, so that whoever waits to ask the same need not.
            self.holds.hold(Pause {
                scope: team.refusal_scope().to_owned(),
                until_ms: i64::MAX,
                reason: "the team's members are refused".into(),
            });
        }
        Ok(works)
    }

    fn pause(&self, scope: &str, wait: Duration, reason: &str) -> Pause {
        let wait_ms = i64::try_from(wait.as_millis()).unwrap_or(i64::MAX);
        let until_ms = self.clock.now_ms().saturating_add(wait_ms);
        Pause { scope: scope.to_owned(), until_ms, reason: reason.to_owned() }
    }

    /// Exponential backoff with full jitter: a random time up to `base · 2^attempts`, at most `max_delay`.
    fn backoff(&self, attempts: u32) -> Duration {
        let factor = 1u32.checked_shl(attempts.min(30)).unwrap_or(u32::MAX);
        let bound = self.retry.base_delay.saturating_mul(factor).min(self.retry.max_delay);
        let mut random = [0; 4];
        // Without randomness the whole bound is waited: later than needed, never sooner.
        let share =
            getrandom::fill(&mut random).map_or(1.0, |()| f64::from(u32::from_le_bytes(random)) / f64::from(u32::MAX));
        bound.mul_f64(share)
    }
}

/// Back to the queue, with no attempt spent.
fn released(reason: Option<String>) -> NewState {
    NewState::Retry { delay: Duration::ZERO, attempt_spent: false, not_found: false, reason }
}
