//! How an error is told in one line: with all its causes. Each error's own text says only its own level, so everything that
//! is logged or answered goes through here.

use std::error::Error;
use std::fmt::Write;

/// An error with all its causes, outermost first, in one line.
pub fn chain(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        // Writing to a string cannot fail.
        let _ = write!(text, ": {error}");
        cause = error.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, thiserror::Error)]
    #[error("{0} failed")]
    struct Failed(&'static str, #[source] Option<Box<Failed>>);

    #[test]
    fn all_causes_are_told() {
        let error = Failed("the visit", Some(Box::new(Failed("the door", Some(Box::new(Failed("the lock", None)))))));
        assert_eq!(chain(&error), "the visit failed: the door failed: the lock failed");
        assert_eq!(chain(&Failed("it", None)), "it failed");
    }
}
