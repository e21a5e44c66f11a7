//! Which lines belong together: a stack trace is one record. Pure: the lines of one writer in, yes or no out.
//!
//! Continuations are indented lines, and what Java, Python and Go write unindented in the middle of a trace. When in doubt a
//! line stands alone: two halves of a trace are a nuisance, two events in one record hide the second.

/// What kind of trace the record at hand is in.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) enum Trace {
    /// None, or one whose lines are all indented.
    #[default]
    Plain,
    /// Python's, before the line that names the exception.
    Python,
    /// Python's, after that line: another may follow.
    PythonEnd,
    /// Go's goroutines.
    Go,
}

/// Begins a record with its first line.
pub(super) fn begin(line: &[u8]) -> Trace {
    if line.starts_with(PYTHON) {
        Trace::Python
    } else if line.starts_with(b"panic: ") || line.starts_with(b"fatal error: ") || line.starts_with(b"goroutine ") {
        Trace::Go
    } else {
        Trace::Plain
    }
}

const PYTHON: &[u8] = b"Traceback (most recent call last):";

/// Whether a line that begins so can go on with a record that is in no trace: a look at one byte, for almost all lines.
pub(super) fn may_continue(first: u8) -> bool {
    matches!(first, b' ' | b'\t' | b'C' | b'S' | b'T') || first.is_ascii_lowercase()
}

/// Whether `line` goes on with the record; keeps `trace` up to date if so.
pub(super) fn continues(trace: &mut Trace, line: &[u8]) -> bool {
    let line = line.strip_suffix(b"\r").unwrap_or(line);
    let Some(first) = line.first() else { return *trace != Trace::Plain };
    if matches!(first, b' ' | b'\t') {
        return line.iter().any(|byte| !byte.is_ascii_whitespace());
    }
    match *trace {
        Trace::Python => {
            // The first line that is not indented names the exception.
            let is_end = is_exception(line);
            *trace = if is_end { Trace::PythonEnd } else { Trace::Plain };
            is_end
        }
        Trace::PythonEnd if is_python_link(line) => true,
        Trace::Go if is_go(line) => true,
        _ if line.starts_with(PYTHON) => {
            *trace = Trace::Python;
            true
        }
        _ if line.starts_with(b"goroutine ") && line.ends_with(b"]:") => {
            *trace = Trace::Go;
            true
        }
        _ => is_java(line),
    }
}

/// Between two Python exceptions, of which one led to the other.
fn is_python_link(line: &[u8]) -> bool {
    line.starts_with(b"During handling of the above exception")
        || line.starts_with(b"The above exception was the direct cause")
}

/// `Caused by: …`, `Suppressed: …`, and the class that a logger puts on a line of its own below its message.
fn is_java(line: &[u8]) -> bool {
    match line.first() {
        Some(b'C') => line.starts_with(b"Caused by: "),
        Some(b'S') => line.starts_with(b"Suppressed: "),
        Some(first) if first.is_ascii_lowercase() => line.contains(&b'.') && is_exception(line),
        _ => false,
    }
}

/// `java.lang.IllegalStateException: text`, `ValueError: text`, `KeyboardInterrupt`: a name of dotted words, then nothing or
/// a colon. In lower case it must say that it is one.
fn is_exception(line: &[u8]) -> bool {
    let name = line.split(|byte| *byte == b':').next().unwrap_or(line);
    let is_name = !name.is_empty()
        && name.len() <= NAME_BYTES_MAX
        && name.iter().all(|byte| byte.is_ascii_alphanumeric() || b"._$".contains(byte));
    let last = name.rsplit(|byte| *byte == b'.').next().unwrap_or(name);
    let says_so = [&b"Exception"[..], b"Error", b"Throwable", b"Warning", b"Exit", b"Interrupt"]
        .iter()
        .any(|end| last.ends_with(end));
    is_name && (says_so || (last.len() < name.len() && last.first().is_some_and(u8::is_ascii_uppercase)))
}

/// Longest name of an exception's class that is looked at.
const NAME_BYTES_MAX: usize = 160;

/// `goroutine 1 [running]:`, `main.main()`, `created by …`, `[signal SIGSEGV …]`, `exit status 2`.
fn is_go(line: &[u8]) -> bool {
    let is_call = line.ends_with(b")") && line.contains(&b'(') && !line.contains(&b' ');
    is_call
        || [&b"goroutine "[..], b"created by ", b"[signal ", b"exit status ", b"main.", b"runtime."]
            .iter()
            .any(|begin| line.starts_with(begin))
        // Arguments may have spaces: `main.f({0x1, 0x2}, 0x3)`.
        || (line.ends_with(b")") && line.iter().take_while(|byte| **byte != b'(').all(u8::is_ascii_graphic))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Records by an empty count: how many lines each has.
    fn records(text: &str) -> Vec<usize> {
        let (mut found, mut trace) = (Vec::new(), Trace::Plain);
        for line in text.lines() {
            match found.last_mut() {
                Some(lines) if continues(&mut trace, line.as_bytes()) => *lines += 1,
                _ => {
                    trace = begin(line.as_bytes());
                    found.push(1);
                }
            }
        }
        found
    }

    #[test]
    fn java() {
        let text = "\
2026-11-22 12:00:00 ERROR [main] o.o.e.Backend - cannot run command
java.lang.IllegalStateException: no such host
\tat org.ovirt.engine.Backend.run(Backend.java:12)
\t... 3 more
Caused by: java.net.ConnectException: Connection refused (Connection refused)
\tat java.net.PlainSocketImpl.socketConnect(Native Method)
2026-11-22 12:00:01 INFO [main] next
Exception in thread \"main\" java.lang.NullPointerException
\tat Main.main(Main.java:3)";
        assert_eq!(records(text), [6, 1, 2]);
    }

    #[test]
    fn python() {
        let text = "\
2026-11-22 12:00:00.000 ERROR nova.compute.manager failed
Traceback (most recent call last):
  File \"/usr/lib/python3/dist-packages/nova/x.py\", line 12, in f
    return g()
libvirt.libvirtError: internal error: monitor socket did not show up

During handling of the above exception, another exception occurred:

Traceback (most recent call last):
  File \"x.py\", line 1, in <module>
ValueError: bad
2026-11-22 12:00:01 INFO next
Traceback (most recent call last):
  File \"x.py\", line 1, in <module>
KeyboardInterrupt
plain line";
        // What a logger writes before a trace belongs to it.
        assert_eq!(records(text), [11, 4, 1]);
    }

    #[test]
    fn go() {
        let text = "\
panic: runtime error: invalid memory address or nil pointer dereference
[signal SIGSEGV: segmentation violation code=0x1 addr=0x0 pc=0x48b1c2]

goroutine 1 [running]:
main.(*Server).run(0x0, {0xc000012345, 0x5})
\t/src/main.go:12 +0x12
created by main.main in goroutine 1
\t/src/main.go:9 +0x25
exit status 2
2026/11/22 12:00:01 started";
        assert_eq!(records(text), [9, 1]);
    }

    #[test]
    fn lines_that_stand_alone() {
        assert_eq!(records("a\n\nb\nmain.c: error\nx.y: fine\nat noon\nCaused delays\n \t\nTraceback"), [1; 9]);
    }

    proptest::proptest! {
        #[test]
        fn never_panics(lines in proptest::collection::vec("[ \\t]{0,1}(Traceback \\(most recent call last\\):|panic: |goroutine 1 \\[x\\]:|Caused by: |a.bError|\\PC{0,9})", 0..9)) {
            records(&lines.join("\n"));
        }
    }
}
