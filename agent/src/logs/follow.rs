//! All followed files: finds them, keeps to them through rotation by rename and by copy and truncation, and takes up a kept
//! position after a restart, in the rotated file too. Decides nothing about lines.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::Metadata;
use std::path::{Path, PathBuf};
use std::time::UNIX_EPOCH;

use super::config::LogsConfig;
use super::glob;
use super::state::{FilePosition, LogState};
use super::tail::{Budget, Tail};

/// Every file that is open, by name; and those that lost their name.
pub(super) struct Follow {
    config: LogsConfig,
    /// Patterns of files that another source has as well.
    copies: Vec<String>,
    named: BTreeMap<PathBuf, Tail>,
    rotated: Vec<Tail>,
    /// Positions of an earlier run, until the first look at the files.
    kept: Option<LogState>,
    /// Whether files were looked for before: a file that turns up later is new, and read from its begin.
    looked: bool,
    /// Files that could not be opened; one log line each.
    refused: BTreeSet<PathBuf>,
    buffer: Vec<u8>,
    pub(super) counts: FollowCounts,
}

/// What happened so far.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct FollowCounts {
    pub(super) lines_cut: u64,
    pub(super) rotations: u64,
    pub(super) truncations: u64,
    pub(super) read_errors: u64,
}

/// What one round came to.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Progress {
    /// Lines handed out.
    pub(super) lines: usize,
    /// There is more to read at once.
    pub(super) more: bool,
    /// There are last lines that more may belong to: read again in a second.
    pub(super) waits: bool,
}

/// A rotated file is read on for as long as its writer may still hold it; daemons reopen within seconds of the signal.
const ROTATED_IDLE_MS: i64 = 300_000;
/// Most rotated files read at once; beyond it the one that was silent for longest is let go.
const ROTATED_MAX: usize = 32;
/// Most names of a folder looked at in the search for a rotated file.
const SIBLINGS_MAX: usize = 5000;
/// Fewest lines a file may give in a round, so that a noisy one does not silence the others.
const LINES_MIN: usize = 50;

impl Follow {
    pub(super) fn new(config: &LogsConfig, copies: &[String], kept: Option<LogState>) -> Follow {
        Follow {
            config: config.clone(),
            copies: copies.to_vec(),
            named: BTreeMap::new(),
            rotated: Vec::new(),
            kept,
            looked: false,
            refused: BTreeSet::new(),
            buffer: Vec::new(),
            counts: FollowCounts::default(),
        }
    }

    /// Folders to watch for new files.
    pub(super) fn folders(&self) -> BTreeSet<PathBuf> {
        self.config.files.iter().flat_map(|pattern| glob::folders(pattern)).collect()
    }

    /// Number of open files.
    pub(super) fn files(&self) -> usize {
        self.named.len() + self.rotated.len()
    }

    /// Where reading stands now.
    pub(super) fn state(&self, now: i64) -> LogState {
        if let Some(kept) = &self.kept {
            return kept.clone();
        }
        let all = self.named.values().chain(&self.rotated);
        LogState { at: now, files: all.map(|tail| tail.position().clone()).collect(), ..LogState::default() }
    }

    /// One round: looks for files, then reads about `lines_max` lines and hands each to `take` with its file's name;
    /// `take` says whether it wants more in this round.
    pub(super) fn round(&mut self, now: i64, lines_max: usize, take: &mut dyn FnMut(&Path, &[u8]) -> bool) -> Progress {
        self.look(now);
        let share = (lines_max / self.files().max(1)).max(LINES_MIN);
        let budget = Budget { line_bytes: self.config.line_bytes_max, lines: share, joins: self.config.join_traces };
        let mut progress = Progress::default();
        // What was rotated away is older: first.
        for tail in self.rotated.iter_mut().chain(self.named.values_mut()) {
            let path = tail.position().path.clone();
            let mut is_wanted = true;
            let reading = tail.read(budget, now, &mut self.buffer, &mut |line| {
                is_wanted = take(&path, line);
                is_wanted
            });
            match reading {
                Ok(reading) => {
                    progress.lines += reading.lines;
                    progress.more |= reading.more;
                    progress.waits |= reading.waits;
                    self.counts.lines_cut += reading.cut as u64;
                }
                Err(error) => {
                    self.counts.read_errors += 1;
                    tracing::debug!(path = %path.display(), %error, "log file cannot be read");
                }
            }
            if !is_wanted {
                progress.more = true;
                break;
            }
        }
        if !progress.more {
            progress.lines += self.let_go(now, budget, take);
        }
        progress
    }

