//! The front page, `/debug/pprof/`: whether it is one, and how many goroutines it counts.
//!
//! Source: `net/http/pprof/pprof.go` (`indexTmplExecute`).

/// What a front page says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Index {
    /// Goroutines there are; `None`: it does not say.
    pub goroutines: Option<u64>,
}

/// Reads a page; `None`: it is another one.
pub fn parse(page: &str) -> Option<Index> {
    // Programs that have a page of their own around it (expvar collections, k8s) keep the links.
    let link = page.find("goroutine?debug=")?;
    if !page.contains("/debug/pprof") {
        return None;
    }
    Some(Index { goroutines: count_before(&page[..link]) })
}

/// `<td>12</td><td><a href='`, just before the link.
fn count_before(page: &str) -> Option<u64> {
    let cell = page.strip_suffix("<a href='")?.strip_suffix("<td>")?.trim_end().strip_suffix("</td>")?;
    let start = cell.rfind("<td>")?;
    cell.get(start + 4..)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Check that Go's own page gives its count, another one that links to the profiles none, and any other page is none.
    #[test]
    fn pages() {
        let page = "<title>/debug/pprof/</title><tr><td>9</td><td><a href='block?debug=1'>block</a></td></tr>\n\
                    <tr><td>4711</td><td><a href='goroutine?debug=1'>goroutine</a></td></tr>";
        assert_eq!(parse(page), Some(Index { goroutines: Some(4711) }));
        let own = "<a href=\"/debug/pprof/goroutine?debug=1\">goroutines</a>";
        assert_eq!(parse(own), Some(Index { goroutines: None }));
        for page in ["", "<html>404</html>", "goroutine?debug=1"] {
            assert_eq!(parse(page), None, "{page}");
        }
    }
}
