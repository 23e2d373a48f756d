//! Where a server's profiles are: `http://HOST:PORT/debug/pprof`.

use std::{fmt, net::SocketAddr, str::FromStr};

/// The front page's address, without its last slash.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Base(String);

/// Why a URL is none that can be asked.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BaseError {
    #[error("https is not spoken here: name a plain http address of the server, or put a proxy that ends TLS in front of it")]
    Https,
    #[error("a URL such as http://127.0.0.1:6060 is wanted, or `auto`")]
    NoUrl,
    #[error("user names, queries and fragments have no place in it")]
    TooMuch,
}

impl FromStr for Base {
    type Err = BaseError;

    /// The path may be left out; another one than `/debug/pprof` is taken as it is.
    fn from_str(url: &str) -> Result<Self, BaseError> {
        if url.starts_with("https://") {
            return Err(BaseError::Https);
        }
        let rest = url.strip_prefix("http://").ok_or(BaseError::NoUrl)?;
        if rest.contains(['@', '?', '#']) {
            return Err(BaseError::TooMuch);
        }
        let printable = rest.bytes().all(|byte| byte.is_ascii_graphic());
        let (host, path) = rest.split_once('/').unwrap_or((rest, ""));
        if host.is_empty() || host.starts_with(':') || !printable {
            return Err(BaseError::NoUrl);
        }
        let path = path.trim_end_matches('/');
        Ok(Self(format!("http://{host}/{}", if path.is_empty() { "debug/pprof" } else { path })))
    }
}

impl Base {
    /// Where Go itself serves them.
    pub fn at(address: SocketAddr) -> Self {
        Self(format!("http://{address}/debug/pprof"))
    }

    /// The front page.
    pub fn index(&self) -> String {
        format!("{}/", self.0)
    }

    /// A profile, with its query.
    pub fn profile(&self, path: &str) -> String {
        format!("{}/{path}", self.0)
    }

    /// Host and port, as they stand in the URL.
    pub fn authority(&self) -> &str {
        let rest = self.0.strip_prefix("http://").unwrap_or_default();
        rest.split('/').next().unwrap_or_default()
    }
}

impl fmt::Display for Base {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Check that URLs are completed, kept as they are where they say more, and refused with a reason where they cannot be asked.
    #[test]
    fn urls() {
        let base = |url: &str| url.parse::<Base>();
        for url in ["http://127.0.0.1:6060", "http://127.0.0.1:6060/", "http://127.0.0.1:6060/debug/pprof/"] {
            let base = base(url).unwrap();
            assert_eq!(base.index(), "http://127.0.0.1:6060/debug/pprof/");
            assert_eq!(base.authority(), "127.0.0.1:6060");
            assert_eq!(base, Base::at("127.0.0.1:6060".parse().unwrap()));
        }
        assert_eq!(
            base("http://[::1]:80/admin/prof").unwrap().profile("heap?debug=1"),
            "http://[::1]:80/admin/prof/heap?debug=1"
        );
        let refused = [
            ("https://a", BaseError::Https),
            ("127.0.0.1:6060", BaseError::NoUrl),
            ("http://", BaseError::NoUrl),
            ("http://:80", BaseError::NoUrl),
            ("http://a b", BaseError::NoUrl),
            ("http://u@a", BaseError::TooMuch),
            ("http://a/x?y", BaseError::TooMuch),
        ];
        for (url, error) in refused {
            assert_eq!(base(url), Err(error), "{url}");
        }
    }
}