    /// Finds new files and notices what became of the known ones.
    fn look(&mut self, now: i64) {
        let limit = self.config.files_max;
        let is_copy =
            |path: &PathBuf| path.to_str().is_some_and(|path| self.copies.iter().any(|copy| glob::names(copy, path)));
        let found = self.config.files.iter().flat_map(|pattern| glob::expand(pattern, limit));
        let found: BTreeSet<PathBuf> = found.filter(|path| !is_copy(path)).take(limit).collect();
        let gone: Vec<PathBuf> = self.named.keys().filter(|path| !found.contains(*path)).cloned().collect();
        for path in gone {
            self.retire(&path, now);
        }
        let kept = self.kept.take();
        if let Some(kept) = &kept {
            self.take_up_rotated(kept, &found, now);
        }
        for path in found {
            self.look_at(&path, kept.as_ref(), now);
        }
        self.looked = true;
    }

    fn look_at(&mut self, path: &Path, kept: Option<&LogState>, now: i64) {
        if let Some(tail) = self.named.get(path) {
            let is_same = std::fs::metadata(path).is_ok_and(|about| tail.is(&about));
            if is_same {
                self.rescue_copy(path, now);
                return;
            }
            self.retire(path, now);
        }
        match self.open(path, kept, now) {
            Ok(Some(tail)) => {
                self.refused.remove(path);
                self.named.insert(path.to_owned(), tail);
            }
            Ok(None) => {}
            Err(error) => {
                if self.refused.len() < self.config.files_max && self.refused.insert(path.to_owned()) {
                    self.counts.read_errors += 1;
                    tracing::warn!(path = %path.display(), %error, "log file cannot be read; check its permissions");
                }
            }
        }
    }

    /// Opens a file and finds the place to read from. `None` when another name of the same file is followed already.
    fn open(&mut self, path: &Path, kept: Option<&LogState>, now: i64) -> std::io::Result<Option<Tail>> {
        let about = std::fs::metadata(path)?;
        if self.named.values().any(|tail| tail.is(&about)) {
            return Ok(None);
        }
        if let Some(place) = self.rotated.iter().position(|tail| tail.is(&about)) {
            // It has its name back, or lost it for a moment.
            let mut tail = self.rotated.swap_remove(place);
            tail.rename(path.to_owned());
            return Ok(Some(tail));
        }
        let mut tail = Tail::open(path, now)?;
        let position = kept.and_then(|kept| kept.files.iter().find(|file| file.path == path && !file.rotated));
        match position {
            Some(position) if tail.resume(position)? => {}
            // Another file has the name now: it is new. The old one was looked for already.
            Some(_) => {}
            None if self.looked || self.config.from_beginning => {}
            None if kept.is_some_and(|kept| was_made_after(&about, kept.at)) => {}
            None => tail.skip_to_end()?,
        }
        Ok(Some(tail))
    }

    /// After a restart: files that were rotated before it, or since.
    fn take_up_rotated(&mut self, kept: &LogState, found: &BTreeSet<PathBuf>, now: i64) {
        for position in &kept.files {
            let is_there = !position.rotated
                && found.contains(&position.path)
                && Tail::open(&position.path, now).and_then(|mut tail| tail.resume(position)).unwrap_or(false);
            if !is_there && let Some(tail) = find_rotated(position, now) {
                self.counts.rotations += 1;
                self.add_rotated(tail);
            }
        }
    }

    fn retire(&mut self, path: &Path, now: i64) {
        if let Some(mut tail) = self.named.remove(path) {
            self.counts.rotations += 1;
            tail.retire(now);
            self.add_rotated(tail);
        }
    }

    /// The file was truncated: if a copy was made first, the lines that were not read yet are in the copy.
    fn rescue_copy(&mut self, path: &Path, now: i64) {
        let Some(tail) = self.named.get(path) else { return };
        if tail.was_rewritten().unwrap_or(false) {
            self.counts.truncations += 1;
            let position = tail.position().clone();
            if let Some(copy) = find_rotated(&position, now) {
                self.add_rotated(copy);
            }
            // A fresh handle, so that the truncation is not seen a second time before the next line.
            if let Ok(fresh) = Tail::open(path, now) {
                self.named.insert(path.to_owned(), fresh);
            }
        }
    }

    fn add_rotated(&mut self, tail: Tail) {
        if self.rotated.len() >= ROTATED_MAX {
            let oldest = self.rotated.iter().enumerate().min_by_key(|(_, tail)| tail.active_at);
            if let Some((place, _)) = oldest {
                self.rotated.swap_remove(place);
            }
        }
        self.rotated.push(tail);
    }

