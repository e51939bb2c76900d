//! An object store in memory, every call of which can be made to fail.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Arc, Mutex};

use futures::future::BoxFuture;
use futures::stream::BoxStream;
use futures::{FutureExt as _, StreamExt as _, TryFutureExt as _, TryStreamExt as _};
use object_store::memory::InMemory;
use object_store::multipart::{MultipartStore, PartId};
use object_store::path::Path;
use object_store::{
    CopyOptions, Error, GetOptions, GetResult, ListResult, MultipartId, MultipartUpload, ObjectMeta, ObjectStore,
    ObjectStoreExt as _, PutMode, PutMultipartOptions, PutOptions, PutPayload, PutResult, Result,
};

use crate::clock::Clock;
use crate::config::BucketSettings;
use crate::model::{BucketLocation, Provider};
use crate::store::bucket::Bucket;
use crate::store::bucket::connect::Connection;

/// What a script lets happen to one call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Mishap {
    /// The request is lost.
    LostBefore,
    /// It is done, and its answer is lost.
    LostAfter,
    /// S3's 409: another request was at work there, or none was.
    Conflict,
    /// It is refused for good.
    Denied,
}

/// What has been asked of a store, and what is to go wrong.
#[derive(Debug, Default)]
pub(super) struct Script {
    pub(super) calls: Vec<String>,
    pub(super) fail: Option<(usize, Mishap)>,
    /// Uploads that nobody has completed or aborted.
    pub(super) uploads: BTreeMap<MultipartId, Path>,
}

/// A store in memory that follows a script.
#[derive(Debug, Clone, Default)]
pub(super) struct Scripted {
    pub(super) memory: Arc<InMemory>,
    pub(super) script: Arc<Mutex<Script>>,
}

fn lost(words: &'static str) -> Error {
    Error::Generic { store: "scripted", source: words.into() }
}

impl Scripted {
    /// Does a call, or what the script has in its place.
    async fn call<T>(&self, name: &str, path: &str, work: impl Future<Output = Result<T>> + Send) -> Result<T> {
        let mishap = {
            let mut script = self.script.lock().unwrap();
            script.calls.push(format!("{name} {path}"));
            let number = script.calls.len() - 1;
            script.fail.filter(|(at, _)| *at == number).map(|(_, mishap)| mishap)
        };
        let (path, source) = (path.to_owned(), || "status code: 409: <Code>ConditionalRequestConflict</Code>".into());
        match mishap {
            None => work.await,
            Some(Mishap::LostBefore) => Err(lost("error sending request")),
            Some(Mishap::LostAfter) => work.await.and_then(|_| Err(lost("operation timed out"))),
            Some(Mishap::Conflict) => Err(Error::AlreadyExists { path, source: source() }),
            Some(Mishap::Denied) => Err(Error::PermissionDenied { path, source: "status code: 403".into() }),
        }
    }

    /// Takes an upload that somebody ends.
    fn end(&self, id: &MultipartId) -> Result<()> {
        match self.script.lock().unwrap().uploads.remove(id) {
            Some(_) => Ok(()),
            None => Err(Error::NotFound { path: id.clone(), source: "status code: 404: no such upload".into() }),
        }
    }

    pub(super) fn bucket(&self, provider: Provider, prefix: &str) -> Bucket {
        let mut settings = BucketSettings::default();
        settings.common.part_bytes = 4 << 10;
        settings.common.concurrency = 1;
        let location = BucketLocation { provider, bucket: "scripted".into(), prefix: prefix.into() };
        let connection = Connection { objects: Arc::new(self.clone()), locking: None, uploads: None };
        Bucket::with(location, connection, settings, Clock::system())
    }
}

impl fmt::Display for Scripted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("scripted")
    }
}

