//! From the paths of one host to a verdict: a table, so that what is believed when can be read in one place. A host is never
//! called dead for the silence of one path alone, nor while others see it alive on storage, nor before all were heard that could
//! vouch for it, nor after it said goodbye, nor while many fall silent at once: when in doubt, not dead.

use std::fmt;

use serde::{Deserialize, Serialize};

/// What the failure detector believes of a host.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Verdict {
    /// All that is expected from it arrives.
    Healthy,
    /// Something is missing; it may be failing, or only slow.
    Suspect,
    /// Alive by one path and silent on another: cut off from a part of the network, or from all of it.
    Isolated,
    /// Silent on every path, two at least, or one and seen to be switched off; and nothing speaks against it.
    Dead,
    /// Nothing can be said: never heard, stopped cleanly, the silence is more likely our own, or not all were heard yet.
    Unknown,
}

/// How a path stands now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PathState {
    /// Signs of life come as they used to.
    Beating,
    /// The next one is overdue.
    Late,
    /// It is so long overdue that the path counts as lost.
    Silent,
}

/// All that the verdict rests on. Paths that were never heard are not in it.
#[derive(Debug, Clone, Copy, Default)]
#[expect(clippy::struct_excessive_bools, reason = "each is a fact of its own, and the table goes through all of them")]
pub struct HostView<'a> {
    /// Heartbeat paths, by number.
    pub beats: &'a [(u8, PathState)],
    /// Whether batches arrive.
    pub stream: Option<PathState>,
    /// Whether other hosts see its record on shared storage change; `None` where nobody can tell now. What cannot be told is
    /// no silence: storage that hangs silences everybody. `Late` says nothing either.
    pub storage: Option<PathState>,
    /// Its BMC says that it is switched off. That it is switched on would be no sign of life.
    pub power_off: bool,
    /// The last thing heard was a goodbye.
    pub goodbye: bool,
    /// So many hosts fell silent together that the server's own network is the likelier cause.
    pub many_silent: bool,
    /// Something that could vouch for it was not heard yet: it is known for too short a time for all of its paths, or nobody was
    /// asked in time what `storage` and `power_off` say.
    pub is_incomplete: bool,
}

/// One reason of a verdict.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "is")]
pub enum Reason {
    /// No sign of life since the server started.
    NeverHeard,
    /// The agent was stopped on purpose.
    StoppedCleanly,
    /// A heartbeat path is overdue.
    BeatsLate {
        /// The path's number.
        path: u8,
    },
    /// A heartbeat path is lost.
    BeatsSilent {
        /// The path's number.
        path: u8,
    },
    /// Batches are overdue.
    StreamLate,
    /// Batches stopped.
    StreamSilent,
    /// Batches arrive all the same.
    StreamArrives,
    /// Other hosts see it alive on shared storage.
    AliveOnStorage,
    /// Other hosts see its record on shared storage stand still.
    SilentOnStorage,
    /// Its BMC says that it is switched off.
    PoweredOff,
    /// Only one path is known, and one is not enough to call a host dead.
    OnePathOnly,
    /// Many hosts fell silent at once.
    ManySilentAtOnce,
    /// It is known for too short a time, or what others say of it could not be had.
    NotAllHeard,
}

impl Verdict {
    /// All verdicts, in the order in which they are shown.
    pub const ALL: [Verdict; 5] =
        [Verdict::Healthy, Verdict::Suspect, Verdict::Isolated, Verdict::Dead, Verdict::Unknown];

    /// The word in metrics, pages and messages.
    pub fn as_str(self) -> &'static str {
        match self {
            Verdict::Healthy => "healthy",
            Verdict::Suspect => "suspect",
            Verdict::Isolated => "isolated",
            Verdict::Dead => "dead",
            Verdict::Unknown => "unknown",
        }
    }
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Reason::NeverHeard => f.write_str("no sign of life since the server started"),
            Reason::StoppedCleanly => f.write_str("the agent stopped cleanly"),
            Reason::BeatsLate { path } => write!(f, "heartbeats on path {path} are late"),
            Reason::BeatsSilent { path } => write!(f, "heartbeats on path {path} stopped"),
            Reason::StreamLate => f.write_str("batches are late"),
            Reason::StreamSilent => f.write_str("batches stopped"),
            Reason::StreamArrives => f.write_str("batches still arrive"),
            Reason::AliveOnStorage => f.write_str("other hosts see it alive on shared storage"),
            Reason::SilentOnStorage => f.write_str("other hosts see nothing of it on shared storage"),
            Reason::PoweredOff => f.write_str("its BMC says that it is switched off"),
            Reason::OnePathOnly => f.write_str("only one path is known, too little to call the host dead"),
            Reason::ManySilentAtOnce => {
                f.write_str("many hosts fell silent at once; the server's own network is the likelier cause")
            }
            Reason::NotAllHeard => f.write_str("not all that could vouch for it was heard yet"),
        }
    }
}

