//! `virsh domstats`, taken apart: one record of keys and values for each guest. What the keys mean is the reader's matter.

/// One guest's statistics, as text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Record<'a> {
    /// Its name on this host.
    pub name: &'a str,
    /// Keys and values, in virsh's order.
    pub values: Vec<(&'a str, &'a str)>,
}

impl<'a> Record<'a> {
    /// The value of a key. O(keys).
    pub fn get(&self, key: &str) -> Option<&'a str> {
        self.values.iter().find(|(known, _)| *known == key).map(|(_, value)| *value)
    }
}

/// Takes the answer apart.
///
/// # Errors
/// The line that should name a guest and does not.
pub fn records(text: &str) -> Result<Vec<Record<'_>>, String> {
    let mut records: Vec<Record<'_>> = Vec::new();
    for line in text.lines() {
        if let Some(quoted) = line.strip_prefix("Domain: ") {
            // A name may hold a quote; the ones around it are the outermost.
            let name = quoted.trim().strip_prefix('\'').and_then(|name| name.strip_suffix('\''));
            let name = name.ok_or_else(|| format!("`{quoted}` is no guest"))?;
            records.push(Record { name, values: Vec::with_capacity(48) });
        } else if let (Some(record), Some((key, value))) = (records.last_mut(), line.split_once('=')) {
            record.values.push((key.trim(), value.trim()));
        }
    }
    Ok(records)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn records_have_names_and_values() {
        let text = "Domain: 'it's'\n  state.state=1\n  block.0.path=/a=b\n\nDomain: 'b'\n";
        let all = records(text).unwrap();
        assert_eq!(
            (all.len(), all[0].name, all[0].get("block.0.path"), all[1].get("x")),
            (2, "it's", Some("/a=b"), None)
        );
        assert_eq!(records("Domain: x\n").unwrap_err(), "`x` is no guest");
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]
        #[test]
        fn never_panics(text in "(.|\n|Domain: |'|=){0,60}") {
            drop(records(&text));
        }
    }
}
