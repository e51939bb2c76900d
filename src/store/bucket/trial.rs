//! Trying out what a bucket lets us do, step by step.

use bytes::Bytes;
use object_store::{Error, ObjectStoreExt as _, PutMode};

use super::super::trial::{TRIAL_TEXT, Trial};
use super::{Bucket, BucketError, Purpose, Result};

/// What a put on condition that nothing is there did.
#[derive(Debug, PartialEq, Eq)]
enum PutNew {
    Stored,
    Taken,
    /// The server knows no such condition.
    Unknown,
}

impl Bucket {
    /// Writes an object, reads, lists and deletes it. All steps but those that need it are tried, whatever fails.
    pub(in crate::store) async fn try_out(&self, folder: &str, name: &str) -> Trial {
        let key = if folder.is_empty() { name.to_owned() } else { format!("{folder}/{name}") };
        let bytes = Bytes::from_static(TRIAL_TEXT);
        let written = match self.put_new(&key, &bytes).await {
            Ok(PutNew::Unknown) => self.replace(&key, bytes.clone()).await,
            other => other.map(|_| ()),
        };
        let mut trial = Trial::begun(self.location.to_string(), written);
        if trial.written.is_err() {
            // Its answer may have been lost.
            let _ = self.delete(std::slice::from_ref(&key)).await;
            trial.listed = Some(self.list_names(folder).await.map(|_| true));
            return trial;
        }
        trial.read = Some(self.read(&key).await.map(|read| read.as_ref() == Some(&bytes)));
        trial.conditional = Some(self.put_new(&key, &bytes).await.map(|put| put == PutNew::Taken));
        let listed = self.list_names(folder).await;
        trial.listed = Some(listed.map(|(objects, _)| objects.iter().any(|found| found == name)));
        let meta = self.connection.objects.head(&self.path(&key)).await.ok();
        trial.stored_at =
            meta.and_then(|meta| jiff::Timestamp::from_millisecond(meta.last_modified.timestamp_millis()).ok());
        trial.deleted = Some(self.delete_for_good(key).await);
        trial
    }

    async fn put_new(&self, key: &str, bytes: &Bytes) -> Result<PutNew> {
        let options = self.options(PutMode::Create, Purpose::Record);
        match self.connection.objects.put_opts(&self.path(key), bytes.clone().into(), options).await {
            Ok(_) => Ok(PutNew::Stored),
            Err(Error::AlreadyExists { .. } | Error::Precondition { .. }) => Ok(PutNew::Taken),
            Err(Error::NotImplemented { .. } | Error::NotSupported { .. }) => Ok(PutNew::Unknown),
            Err(error) => Err(self.failed("write", key, &error)),
        }
    }

    async fn delete_for_good(&self, key: String) -> Result<()> {
        self.delete(std::slice::from_ref(&key)).await?;
        match self.size(&key).await {
            Ok(Some(_)) => {
                let reason = "the server says that it is deleted, and it is still there";
                let advice = "look for a retention rule of the bucket";
                Err(BucketError::because("delete", self.place(&key), reason, advice).into())
            }
            // Whoever may not look has deleted all the same.
            Ok(None) | Err(_) => Ok(()),
        }
    }
}
