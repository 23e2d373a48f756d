//! Where a frame's file lies in a checkout: what tools that show code beside a finding want to know.

use std::path::{Path, PathBuf};

use crate::recording::contract::Frame;

/// A checkout.
#[derive(Clone, Debug, Default)]
pub struct Sources {
    root: PathBuf,
    /// Of its `go.mod`: programs built with `-trimpath` name files by it.
    module: Option<String>,
}

impl Sources {
    /// The checkout at `root`.
    pub fn at(root: &Path) -> Self {
        let text = std::fs::read_to_string(root.join("go.mod")).unwrap_or_default();
        let module =
            text.lines().find_map(|line| line.strip_prefix("module ")).map(|module| module.trim().trim_matches('"').to_owned());
        Self { root: root.to_owned(), module }
    }

    /// The file of a frame as the checkout has it, with `/` between its parts; `None`: it lies elsewhere.
    pub fn locate(&self, frame: &Frame) -> Option<String> {
        let path = Path::new(&frame.file);
        let below = path.strip_prefix(&self.root).ok().filter(|_| self.root.is_absolute());
        let of_module = || path.strip_prefix(self.module.as_ref()?).ok();
        let found = below.or_else(of_module)?.to_str()?;
        (!found.is_empty()).then(|| found.to_owned())
    }
}

/// The first of these frames that lies in the checkout: of a library's goroutine, the caller's own line.
pub fn own<'a>(sources: &Sources, frames: impl IntoIterator<Item = &'a Frame>) -> Option<(String, u32)> {
    frames.into_iter().find_map(|frame| Some((sources.locate(frame)?, frame.line)).filter(|(_, line)| *line > 0))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Check files below the root, of a trimmed build, and elsewhere.
    #[test]
    fn located() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("go.mod"), "// x\nmodule example.com/shop\n\ngo 1.24\n").unwrap();
        let sources = Sources::at(dir.path());
        let locate = |file: &str| sources.locate(&Frame { function: "f".into(), file: file.into(), line: 3 });
        assert_eq!(locate(&format!("{}/api/serve.go", dir.path().display())).as_deref(), Some("api/serve.go"));
        assert_eq!(locate("example.com/shop/api/serve.go").as_deref(), Some("api/serve.go"));
        assert_eq!(locate("/usr/local/go/src/runtime/proc.go"), None);
        assert_eq!(locate("runtime/proc.go"), None);
        assert_eq!(Sources::default().locate(&Frame { function: "f".into(), file: "/a.go".into(), line: 3 }), None);
    }
}
