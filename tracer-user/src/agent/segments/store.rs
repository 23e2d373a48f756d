//! Where segments go: a folder, or an object store by its own protocol.

use std::{
    collections::BTreeMap,
    fmt, fs,
    io::{self, Read},
    path::{Path as FilePath, PathBuf},
    sync::Arc,
    time::Duration,
};

use object_store::{
    MultipartUpload, ObjectStore, ObjectStoreExt, ObjectStoreScheme, RetryConfig,
    aws::{AmazonS3Builder, AmazonS3ConfigKey},
    azure::{AzureConfigKey, MicrosoftAzureBuilder},
    gcp::{GoogleCloudStorageBuilder, GoogleConfigKey},
    local::LocalFileSystem,
    path::Path,
};
use reqwest::Url;

use super::super::folder::{Folder, FolderError};

/// Bytes of a part; what is smaller is sent at once. S3 takes parts of 5 MiB or more, and 10,000 of them.
const PART: usize = 8 << 20;
/// How long the client tries by itself: after that the exporter waits, and tries anew.
const RETRY_FOR: Duration = Duration::from_secs(10);

/// Why there is no such store.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    #[error("{url} is no URL")]
    Url {
        url: String,
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    #[error("{url}: file:///folder, s3://bucket/path, gs://bucket/path or az://container/path are understood")]
    Scheme { url: String },
    #[error("a store's URL has no user and no password: give them as options")]
    Secrets,
    #[error("name a folder, and not / itself")]
    Root,
    #[error("there is no option `{key}` of {url}")]
    Option { url: String, key: String },
    #[error(transparent)]
    Folder(#[from] FolderError),
    #[error("{url} cannot be used")]
    Store {
        url: String,
        #[source]
        source: object_store::Error,
    },
}

/// Why a file did not arrive.
#[derive(Debug, thiserror::Error)]
pub enum UploadError {
    #[error("cannot read {path}")]
    Io {
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error(transparent)]
    Folder(#[from] FolderError),
    #[error("{0} is no path")]
    Name(String),
    #[error(transparent)]
    Store(#[from] object_store::Error),
}

/// A store as a file names it, understood and not asked yet.
#[derive(Clone, PartialEq)]
pub struct Place {
    url: Url,
    scheme: Scheme,
    /// The path in the store.
    prefix: Path,
    folder: Option<PathBuf>,
    options: BTreeMap<String, String>,
}

#[derive(Clone, Copy, PartialEq)]
enum Scheme {
    Folder,
    Amazon,
    Google,
    Azure,
}

impl Scheme {
    fn of(url: &Url) -> Option<(Self, Path)> {
        let (scheme, prefix) = ObjectStoreScheme::parse(url).ok()?;
        let scheme = match scheme {
            ObjectStoreScheme::Local => Self::Folder,
            ObjectStoreScheme::AmazonS3 => Self::Amazon,
            ObjectStoreScheme::GoogleCloudStorage => Self::Google,
            ObjectStoreScheme::MicrosoftAzure => Self::Azure,
            _ => return None,
        };
        Some((scheme, prefix))
    }

    fn knows(self, key: &str) -> bool {
        match self {
            Self::Folder => false,
            Self::Amazon => key.parse::<AmazonS3ConfigKey>().is_ok(),
            Self::Google => key.parse::<GoogleConfigKey>().is_ok(),
            Self::Azure => key.parse::<AzureConfigKey>().is_ok(),
        }
    }
}

impl Place {
    /// Understands a URL and options, as the crate `object_store` calls these.
    pub fn new(text: &str, options: BTreeMap<String, String>) -> Result<Self, StoreError> {
        // Who has written a secret into it is not to find that in a log.
        let shown = || text.rsplit_once('@').map_or_else(|| text.to_owned(), |(_, rest)| format!("…@{rest}"));
        let url: Url = text.parse().map_err(|source| StoreError::Url { url: shown(), source: Box::new(source) })?;
        if !url.username().is_empty() && !url.scheme().starts_with("abfs") || url.password().is_some() {
            return Err(StoreError::Secrets);
        }
        let Some((scheme, prefix)) = Scheme::of(&url) else { return Err(StoreError::Scheme { url: text.to_owned() }) };
        if scheme == Scheme::Folder && prefix.is_root() {
            return Err(StoreError::Root);
        }
        if let Some(key) = options.keys().find(|key| !scheme.knows(key)) {
            return Err(StoreError::Option { url: text.to_owned(), key: key.clone() });
        }
        let folder = if scheme == Scheme::Folder { url.to_file_path().ok() } else { None };
        Ok(Self { url, scheme, prefix, folder, options })
    }

    /// Whether there is such an option.
    pub fn knows(text: &str, key: &str) -> bool {
        text.parse().ok().and_then(|url: Url| Scheme::of(&url)).is_some_and(|(scheme, _)| scheme.knows(key))
    }

    #[cfg(test)]
    pub fn option(&self, key: &str) -> Option<&str> {
        self.options.get(key).map(String::as_str)
    }

    /// The folder that it is.
    pub fn folder(&self) -> Option<&FilePath> {
        self.folder.as_deref()
    }

    /// Ready to be sent to. A folder is made; a bucket is not asked.
    pub fn open(&self) -> Result<Store, StoreError> {
        let failed = |source| StoreError::Store { url: self.to_string(), source };
        if let Some(path) = &self.folder {
            let open = Folder::open(path)?;
            let inner = LocalFileSystem::new_with_prefix(path).map_err(failed)?.with_fsync(true);
            return Ok(Store { inner: Arc::new(inner), prefix: Path::default(), folder: Some((path.clone(), open)) });
        }
        let inner: Arc<dyn ObjectStore> = match self.scheme {
            Scheme::Amazon | Scheme::Folder => Arc::new(self.amazon().map_err(failed)?),
            Scheme::Google => Arc::new(self.google().map_err(failed)?),
            Scheme::Azure => Arc::new(self.azure().map_err(failed)?),
        };
        Ok(Store { inner, prefix: self.prefix.clone(), folder: None })
    }
}

/// What the environment says, as each cloud's own tools take it, and then the options.
macro_rules! builder {
    ($name:ident, $builder:ident, $key:ident) => {
        fn $name(&self) -> object_store::Result<impl ObjectStore> {
            // Another part of the program may have chosen one: any will do.
            let _ = rustls::crypto::ring::default_provider().install_default();
            let mut builder = $builder::from_env().with_url(self.url.as_str()).with_retry(retry());
            for (key, value) in &self.options {
                builder = builder.with_config(key.parse::<$key>()?, value);
            }
            builder.build()
        }
    };
}

impl Place {
    builder!(amazon, AmazonS3Builder, AmazonS3ConfigKey);
    builder!(google, GoogleCloudStorageBuilder, GoogleConfigKey);
    builder!(azure, MicrosoftAzureBuilder, AzureConfigKey);
}

fn retry() -> RetryConfig {
    RetryConfig { max_retries: 3, retry_timeout: RETRY_FOR, ..RetryConfig::default() }
}

/// Without its options, of which some are secret.
impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.url.fmt(f)
    }
}

impl fmt::Debug for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// A store that is sent to.
pub struct Store {
    inner: Arc<dyn ObjectStore>,
    prefix: Path,
    folder: Option<(PathBuf, Folder)>,
}

impl Store {
    /// The folder that it is.
    pub fn folder(&self) -> Option<&Folder> {
        self.folder.as_ref().map(|(_, folder)| folder)
    }

    /// Has a file arrive as `name`, whole or not at all; one that is there is replaced.
    pub async fn upload(&self, file: &FilePath, name: &str) -> Result<u64, UploadError> {
        if let Some((path, _)) = &self.folder {
            // What it was at first may have been replaced.
            Folder::open(path)?;
        }
        let bad = |_| UploadError::Name(name.to_owned());
        let at = Path::parse(format!("{}/{name}", self.prefix)).map_err(bad)?;
        let io = |source| UploadError::Io { path: file.into(), source };
        let mut input = fs::File::open(file).map_err(io)?;
        let len = input.metadata().map_err(io)?.len();
        if len <= PART as u64 {
            self.inner.put(&at, part(&mut input).map_err(io)?.into()).await?;
            return Ok(len);
        }
        let mut upload = self.inner.put_multipart(&at).await?;
        let sent = send(&mut upload, &mut input, file).await;
        if sent.is_err() {
            // What arrived of it may cost money.
            let _ = upload.abort().await;
        }
        sent.map(|()| len)
    }
}

/// One part after the other: memory holds one.
async fn send(upload: &mut Box<dyn MultipartUpload>, input: &mut fs::File, file: &FilePath) -> Result<(), UploadError> {
    loop {
        let part = part(input).map_err(|source| UploadError::Io { path: file.into(), source })?;
        if part.is_empty() {
            break;
        }
        upload.put_part(part.into()).await?;
    }
    upload.complete().await?;
    Ok(())
}

fn part(input: &mut fs::File) -> io::Result<Vec<u8>> {
    let mut part = Vec::new();
    input.take(PART as u64).read_to_end(&mut part)?;
    Ok(part)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use object_store::memory::InMemory;

    use super::*;

    /// What a segment's table is called, with a program's path in it.
    const TABLE: &str = "spans/date=2026-11-29/node=n1/program=%2Fsrv%2Fshop/a.parquet";

    fn place(text: &str, options: &[(&str, &str)]) -> Result<Place, StoreError> {
        Place::new(text, options.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect())
    }

    /// Why it is refused, with all causes; nothing if it is not.
    fn refusal<T>(result: Result<T, StoreError>) -> String {
        result.err().map_or_else(String::new, |error| format!("{:#}", anyhow::Error::from(error)))
    }

    /// What is asked of a store, to its end.
    fn wait<T>(work: impl Future<Output = T>) -> T {
        tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(work)
    }

    /// Check that each kind of store is understood: whose it is, the path in it, and which folder it is.
    #[test]
    fn understood() {
        for (text, scheme, prefix, folder) in [
            ("file:///srv/segments", Scheme::Folder, "srv/segments", Some("/srv/segments")),
            ("file:///srv/a%20b", Scheme::Folder, "srv/a b", Some("/srv/a b")),
            ("s3://bucket", Scheme::Amazon, "", None),
            ("s3://bucket/prod/a", Scheme::Amazon, "prod/a", None),
            ("gs://bucket/prod/a", Scheme::Google, "prod/a", None),
            ("az://container/prod/a", Scheme::Azure, "prod/a", None),
            ("abfss://container@account.dfs.core.windows.net/prod/a", Scheme::Azure, "prod/a", None),
        ] {
            let place = place(text, &[]).unwrap();
            assert!(place.scheme == scheme, "{text}");
            assert_eq!((place.prefix.as_ref(), place.folder()), (prefix, folder.map(FilePath::new)), "{text}");
            assert_eq!(place.to_string(), text);
        }
        for (text, key, known) in [
            ("s3://b", "endpoint", true),
            ("s3://b", "account_name", false),
            ("gs://b", "service_account", true),
            ("gs://b", "region", false),
            ("az://c", "account_name", true),
            ("az://c", "region", false),
            ("file:///a", "allow_http", false),
            ("here", "endpoint", false),
        ] {
            assert_eq!(Place::knows(text, key), known, "{key} of {text}");
        }
    }

    /// Check that what names no store, or a secret, is refused, and that the secret is not told.
    #[test]
    fn refused() {
        for (text, said) in [
            ("bucket/prod", "is no URL"),
            ("memory:///a", "are understood"),
            ("https://example.org/a", "are understood"),
            ("s3:///a", "are understood"),
            ("s3://bucket/a//b", "are understood"),
            ("file://host/a", "are understood"),
            ("file:///", "not / itself"),
            ("s3://me:hush@bucket:port/a", "…@bucket:port/a"),
            ("gs://hush@bucket/a", "no user and no password"),
            ("az://me:hush@container/a", "no user and no password"),
            ("abfss://container:hush@account.dfs.core.windows.net/a", "no user and no password"),
        ] {
            let refusal = refusal(place(text, &[]));
            assert!(refusal.contains(said) && !refusal.contains("hush"), "{text}: {refusal}");
        }
        for (text, key) in [("s3://b", "account_name"), ("gs://b", "region"), ("az://c", "region"), ("file:///a", "region")] {
            let refusal = refusal(place(text, &[(key, "hush")]));
            assert!(refusal.contains(&format!("no option `{key}` of {text}")) && !refusal.contains("hush"), "{refusal}");
        }
    }

    /// Check that each cloud has a client of its own, made without asking anybody, and that options which make none are refused.
    #[test]
    fn opened() {
        for (text, options, client) in [
            ("s3://b/a", &[("access_key_id", "me"), ("secret_access_key", "hush")][..], "AmazonS3"),
            ("gs://b/a", &[("bearer_token", "hush")][..], "GoogleCloudStorage"),
            ("az://c/a", &[("account_name", "me"), ("access_key", "aHVzaA==")][..], "MicrosoftAzure"),
        ] {
            let store = place(text, options).unwrap().open().unwrap();
            assert_eq!((store.prefix.as_ref(), store.folder().is_none()), ("a", true), "{text}");
            assert!(store.inner.to_string().starts_with(client), "{text}: {}", store.inner);
        }
        for (text, options) in [
            ("s3://b", &[("access_key_id", "me")][..]),
            ("s3://b", &[("skip_signature", "perhaps")][..]),
            ("gs://b", &[("service_account", "/nowhere/key.json")][..]),
            ("az://c", &[("client_id", "me")][..]),
        ] {
            let refusal = refusal(place(text, options).unwrap().open());
            assert!(refusal.contains(&format!("{text} cannot be used")), "{text} {options:?}: {refusal}");
        }
    }

    /// Check that a file arrives whole below the path of its store, whether it is a part, less or several, in place of one that was there.
    #[test]
    fn parts() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("table");
        let store = Store { inner: Arc::new(InMemory::new()), prefix: Path::from("prod/a"), folder: None };
        let at = Path::parse(format!("prod/a/{TABLE}")).unwrap();
        for len in [2 * PART + 3, 2 * PART, PART + 1, PART, PART - 1, 1, 0] {
            let bytes: Vec<u8> = (0..=250).cycle().take(len).collect();
            fs::write(&file, &bytes).unwrap();
            assert_eq!(wait(store.upload(&file, TABLE)).unwrap(), len as u64);
            let arrived = wait(async { store.inner.get(&at).await?.bytes().await }).unwrap();
            assert!(arrived[..] == bytes[..], "{} of {len} bytes", arrived.len());
        }
        assert!(matches!(wait(store.upload(&file, "spans//a.parquet")), Err(UploadError::Name(_))));
        assert!(matches!(wait(store.upload(&file, "../a.parquet")), Err(UploadError::Name(_))));
        assert!(matches!(wait(store.upload(&dir.path().join("nowhere"), TABLE)), Err(UploadError::Io { .. })));
    }

    /// Check that a folder gets files by their names and nothing beside them, and none once it has become a link.
    #[test]
    fn folder() {
        let dir = tempfile::tempdir().unwrap();
        let (file, folder, elsewhere) = (dir.path().join("table"), dir.path().join("store"), dir.path().join("elsewhere"));
        let store = place(&format!("file://{}", folder.display()), &[]).unwrap().open().unwrap();
        for len in [PART + 1, 100] {
            fs::write(&file, vec![b'x'; len]).unwrap();
            assert_eq!(wait(store.upload(&file, TABLE)).unwrap(), len as u64);
            let arrived = folder.join(TABLE);
            assert_eq!(arrived.metadata().unwrap().len(), len as u64);
            assert_eq!(fs::read_dir(arrived.parent().unwrap()).unwrap().count(), 1);
        }
        fs::rename(&folder, &elsewhere).unwrap();
        symlink(&elsewhere, &folder).unwrap();
        assert!(matches!(wait(store.upload(&file, "b.parquet")), Err(UploadError::Folder(_))));
        assert!(!elsewhere.join("b.parquet").exists());
    }
}