/// The verdict and its reasons, the same for the same view. Healthy with nothing to say has no reasons. O(paths).
pub fn judge(view: &HostView<'_>) -> (Verdict, Vec<Reason>) {
    if view.goodbye {
        return (Verdict::Unknown, vec![Reason::StoppedCleanly]);
    }
    let count = |state| view.beats.iter().filter(|(_, other)| *other == state).count();
    let (is_beating, silent) = (count(PathState::Beating) > 0, count(PathState::Silent));
    let is_arriving = view.stream == Some(PathState::Beating);
    let all_silent = silent == view.beats.len() && matches!(view.stream, None | Some(PathState::Silent));
    let is_on_storage = view.storage == Some(PathState::Beating);
    let is_off_storage = view.storage == Some(PathState::Silent);
    let paths = view.beats.len() + usize::from(view.stream.is_some()) + usize::from(is_off_storage);
    let is_known = !view.beats.is_empty() || view.stream.is_some();
    let mut reasons = reasons(view);
    let verdict = if !is_known {
        reasons.push(Reason::NeverHeard);
        Verdict::Unknown
    } else if all_silent && is_on_storage {
        Verdict::Isolated
    } else if all_silent && view.many_silent {
        // Our own network explains the silence, so that a BMC said to be off would be the only witness: it may be the wrong one.
        reasons.push(Reason::ManySilentAtOnce);
        Verdict::Unknown
    } else if all_silent && paths == 1 && !view.power_off {
        reasons.push(Reason::OnePathOnly);
        Verdict::Suspect
    } else if all_silent && view.is_incomplete {
        reasons.push(Reason::NotAllHeard);
        Verdict::Unknown
    } else if all_silent {
        Verdict::Dead
    } else if silent > 0 && (is_beating || is_arriving) {
        Verdict::Isolated
    } else if view.stream == Some(PathState::Silent) {
        Verdict::Suspect
    } else if is_beating || (view.beats.is_empty() && is_arriving) {
        // Beats on one path vouch for the host: what is late beside them is a lost datagram, or a busy server or agent.
        Verdict::Healthy
    } else {
        Verdict::Suspect
    };
    (verdict, reasons)
}

fn reasons(view: &HostView<'_>) -> Vec<Reason> {
    let mut reasons: Vec<Reason> = view
        .beats
        .iter()
        .filter_map(|(path, state)| match state {
            PathState::Beating => None,
            PathState::Late => Some(Reason::BeatsLate { path: *path }),
            PathState::Silent => Some(Reason::BeatsSilent { path: *path }),
        })
        .collect();
    match view.stream {
        Some(PathState::Late) => reasons.push(Reason::StreamLate),
        Some(PathState::Silent) => reasons.push(Reason::StreamSilent),
        Some(PathState::Beating) if !reasons.is_empty() => reasons.push(Reason::StreamArrives),
        Some(PathState::Beating) | None => {}
    }
    // Where the network says that it lives, nobody needs to be asked.
    if !reasons.is_empty() {
        match view.storage {
            Some(PathState::Beating) => reasons.push(Reason::AliveOnStorage),
            Some(PathState::Silent) => reasons.push(Reason::SilentOnStorage),
            Some(PathState::Late) | None => {}
        }
        if view.power_off {
            reasons.push(Reason::PoweredOff);
        }
    }
    reasons
}

#[cfg(test)]
mod tests {
    use super::*;
    use expect_test::expect;

    const STATES: [PathState; 3] = [PathState::Beating, PathState::Late, PathState::Silent];

    fn letter(state: PathState) -> char {
        match state {
            PathState::Beating => 'b',
            PathState::Late => 'l',
            PathState::Silent => 's',
        }
    }

