//! The screens and pictures of the user guide and of README.md are what the tool makes of the recordings in `recordings/`.
//!
//! A block ```` ```console ```` of theirs is a command behind `$ ` and what it prints. With `LIFETRACE_WRITE_GUIDE` (`cargo xtask guide`)
//! the texts and pictures are written anew, instead of compared. A picture of a page is not drawn again to compare it (browsers differ): the page's digest is.

use std::{
    env, fs,
    os::unix::fs::symlink,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, Result, ensure};
use lifetrace_tests::{fixture, lifetrace, process, scenario::along, terminal::Terminal};
use tempfile::TempDir;

const FENCE: &str = "```";
/// Looks at a screen, a hundredth of a second apart, that see the same.
const STILL: u32 = 50;
const CONSOLE: &str = "```console";

/// Where the guide's commands are typed: the recordings lie there.
struct Desk(TempDir);

impl Desk {
    fn set() -> Result<Self> {
        let dir = TempDir::new()?;
        for entry in fs::read_dir(fixture::workspace_root().join("tests/recordings"))? {
            let entry = entry?;
            symlink(entry.path(), dir.path().join(entry.file_name()))?;
        }
        Ok(Self(dir))
    }

    /// What a line prints, as a person sees it.
    fn type_in(&self, line: &str) -> Result<String> {
        if let Some(args) = line.strip_prefix("lifetrace top ") {
            return self.look_at(args);
        }
        let ours = lifetrace::binary().parent().map(Path::to_path_buf).unwrap_or_default();
        let path = env::join_paths([ours].into_iter().chain(env::split_paths(&env::var_os("PATH").unwrap_or_default())))?;
        let mut shell = Command::new("sh");
        shell.args(["-c", &format!("{line} 2>&1")]).current_dir(self.0.path()).env("PATH", path);
        shell.env("LC_ALL", "C.UTF-8").env_remove("NO_COLOR");
        Ok(process::run(shell)?.stdout)
    }

    /// The screen of `top`, which goes on, once all of a recording is on it.
    fn look_at(&self, args: &str) -> Result<String> {
        let mut top = lifetrace::command();
        top.arg("top").args(args.split(' ')).current_dir(self.0.path()).env("NO_COLOR", "1");
        let terminal = Terminal::start(top, 120, 16)?;
        let (mut before, mut same) = (String::new(), 0);
        terminal.until("the end of the recording, and a screen that stands still", |screen| {
            let is_over = screen.contains("lifetrace top  [") && screen.contains("? help");
            same = if is_over && screen == before { same + 1 } else { 0 };
            screen.clone_into(&mut before);
            (same >= STILL).then_some(())
        })?;
        Ok(before.lines().map(|line| format!("{}\n", line.trim_end())).collect())
    }

    /// Files of a kind that commands have left.
    fn made(&self, ending: &str) -> Result<Vec<PathBuf>> {
        let entries = fs::read_dir(self.0.path())?.map(|entry| Ok(entry?.path()));
        let paths: Vec<PathBuf> = entries.collect::<Result<_>>()?;
        Ok(paths.into_iter().filter(|path| path.extension().is_some_and(|found| found == ending)).collect())
    }
}

/// The page with what its commands print now; how many there were.
fn retyped(page: &str, desk: &Desk) -> Result<(String, usize)> {
    let (mut out, mut commands) = (String::new(), 0);
    let mut lines = page.lines();
    while let Some(line) = lines.next() {
        out += &format!("{line}\n");
        if line != CONSOLE {
            continue;
        }
        let typed = lines.next().context("a block without a command")?;
        let command = typed.strip_prefix("$ ").with_context(|| format!("no command: {typed}"))?;
        let said = desk.type_in(command)?;
        let said = said.trim_end();
        out += &format!("{typed}\n{said}{}{FENCE}\n", if said.is_empty() { "" } else { "\n" });
        commands += 1;
        // What it printed before.
        lines.by_ref().find(|line| *line == FENCE).with_context(|| format!("the block of {typed} has no end"))?;
    }
    Ok((out, commands))
}

/// A page as a browser shows it.
fn picture(page: &Path, out: &Path) -> Result<()> {
    let mut chromium = Command::new("chromium");
    chromium.args(["--headless", "--no-sandbox", "--disable-gpu", "--hide-scrollbars", "--window-size=1200,1180"]);
    chromium.args(["--virtual-time-budget=5000", &format!("--screenshot={}", out.display()), &page.display().to_string()]);
    process::run(chromium)?.expect_code(0).map(drop)
}

/// Pages with the digest of each, so that one that changes is seen without drawing it.
fn digests(pages: &[PathBuf]) -> Result<String> {
    let mut lines = Vec::new();
    for page in pages {
        let mut sum = Command::new("sha256sum");
        sum.arg(page);
        let said = process::run(sum)?.expect_code(0)?.stdout;
        let digest = said.split_whitespace().next().context("no digest")?.to_owned();
        lines.push(format!("{}  {digest}\n", picture_of(page)));
    }
    lines.sort_unstable();
    Ok(lines.concat())
}

/// What the picture of a page is called.
fn picture_of(page: &Path) -> String {
    format!("{}.png", page.file_stem().unwrap_or_default().to_string_lossy())
}

/// Check that every screen of the guide and of README.md is what its command prints, every flamegraph what it draws, and every page the one of
/// which there is a picture.
#[test]
fn screens_and_pictures() -> Result<()> {
    along(&[], || {
        let root = fixture::workspace_root();
        let (pictures, desk) = (root.join("docs/pictures"), Desk::set()?);
        let writes = env::var_os("LIFETRACE_WRITE_GUIDE").is_some();
        let again = "`cargo xtask guide` writes it anew";
        for (name, least) in [("docs/guide.md", 13), ("docs/top.md", 2), ("README.md", 3)] {
            let page = fs::read_to_string(root.join(name))?;
            let (now, commands) = retyped(&page, &desk)?;
            ensure!(commands >= least, "{name}: {commands} commands");
            if writes {
                fs::write(root.join(name), &now)?;
                continue;
            }
            for (line, (is, was)) in now.lines().zip(page.lines()).enumerate() {
                assert_eq!(is, was, "{name}:{}: {again}", line + 1);
            }
            assert_eq!(now.lines().count(), page.lines().count(), "{name}: {again}");
        }
        let (drawn, pages, list) = (desk.made("svg")?, desk.made("html")?, pictures.join("pages.txt"));
        ensure!(drawn.len() >= 2 && pages.len() >= 4, "{} flamegraphs, {} pages", drawn.len(), pages.len());
        if writes {
            for svg in &drawn {
                fs::copy(svg, pictures.join(svg.file_name().unwrap_or_default()))?;
            }
            for page in &pages {
                picture(page, &pictures.join(picture_of(page)))?;
            }
            fs::write(list, digests(&pages)?)?;
            return Ok(());
        }
        for svg in &drawn {
            let kept = pictures.join(svg.file_name().unwrap_or_default());
            assert!(fs::read(svg)? == fs::read(&kept)?, "{}: {again}", kept.display());
        }
        assert_eq!(digests(&pages)?, fs::read_to_string(list)?, "docs/pictures: {again}");
        for name in ["docs/guide.md", "README.md"] {
            let page = fs::read_to_string(root.join(name))?;
            for (at, _) in page.match_indices("pictures/") {
                let name = page[at..].split(')').next().unwrap_or_default();
                assert!(root.join("docs").join(name).is_file(), "{name} is missing");
            }
        }
        Ok(())
    })
}