// Written out: the library's traits are made by a macro that this project does not use.
impl ObjectStore for Scripted {
    fn put_opts<'s, 'p, 'f>(
        &'s self,
        path: &'p Path,
        payload: PutPayload,
        options: PutOptions,
    ) -> BoxFuture<'f, Result<PutResult>>
    where
        's: 'f,
        'p: 'f,
    {
        let name = if options.mode == PutMode::Create { "create" } else { "put" };
        self.call(name, path.as_ref(), self.memory.put_opts(path, payload, options)).boxed()
    }

    fn put_multipart_opts<'s, 'p, 'f>(
        &'s self,
        _path: &'p Path,
        _options: PutMultipartOptions,
    ) -> BoxFuture<'f, Result<Box<dyn MultipartUpload>>>
    where
        's: 'f,
        'p: 'f,
    {
        unreachable!("uploads are begun by their id")
    }

    fn get_opts<'s, 'p, 'f>(&'s self, path: &'p Path, options: GetOptions) -> BoxFuture<'f, Result<GetResult>>
    where
        's: 'f,
        'p: 'f,
    {
        let name = if options.head { "head" } else { "get" };
        self.call(name, path.as_ref(), self.memory.get_opts(path, options)).boxed()
    }

    fn delete_stream(&self, paths: BoxStream<'static, Result<Path>>) -> BoxStream<'static, Result<Path>> {
        let this = self.clone();
        paths
            .and_then(move |path| {
                let this = this.clone();
                async move {
                    this.call("delete", path.as_ref(), this.memory.delete(&path)).await?;
                    Ok(path)
                }
            })
            .boxed()
    }

    fn list(&self, prefix: Option<&Path>) -> BoxStream<'static, Result<ObjectMeta>> {
        let (this, prefix) = (self.clone(), prefix.cloned());
        async move {
            let text = prefix.as_ref().map(ToString::to_string).unwrap_or_default();
            let all = this.memory.list(prefix.as_ref()).try_collect::<Vec<_>>();
            let found = this.call("list", &text, all).await?;
            Ok(futures::stream::iter(found.into_iter().map(Ok)))
        }
        .try_flatten_stream()
        .boxed()
    }

    fn list_with_delimiter<'s, 'p, 'f>(&'s self, prefix: Option<&'p Path>) -> BoxFuture<'f, Result<ListResult>>
    where
        's: 'f,
        'p: 'f,
    {
        let text = prefix.map(ToString::to_string).unwrap_or_default();
        async move { self.call("names", &text, self.memory.list_with_delimiter(prefix)).await }.boxed()
    }

    fn copy_opts<'s, 'a, 'b, 'f>(
        &'s self,
        from: &'a Path,
        to: &'b Path,
        options: CopyOptions,
    ) -> BoxFuture<'f, Result<()>>
    where
        's: 'f,
        'a: 'f,
        'b: 'f,
    {
        self.call("copy", to.as_ref(), self.memory.copy_opts(from, to, options)).boxed()
    }
}

impl MultipartStore for Scripted {
    fn create_multipart<'s, 'p, 'f>(&'s self, path: &'p Path) -> BoxFuture<'f, Result<MultipartId>>
    where
        's: 'f,
        'p: 'f,
    {
        self.create_multipart_opts(path, PutMultipartOptions::default())
    }

    fn create_multipart_opts<'s, 'p, 'f>(
        &'s self,
        path: &'p Path,
        options: PutMultipartOptions,
    ) -> BoxFuture<'f, Result<MultipartId>>
    where
        's: 'f,
        'p: 'f,
    {
        let begin = async move {
            let id = self.memory.create_multipart_opts(path, options).await?;
            self.script.lock().unwrap().uploads.insert(id.clone(), path.clone());
            Ok(id)
        };
        self.call("begin", path.as_ref(), begin).boxed()
    }

    fn put_part<'s, 'p, 'i, 'f>(
        &'s self,
        path: &'p Path,
        id: &'i MultipartId,
        number: usize,
        payload: PutPayload,
    ) -> BoxFuture<'f, Result<PartId>>
    where
        's: 'f,
        'p: 'f,
        'i: 'f,
    {
        self.call("part", path.as_ref(), self.memory.put_part(path, id, number, payload)).boxed()
    }

    fn complete_multipart<'s, 'p, 'i, 'f>(
        &'s self,
        path: &'p Path,
        id: &'i MultipartId,
        parts: Vec<PartId>,
    ) -> BoxFuture<'f, Result<PutResult>>
    where
        's: 'f,
        'p: 'f,
        'i: 'f,
    {
        let complete = async move {
            self.end(id)?;
            self.memory.complete_multipart(path, id, parts).await
        };
        self.call("complete", path.as_ref(), complete).boxed()
    }

    fn abort_multipart<'s, 'p, 'i, 'f>(&'s self, path: &'p Path, id: &'i MultipartId) -> BoxFuture<'f, Result<()>>
    where
        's: 'f,
        'p: 'f,
        'i: 'f,
    {
        let abort = async move {
            self.end(id)?;
            self.memory.abort_multipart(path, id).await
        };
        self.call("abort", path.as_ref(), abort).boxed()
    }
}