    /// The whole table: heartbeat paths, then the stream; b beating, l late, s silent, - not there.
    #[test]
    fn the_truth_table() {
        let mut beats: Vec<Vec<PathState>> = vec![vec![]];
        beats.extend(STATES.map(|a| vec![a]));
        beats.extend(STATES.iter().enumerate().flat_map(|(i, a)| STATES[i..].iter().map(|b| vec![*a, *b])));
        let row = |paths: &Vec<PathState>| {
            let numbered: Vec<(u8, PathState)> = (0..).zip(paths.iter().copied()).collect();
            let cell = |stream: Option<PathState>| {
                let view = HostView { beats: &numbered, stream, ..HostView::default() };
                format!("{}:{}", stream.map_or('-', letter), judge(&view).0)
            };
            let beats = if paths.is_empty() { "-".to_owned() } else { paths.iter().copied().map(letter).collect() };
            let streams = [None, Some(PathState::Beating), Some(PathState::Late), Some(PathState::Silent)];
            std::iter::once(beats).chain(streams.map(cell)).collect::<Vec<_>>().join(" ")
        };
        let table = beats.iter().map(row).collect::<Vec<_>>().join("\n");
        expect![[r"
            - -:unknown b:healthy l:suspect s:suspect
            b -:healthy b:healthy l:healthy s:suspect
            l -:suspect b:suspect l:suspect s:suspect
            s -:suspect b:isolated l:suspect s:dead
            bb -:healthy b:healthy l:healthy s:suspect
            bl -:healthy b:healthy l:healthy s:suspect
            bs -:isolated b:isolated l:isolated s:isolated
            ll -:suspect b:suspect l:suspect s:suspect
            ls -:suspect b:isolated l:suspect s:suspect
            ss -:dead b:isolated l:suspect s:dead"]]
        .assert_eq(&table);
    }

    /// What others say changes of it: for one heartbeat path and the stream, then nothing or others alive or silent on
    /// storage, each without and with the power seen off; m where many are silent at once, i where not all was heard.
    #[test]
    fn the_truth_table_of_witnesses() {
        let mut rows = Vec::new();
        let (silent, beating) = (PathState::Silent, PathState::Beating);
        for (beats, stream, mark) in [
            (beating, Some(beating), ' '),
            (silent, Some(beating), ' '),
            (PathState::Late, Some(silent), ' '),
            (silent, Some(PathState::Late), ' '),
            (silent, None, ' '),
            (silent, None, 'm'),
            (silent, None, 'i'),
            (silent, Some(silent), ' '),
            (silent, Some(silent), 'm'),
            (silent, Some(silent), 'i'),
        ] {
            let beats = [(0, beats)];
            let (many_silent, is_incomplete) = (mark == 'm', mark == 'i');
            let cell = |storage: Option<PathState>| {
                let [unknown, off] = [false, true].map(|power_off| {
                    let view = HostView { beats: &beats, stream, storage, power_off, ..HostView::default() };
                    judge(&HostView { many_silent, is_incomplete, ..view }).0
                });
                format!("{}:{unknown}/{off}", storage.map_or('-', letter))
            };
            let cells = [None, Some(beating), Some(silent)].map(cell).join(" ");
            rows.push(format!("{}{}{mark} {cells}", letter(beats[0].1), stream.map_or('-', letter)));
        }
        expect![[r"
            bb  -:healthy/healthy b:healthy/healthy s:healthy/healthy
            sb  -:isolated/isolated b:isolated/isolated s:isolated/isolated
            ls  -:suspect/suspect b:suspect/suspect s:suspect/suspect
            sl  -:suspect/suspect b:suspect/suspect s:suspect/suspect
            s-  -:suspect/dead b:isolated/isolated s:dead/dead
            s-m -:unknown/unknown b:isolated/isolated s:unknown/unknown
            s-i -:suspect/unknown b:isolated/isolated s:unknown/unknown
            ss  -:dead/dead b:isolated/isolated s:dead/dead
            ssm -:unknown/unknown b:isolated/isolated s:unknown/unknown
            ssi -:unknown/unknown b:isolated/isolated s:unknown/unknown"]]
        .assert_eq(&rows.join("\n"));
    }

    /// All that there can be of two heartbeat paths and everything else: 4⁴ states of paths and 2⁴ answers.
    fn all_views() -> impl Iterator<Item = (Vec<(u8, PathState)>, HostView<'static>)> {
        let optional = [None, Some(PathState::Beating), Some(PathState::Late), Some(PathState::Silent)];
        (0..4usize.pow(4) * 16).map(move |number| {
            let pick = |place: u32| optional[number / 4usize.pow(place) % 4];
            let is = |place: usize| number / 256 / (1 << place) % 2 == 1;
            let beats = (0..2).filter_map(|path| Some((path, pick(u32::from(path))?))).collect();
            let (power_off, goodbye, many_silent, is_incomplete) = (is(0), is(1), is(2), is(3));
            let (stream, storage) = (pick(2), pick(3));
            (beats, HostView { beats: &[], stream, storage, power_off, goodbye, many_silent, is_incomplete })
        })
    }

    /// In the whole table, dead takes two independent witnesses, none that saw the host alive, and nothing that explains the
    /// silence; and each such view is dead.
    #[test]
    fn dead_is_only_what_nothing_speaks_against() {
        let mut dead = 0;
        for (beats, view) in all_views() {
            let view = HostView { beats: &beats, ..view };
            let network: Vec<PathState> = beats.iter().map(|(_, state)| *state).chain(view.stream).collect();
            let is_silent = !network.is_empty() && network.iter().all(|state| *state == PathState::Silent);
            let is_off_storage = view.storage == Some(PathState::Silent);
            let witnesses = network.len() + usize::from(is_off_storage) + usize::from(view.power_off);
            let doubt = view.goodbye
                || view.many_silent
                || view.is_incomplete
                || view.storage == Some(PathState::Beating)
                || witnesses < 2;
            let is_dead = judge(&view).0 == Verdict::Dead;
            assert_eq!(is_dead, is_silent && !doubt, "{view:?}");
            dead += usize::from(is_dead);
        }
        // 7 ways of one to three network paths, times 3 of storage without life, times 2 of power; less the 3 of one path that
        // nothing confirms, with storage late or unknown.
        assert_eq!(dead, 7 * 3 * 2 - 3 * 2);
    }

    /// In the whole table, goodbye outweighs all; healthy takes a sign of life, and so does isolated; every other verdict says why.
    #[test]
    fn each_verdict_rests_on_something() {
        for (beats, view) in all_views() {
            let view = HostView { beats: &beats, ..view };
            let (verdict, reasons) = judge(&view);
            if view.goodbye {
                assert_eq!((verdict, &reasons[..]), (Verdict::Unknown, &[Reason::StoppedCleanly][..]));
                continue;
            }
            let has = |state| beats.iter().map(|(_, state)| *state).chain(view.stream).any(|other| other == state);
            let (beating, silent) = (has(PathState::Beating), has(PathState::Silent));
            let on_storage = view.storage == Some(PathState::Beating);
            match verdict {
                Verdict::Healthy => assert!(beating && !silent, "{view:?}"),
                Verdict::Isolated => assert!(silent && (beating || on_storage), "{view:?}"),
                Verdict::Suspect | Verdict::Dead | Verdict::Unknown => assert!(!reasons.is_empty(), "{view:?}"),
            }
            let explained = |reason| reasons.contains(&reason);
            let is_said =
                explained(Reason::NeverHeard) || explained(Reason::ManySilentAtOnce) || explained(Reason::NotAllHeard);
            assert_eq!(verdict == Verdict::Unknown, is_said, "{view:?}: {reasons:?}");
        }
    }

    #[test]
    fn one_silent_path_never_makes_a_host_dead_and_neither_does_a_goodbye_or_a_wave() {
        let silent = [(0, PathState::Silent), (1, PathState::Silent)];
        let view = HostView { beats: &silent, stream: Some(PathState::Silent), ..HostView::default() };
        assert_eq!(judge(&view).0, Verdict::Dead);
        let text = |view: &HostView<'_>| {
            let (verdict, reasons) = judge(view);
            let reasons: Vec<String> = reasons.iter().map(ToString::to_string).collect();
            format!("{verdict}: {}", reasons.join("; "))
        };
        assert_eq!(text(&HostView { goodbye: true, ..view }), "unknown: the agent stopped cleanly");
        assert!(text(&HostView { many_silent: true, ..view }).starts_with("unknown: heartbeats on path 0 stopped; "));
        let one = HostView { beats: &silent[..1], ..HostView::default() };
        assert_eq!(
            text(&one),
            "suspect: heartbeats on path 0 stopped; only one path is known, too little to call the host dead"
        );
        assert_eq!(text(&HostView::default()), "unknown: no sign of life since the server started");
    }
}
