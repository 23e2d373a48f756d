//! What people call a creation site: a `go` statement that was compiled twice is one.

use crate::{
    correlate::{goroutine::SiteKey, process::ImageId},
    symbolize::{Symbolizer, label},
};

/// Where goroutines are made and what they run, in words.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Site {
    pub image: ImageId,
    pub runs: String,
    /// Empty where that was not seen.
    pub made_at: String,
}

impl Site {
    pub fn named(site: SiteKey, symbols: &Symbolizer<'_>) -> Self {
        let (Some(gopc), Some(startpc)) = (site.gopc, site.startpc) else {
            return Self { image: site.image, runs: "birth not seen".to_owned(), made_at: String::new() };
        };
        let made = symbols.go_statement(site.image, gopc);
        let made_at = if made.line == 0 { label(&made) } else { format!("{}:{}", made.file, made.line) };
        Self { image: site.image, runs: label(&symbols.entry(site.image, startpc)), made_at }
    }

    pub fn titled(&self, count: usize) -> String {
        let by = if self.made_at.is_empty() { "" } else { "  by " };
        format!("{} ({count}){by}{}", self.runs, self.made_at)
    }
}
