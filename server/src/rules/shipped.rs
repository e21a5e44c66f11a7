//! The rules that come with Petrel, compiled into the binary. `dashboards/rules` is their only source.

/// Name and text of every shipped rule file. The names stand where a user's files have their paths.
pub fn shipped() -> &'static [(&'static str, &'static str)] {
    &[
        ("shipped/checks.yaml", include_str!("../../../dashboards/rules/checks.yaml")),
        ("shipped/hosts.yaml", include_str!("../../../dashboards/rules/hosts.yaml")),
        ("shipped/clusters.yaml", include_str!("../../../dashboards/rules/clusters.yaml")),
        ("shipped/devices.yaml", include_str!("../../../dashboards/rules/devices.yaml")),
        ("shipped/predictions.yaml", include_str!("../../../dashboards/rules/predictions.yaml")),
        ("shipped/anomalies.yaml", include_str!("../../../dashboards/rules/anomalies.yaml")),
        ("shipped/precursors.yaml", include_str!("../../../dashboards/rules/precursors.yaml")),
        ("shipped/petrel.yaml", include_str!("../../../dashboards/rules/petrel.yaml")),
    ]
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use super::*;
    use crate::rules::{check, load};
    use crate::store::RefusedReason;

    #[test]
    fn every_reason_to_refuse_samples_raises_the_alert() {
        let (_, text) = shipped().iter().find(|(name, _)| name.ends_with("petrel.yaml")).unwrap();
        let (_, rule) = text.split_once("alert: PetrelSamplesRefused").unwrap();
        let (_, outcomes) = rule.split_once("outcome=~\"").unwrap();
        let outcomes: Vec<&str> = outcomes.split_once('"').unwrap().0.split('|').collect();
        for reason in RefusedReason::ALL {
            assert!(outcomes.contains(&reason.outcome()), "{reason:?} is not in the rule: {outcomes:?}");
        }
    }

    #[test]
    fn shipped_rules_load_without_a_remark() {
        for (name, text) in shipped() {
            assert_eq!(check(name.as_ref(), text), [], "{name}");
        }
        let files: Vec<_> = shipped().iter().map(|(name, text)| (PathBuf::from(name), (*text).to_owned())).collect();
        let set = load(&files).unwrap();
        for (_, rule) in set.rules() {
            let alert = rule.alert().unwrap();
            for wanted in ["summary", "description"] {
                assert!(alert.annotations.iter().any(|(name, _)| name == wanted), "{} has no {wanted}", rule.name);
            }
            assert!(alert.labels.iter().any(|(name, _)| name == "severity"), "{} has no severity", rule.name);
        }
    }
}
