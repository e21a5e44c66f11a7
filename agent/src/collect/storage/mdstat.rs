//! `/proc/mdstat`, parsed: each software RAID array in a few lines of prose. Reads and decides nothing; see `mdadm`.

/// One array.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Array<'a> {
    pub(super) name: &'a str,
    /// What it does: `active`, `inactive`, or one of the words of [`activity`].
    pub(super) state: &'a str,
    /// Disks that work and disks it should have; `None` where the line cannot be understood.
    pub(super) disks: Option<(u64, u64)>,
    pub(super) failed: usize,
    pub(super) spare: usize,
    pub(super) blocks: Option<u64>,
    pub(super) blocks_synced: Option<u64>,
}

/// Reads all arrays. What cannot be understood of one is left out, and the others stand.
pub(super) fn arrays(text: &str) -> Vec<Array<'_>> {
    let lines: Vec<&str> = text.lines().collect();
    let at = |number: usize| lines.get(number).copied().unwrap_or_default();
    let array = |number: usize| {
        // The line after next tells of work under way, or of the bitmap, and then the one below tells of work.
        let below = if at(number + 2).contains("bitmap") { 3 } else { 2 };
        parse(at(number), at(number + 1), at(number + below))
    };
    (0..lines.len()).filter_map(array).collect()
}

/// `md6 : active raid1 sdb2[2](F) sdc[1](S) sda2[0]`, `195310144 blocks [2/1] [U_]`, and perhaps
/// `[=>....]  recovery =  8.5% (16775552/195310144) finish=17.0min speed=259783K/sec`.
fn parse<'a>(head: &'a str, status: &'a str, work: &'a str) -> Option<Array<'a>> {
    let mut words = head.split_ascii_whitespace();
    let (name, colon, state) = (words.next()?, words.next()?, words.next()?);
    // An array's lines but the first are indented; the lines about all arrays are not of one.
    if head.starts_with([' ', '\t']) || colon != ":" || name == "Personalities" {
        return None;
    }
    let blocks = status.split_ascii_whitespace().next().and_then(|word| word.parse().ok());
    let doing = activity(work);
    let waits = || work.contains("PENDING") || work.contains("DELAYED");
    let blocks_synced = match doing {
        None => blocks,
        Some(_) if waits() => Some(0),
        Some(_) => synced(work),
    };
    Some(Array {
        name,
        state: doing.unwrap_or(state),
        disks: disks(head, status),
        failed: head.matches("(F)").count(),
        spare: head.matches("(S)").count(),
        blocks,
        blocks_synced,
    })
}

/// What an array is doing, if anything.
fn activity(work: &str) -> Option<&'static str> {
    let known = [("recovery", "recovering"), ("reshape", "reshaping"), ("check", "checking"), ("resync", "resyncing")];
    known.into_iter().find(|(word, _)| work.contains(word)).map(|(_, state)| state)
}

/// How many disks work, and how many there should be.
fn disks(head: &str, status: &str) -> Option<(u64, u64)> {
    // Without redundancy it is there with all its disks or not at all; each has its number in brackets.
    if head.contains("raid0") || head.contains("linear") {
        let count = head.matches('[').count() as u64;
        return Some((count, count));
    }
    if head.contains("inactive") {
        return Some((0, 0));
    }
    // `[4/3] [U_UU]`: the number it should have stands first.
    let counts = status.split('[').filter_map(|part| part.split_once(']')?.0.split_once('/'));
    let numbers = counts.map(|(required, active)| Some((active.parse().ok()?, required.parse().ok()?)));
    numbers.flatten().last()
}

/// Blocks done: the first number of `(16775552/195310144)`.
fn synced(work: &str) -> Option<u64> {
    work.split('(').find_map(|part| part.split_once(')')?.0.split_once('/')?.0.parse().ok())
}

#[cfg(test)]
mod tests {
    use expect_test::expect;
    use proptest::prelude::*;

    use super::super::super::trial;
    use super::*;

    const SAMPLE: &str = "Personalities : [raid1] [raid6] [raid0]\n\
md6 : active raid1 sdb2[2](F) sdc[1](S) sda2[0]
      195310144 blocks super 1.2 [2/1] [U_]
      [=>...................]  recovery =  8.5% (16775552/195310144) finish=17.0min speed=259783K/sec
      bitmap: 1/2 pages [4KB], 65536KB chunk

md7 : active raid6 sdb1[0] sde1[3] sdd1[2] sdc1[1]
      7813735424 blocks super 1.2 level 6, 512k chunk, algorithm 2 [4/4] [UUUU]
      bitmap: 0/30 pages [0KB], 65536KB chunk
      [>....]  reshape =  0.1% (14/7813735424) finish=1min speed=1K/sec

md9 : active (auto-read-only) raid1 sda2[0]
      523968 blocks [1/1] [U]
      resync=PENDING

md10 : active raid1 sda2[0] sdb2[1]
      523968 blocks [2/2] [UU]
      resync=REMOTE

md12 : active raid0 sdc2[0] sdd2[1]
      3886394368 blocks super 1.2 512k chunks

md13 : inactive sdb[2](S) sdc[1](S)
      7932 blocks super external:imsm

md14 : active raid1 sda[0]
      odd

unused devices: <none>
";

    #[test]
    fn arrays_at_work_and_at_rest() {
        let shown = arrays(SAMPLE).iter().map(|array| format!("{array:?}\n").replace("Array ", "")).collect::<Vec<_>>();
        expect![[r#"
            { name: "md6", state: "recovering", disks: Some((1, 2)), failed: 1, spare: 1, blocks: Some(195310144), blocks_synced: Some(16775552) }
            { name: "md7", state: "reshaping", disks: Some((4, 4)), failed: 0, spare: 0, blocks: Some(7813735424), blocks_synced: Some(14) }
            { name: "md9", state: "resyncing", disks: Some((1, 1)), failed: 0, spare: 0, blocks: Some(523968), blocks_synced: Some(0) }
            { name: "md10", state: "resyncing", disks: Some((2, 2)), failed: 0, spare: 0, blocks: Some(523968), blocks_synced: None }
            { name: "md12", state: "active", disks: Some((2, 2)), failed: 0, spare: 0, blocks: Some(3886394368), blocks_synced: Some(3886394368) }
            { name: "md13", state: "inactive", disks: Some((0, 0)), failed: 0, spare: 2, blocks: Some(7932), blocks_synced: Some(7932) }
            { name: "md14", state: "active", disks: None, failed: 0, spare: 0, blocks: None, blocks_synced: None }
        "#]]
        .assert_eq(&shown.concat());
    }

    proptest! {
        #![proptest_config(trial::few())]
        #[test]
        fn never_panics(bytes in trial::near(SAMPLE)) {
            let _ = arrays(&String::from_utf8_lossy(&bytes));
        }
    }
}