    /// Closes rotated files that have been silent for long, with a last line that has no newline.
    fn let_go(&mut self, now: i64, budget: Budget, take: &mut dyn FnMut(&Path, &[u8]) -> bool) -> usize {
        let mut lines = 0;
        self.rotated.retain_mut(|tail| {
            if now - tail.active_at < ROTATED_IDLE_MS {
                return true;
            }
            let path = tail.position().path.clone();
            let rest = tail.read_rest(budget, &mut |line| {
                lines += 1;
                take(&path, line)
            });
            if let Err(error) = rest {
                tracing::debug!(path = %path.display(), %error, "rotated log file cannot be read to its end");
            }
            false
        });
        lines
    }
}

/// Whether a file is younger than `at`; no where the file system does not say.
fn was_made_after(about: &Metadata, at: i64) -> bool {
    let made = about.created().ok().and_then(|made| made.duration_since(UNIX_EPOCH).ok());
    made.is_some_and(|made| i64::try_from(made.as_millis()).is_ok_and(|made| made > at))
}

/// Looks beside `position.path` for the file that the position was in: by inode, or by how it begins.
fn find_rotated(position: &FilePosition, now: i64) -> Option<Tail> {
    let (folder, name) = (position.path.parent()?, position.path.file_name()?.to_str()?);
    let entries = std::fs::read_dir(folder).ok()?.flatten().take(SIBLINGS_MAX);
    let siblings = entries.map(|entry| entry.file_name()).filter_map(|sibling| sibling.into_string().ok());
    let candidates: Vec<PathBuf> = siblings
        .filter(|sibling| sibling.starts_with(name) && sibling != name)
        .map(|sibling| folder.join(sibling))
        .collect();
    let mut by_begin = None;
    for path in candidates {
        let Ok(mut tail) = Tail::open(&path, now) else { continue };
        if !tail.resume(position).unwrap_or(false) {
            continue;
        }
        tail.rename(position.path.clone());
        tail.retire(now);
        if tail.position().inode == position.inode {
            return Some(tail);
        }
        by_begin.get_or_insert(tail);
    }
    by_begin
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::io::Write as _;

    use super::*;
    use crate::logs::RawLogsConfig;

    struct Scene {
        folder: tempfile::TempDir,
        follow: Follow,
        now: i64,
    }

    impl Scene {
        fn new() -> Scene {
            let folder = tempfile::tempdir().unwrap();
            let config = config(&folder);
            Scene { follow: Follow::new(&config, &[], None), folder, now: 0 }
        }

        fn path(&self, name: &str) -> PathBuf {
            self.folder.path().join(name)
        }

        fn append(&self, name: &str, text: &str) {
            let mut file = fs::OpenOptions::new().append(true).create(true).open(self.path(name)).unwrap();
            file.write_all(text.as_bytes()).unwrap();
        }

        /// Reads until nothing is left; lines joined by spaces.
        fn read(&mut self) -> String {
            self.read_at_most(usize::MAX)
        }

        fn read_at_most(&mut self, most: usize) -> String {
            let mut seen = Vec::new();
            loop {
                let progress = self.follow.round(self.now, 1000, &mut |_, line| {
                    seen.push(String::from_utf8_lossy(line).into_owned());
                    seen.len() < most
                });
                if !progress.more || seen.len() >= most {
                    return seen.join(" ");
                }
            }
        }

        /// The process dies and starts again from the kept state.
        fn restart(&mut self) {
            let text = serde_json::to_string(&self.follow.state(self.now)).unwrap();
            self.follow = Follow::new(&config(&self.folder), &[], Some(serde_json::from_str(&text).unwrap()));
        }
    }

    fn config(folder: &tempfile::TempDir) -> LogsConfig {
        let files = vec![format!("{}/*.log", folder.path().display())];
        RawLogsConfig { files, join_traces: false, ..RawLogsConfig::default() }.check().unwrap()
    }

    /// A line long enough for a fingerprint that tells files apart.
    fn opening(name: &str) -> String {
        format!("2026-11-22T12:00:00Z-the-first-line-of-{name}")
    }

    #[test]
    fn a_known_file_begins_at_its_end_and_a_later_one_at_its_begin() {
        let mut scene = Scene::new();
        scene.append("a.log", "old\nhalf");
        assert_eq!(scene.read(), "");
        scene.append("a.log", "way\nnew\n");
        scene.append("b.log", "first\n");
        assert_eq!(scene.read(), "halfway new first");
    }

    #[test]
    fn rotation_by_rename_loses_nothing_and_repeats_nothing() {
        let mut scene = Scene::new();
        scene.append("a.log", "");
        scene.read();
        scene.append("a.log", "1\n2\n");
        assert_eq!(scene.read_at_most(1), "1");
        fs::rename(scene.path("a.log"), scene.path("a.log.1")).unwrap();
        // The writer has not reopened yet.
        scene.append("a.log.1", "3\n");
        assert_eq!(scene.read(), "2 3");
        scene.append("a.log", "4\n");
        scene.append("a.log.1", "late\n");
        assert_eq!(scene.read(), "late 4");
        scene.append("a.log.1", "no newline");
        scene.now += ROTATED_IDLE_MS;
        assert_eq!(scene.read(), "no newline");
        assert_eq!(scene.follow.files(), 1);
    }

    #[test]
    fn copy_and_truncation_loses_nothing_and_repeats_nothing() {
        let mut scene = Scene::new();
        scene.append("a.log", "");
        scene.read();
        scene.append("a.log", &format!("{}\n", opening("a")));
        scene.read();
        scene.append("a.log", "unread\n");
        fs::copy(scene.path("a.log"), scene.path("a.log.1")).unwrap();
        fs::write(scene.path("a.log"), "").unwrap();
        scene.append("a.log", "after\n");
        assert_eq!(scene.read(), "unread after");
        scene.append("a.log", "later\n");
        assert_eq!(scene.read(), "later");
        assert_eq!(scene.follow.counts.truncations, 1);
    }

    #[test]
    fn a_restart_takes_up_where_it_stood() {
        let mut scene = Scene::new();
        scene.append("a.log", "");
        scene.read();
        scene.append("a.log", "1\n2\n3\n");
        assert_eq!(scene.read_at_most(2), "1 2");
        scene.restart();
        scene.append("a.log", "4\n");
        assert_eq!(scene.read(), "3 4");
        scene.restart();
        assert_eq!(scene.read(), "");
    }

    #[test]
    fn a_restart_finds_what_was_rotated_meanwhile() {
        let mut scene = Scene::new();
        scene.append("a.log", "");
        scene.append("b.log", "");
        scene.read();
        scene.append("b.log", &format!("{}\n", opening("b")));
        scene.read();
        scene.append("a.log", "1\n2\n");
        scene.append("b.log", "x\n");
        assert_eq!(scene.read_at_most(1), "1");
        fs::rename(scene.path("a.log"), scene.path("a.log.1")).unwrap();
        scene.append("a.log", "3\n");
        fs::copy(scene.path("b.log"), scene.path("b.log.1")).unwrap();
        fs::write(scene.path("b.log"), "y\n").unwrap();
        scene.restart();
        assert_eq!(scene.read(), "2 x 3 y");
        scene.restart();
        assert_eq!(scene.read(), "");
    }

    #[test]
    fn a_file_made_while_the_agent_was_down_is_read_from_its_begin() {
        let mut scene = Scene::new();
        scene.append("old.log", "old\n");
        scene.read();
        let kept = LogState { at: i64::MAX, ..scene.follow.state(0) };
        scene.append("made.log", "missed\n");
        scene.restart();
        // The scene's clock stands at 1970: every file is younger.
        assert_eq!(scene.read(), "missed");
        scene.append("other.log", "skipped\n");
        scene.follow = Follow::new(&config(&scene.folder), &[], Some(kept));
        assert_eq!(scene.read(), "");
    }

    #[test]
    fn a_vanished_file_is_read_to_its_end_and_let_go() {
        let mut scene = Scene::new();
        scene.append("a.log", "");
        scene.read();
        scene.append("a.log", "last\n");
        fs::remove_file(scene.path("a.log")).unwrap();
        assert_eq!(scene.read(), "last");
        scene.now += ROTATED_IDLE_MS;
        scene.read();
        assert_eq!(scene.follow.files(), 0);
    }

    proptest::proptest! {
        #![proptest_config(proptest::test_runner::Config::with_cases(64))]
        /// Any order of writing, rotating, reading a part and restarting gives every line once.
        #[test]
        fn every_line_once(steps in proptest::collection::vec(0u8..6, 1..40)) {
            let mut scene = Scene::new();
            scene.append("a.log", "");
            scene.read();
            let (mut written, mut seen, mut rotations) = (0, Vec::new(), 0);
            for step in steps {
                match step {
                    0..=2 => {
                        written += 1;
                        scene.append("a.log", &format!("{written}-{}\n", opening("any")));
                    }
                    3 => {
                        rotations += 1;
                        fs::rename(scene.path("a.log"), scene.path(&format!("a.log.{rotations}"))).unwrap();
                        scene.append("a.log", "");
                        // More than one rotation between two looks cannot be followed by name.
                        seen.push(scene.read_at_most(1));
                    }
                    4 => seen.push(scene.read_at_most(1)),
                    _ => scene.restart(),
                }
            }
            seen.push(scene.read());
            let mut numbers: Vec<u32> = seen.join(" ").split_whitespace()
                .map(|line| line.split_once('-').unwrap().0.parse().unwrap()).collect();
            numbers.sort_unstable();
            proptest::prop_assert_eq!(numbers, (1..=written).collect::<Vec<u32>>());
        }
    }
}
