//! The runbooks that come with Petrel, compiled into the binary. `dashboards/runbooks` is their only source. All are in shadow mode:
//! they record what they would do, and act on nothing until an operator copies and changes them.

/// Name and text of every shipped runbook file. The names stand where a user's files have their paths.
pub fn shipped() -> &'static [(&'static str, &'static str)] {
    &[
        ("shipped/drain-web-server.yaml", include_str!("../../../dashboards/runbooks/drain-web-server.yaml")),
        ("shipped/evacuate-full-host.yaml", include_str!("../../../dashboards/runbooks/evacuate-full-host.yaml")),
    ]
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use super::*;
    use crate::remedy::load::load;
    use crate::remedy::runbook::Mode;

    #[test]
    fn shipped_runbooks_load_and_only_watch() {
        let files: Vec<_> = shipped().iter().map(|(name, text)| (PathBuf::from(name), (*text).to_owned())).collect();
        let runbooks = load(&files).unwrap();
        assert_eq!(runbooks.len(), shipped().len());
        for runbook in runbooks {
            assert_eq!(runbook.mode, Mode::Shadow, "{}", runbook.name);
            assert!(!runbook.description.is_empty());
        }
    }
}
