//! The table of `show stat`: CSV with a header, read by the names of its columns, because columns come and go between versions.

use super::RuntimeError;

/// The names of the columns.
///
/// # Errors
/// When the answer is no table.
pub fn columns(statistics: &str) -> Result<Vec<&str>, RuntimeError> {
    let header = statistics.lines().next().and_then(|line| line.strip_prefix("# "));
    Ok(header.ok_or_else(|| not_a_table("show stat"))?.split(',').collect())
}

/// Fields of a line of CSV: quoted where they hold a comma or a quote, which is doubled.
pub fn fields(line: &str) -> Vec<String> {
    let (mut fields, mut field, mut quoted) = (Vec::new(), String::new(), false);
    let mut letters = line.chars().peekable();
    while let Some(letter) = letters.next() {
        match letter {
            '"' if quoted && letters.peek() == Some(&'"') => {
                letters.next();
                field.push('"');
            }
            '"' => quoted = !quoted,
            ',' if !quoted => fields.push(std::mem::take(&mut field)),
            _ => field.push(letter),
        }
    }
    fields.push(field);
    fields
}

/// HAProxy refused the command, or it is not HAProxy.
pub fn not_a_table(command: &str) -> RuntimeError {
    RuntimeError::Unusable(format!("{command} did not give its table; is the socket's level at least operator?"))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn quoted_fields_are_one_field() {
        assert_eq!(fields(r#"a,"b, ""c""",,d"#), ["a", r#"b, "c""#, "", "d"]);
        assert!(columns("Permission denied\n").is_err());
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]
        #[test]
        fn never_panics(text in "(# |,|\"|.|\n){0,60}") {
            drop(columns(&text));
            fields(&text);
        }
    }
}
