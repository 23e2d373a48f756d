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
        let url: Url = text.parse().map_err(|source| StoreError::Url { url: text.to_owned(), source: Box::new(source) })?;
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
