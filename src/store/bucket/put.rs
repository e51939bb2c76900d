//! Puts of whole objects: put-if-absent, what the server vouches for, and how an unclear answer is settled.

use std::sync::atomic::Ordering;
use std::time::Duration;

use bytes::Bytes;
use md5::{Digest as _, Md5};
use object_store::{Error, PutMode, PutResult};

use super::{Bucket, BucketError, CONDITIONAL, Created, Purpose, SETTLE_TRIES, UNCONDITIONAL, UNKNOWN};
use crate::config::ReadBack;
use crate::digest::Digest;
use crate::model::Provider;
use crate::store::Result;

impl Bucket {
    /// Stores `bytes` under `key` unless something is there. On a server without such a condition it is looked first;
    /// then, of two that store at the same moment, the last one wins.
    pub(in crate::store) async fn put_if_absent(&self, key: &str, bytes: Bytes, purpose: Purpose) -> Result<Created> {
        let digest = Digest::of(&bytes);
        self.put_known_if_absent(key, bytes, digest, purpose).await
    }

    /// Like [`Bucket::put_if_absent`], of bytes whose digest is known.
    pub(in crate::store) async fn put_known_if_absent(
        &self,
        key: &str,
        bytes: Bytes,
        digest: Digest,
        purpose: Purpose,
    ) -> Result<Created> {
        let objects = self.objects_for(purpose)?;
        let mut tries = 0;
        loop {
            tries += 1;
            let conditional = self.is_conditional() != Some(false);
            if !conditional && let Some(found) = self.found(key, digest).await? {
                return Ok(found);
            }
            let mode = if conditional { PutMode::Create } else { PutMode::Overwrite };
            let options = self.options(mode, purpose);
            let error = match objects.put_opts(&self.path(key), bytes.clone().into(), options).await {
                Ok(result) => {
                    self.check(key, &result, &bytes, digest).await?;
                    return Ok(Created::New);
                }
                Err(error) if conditional && is_unsupported(&error) => {
                    self.conditional.store(UNCONDITIONAL, Ordering::Relaxed);
                    continue;
                }
                Err(error) => error,
            };
            // S3 answers 409 where another request was at work, though nothing may have been stored; and a connection
            // that breaks after the server was done looks like a failure. What is there tells.
            let taken = matches!(error, Error::AlreadyExists { .. } | Error::Precondition { .. });
            if !taken && is_final(&error) {
                return Err(self.failed("write", key, &error));
            }
            match self.found(key, digest).await {
                Ok(Some(found)) => return Ok(found),
                Ok(None) if tries < SETTLE_TRIES => {}
                Ok(None) => return Err(self.failed("write", key, &error)),
                Err(_) if !taken => return Err(self.failed("write", key, &error)),
                Err(look) => return Err(look),
            }
            tokio::time::sleep(pause_before(tries)).await;
        }
    }

    /// Whether something stands under `key`, and whether it is what it should be.
    pub(super) async fn found(&self, key: &str, digest: Digest) -> Result<Option<Created>> {
        Ok(self.digest(key).await?.map(|(found, _)| if found == digest { Created::Same } else { Created::Other }))
    }

    /// Stores `bytes` under `key`, whatever is there: right bytes in place of damaged ones.
    pub(super) async fn overwrite(&self, key: &str, bytes: Bytes, purpose: Purpose) -> Result<()> {
        let digest = Digest::of(&bytes);
        let options = self.options(PutMode::Overwrite, purpose);
        let result = self
            .objects_for(purpose)?
            .put_opts(&self.path(key), bytes.clone().into(), options)
            .await
            .map_err(|error| self.failed("write", key, &error))?;
        self.check(key, &result, &bytes, digest).await
    }

    /// Makes sure that the server has what it was sent.
    async fn check(&self, key: &str, result: &PutResult, bytes: &[u8], digest: Digest) -> Result<()> {
        if !self.vouches(result, bytes) {
            self.read_back(key, digest).await?;
        }
        Ok(())
    }

    /// Whether the server has checked the bytes: by the SHA-256 that S3 is sent, or with an `ETag` that is their MD5.
    fn vouches(&self, result: &PutResult, bytes: &[u8]) -> bool {
        if self.settings.common.read_back == ReadBack::Always {
            return false;
        }
        let by_checksum = self.location.provider == Provider::S3;
        by_checksum
            || result.e_tag.as_ref().is_some_and(|tag| {
                let tag = tag.trim_matches('"');
                tag.len() == 32 && tag.eq_ignore_ascii_case(&data_encoding::HEXLOWER.encode(&Md5::digest(bytes)))
            })
    }

    pub(super) async fn read_back(&self, key: &str, digest: Digest) -> Result<()> {
        match self.digest(key).await? {
            Some((found, _)) if found == digest => Ok(()),
            found => {
                let reason = match found {
                    Some((found, _)) => format!("it gave back bytes that hash to {found}"),
                    None => "it did not keep what it had accepted".into(),
                };
                let advice = "the server is not to be trusted with an archive; try another";
                Err(BucketError::because("store", self.place(key), &reason, advice).into())
            }
        }
    }

    /// Finds out whether the server keeps a put-if-absent, by a record of this writer that is written twice; and with
    /// that, whether it lets us write at all.
    pub(in crate::store) async fn probe(&self, key: &str, bytes: Bytes) -> Result<()> {
        let path = self.path(key);
        let create = || {
            let options = self.options(PutMode::Create, Purpose::Record);
            self.connection.objects.put_opts(&path, bytes.clone().into(), options)
        };
        let first = create().await;
        if let Err(error) = &first {
            let taken = matches!(error, Error::AlreadyExists { .. } | Error::Precondition { .. });
            if is_final(error) && !taken && !is_unsupported(error) {
                return Err(self.failed("write", key, error));
            }
            // Whether it was stored or not, S3's 409 included: with a plain put it is.
            self.replace(key, bytes.clone()).await?;
        }
        let known = match (first, create().await) {
            (Err(error), _) | (_, Err(error)) if is_unsupported(&error) => UNCONDITIONAL,
            // Stored although something was there: the condition was not looked at.
            (_, Ok(_)) => UNCONDITIONAL,
            (_, Err(Error::AlreadyExists { .. } | Error::Precondition { .. })) => CONDITIONAL,
            (_, Err(error)) if is_final(&error) => return Err(self.failed("write", key, &error)),
            // It may write, and that is what must be known now.
            (_, Err(_)) => UNKNOWN,
        };
        self.conditional.store(known, Ordering::Relaxed);
        Ok(())
    }
}

/// Whether the server, or the client library, knows no such condition.
fn is_unsupported(error: &Error) -> bool {
    matches!(error, Error::NotImplemented { .. } | Error::NotSupported { .. })
}

/// Whether looking, or another try, would not help.
pub(super) fn is_final(error: &Error) -> bool {
    match error {
        Error::PermissionDenied { .. }
        | Error::Unauthenticated { .. }
        | Error::NotFound { .. }
        | Error::InvalidPath { .. }
        | Error::UnknownConfigurationKey { .. } => true,
        error => BucketError::new("write", String::new(), error).is_final(),
    }
}

/// 50 ms, doubled with every try, up to 3 s.
pub(super) fn pause_before(tries: u32) -> Duration {
    Duration::from_millis(25u64 << tries.min(7)).min(Duration::from_secs(3))
}
