//! From the `severity` that rules of the world carry to the four levels. The user's label stays as it is.

/// The label that a rule may set to choose a level itself; it wins over `severity`.
pub const LEVEL_LABEL: &str = "petrel_level";

/// The level that a severity stands for, `None` for a word that the table does not have (it then counts as `warning`).
///
/// The table is that of DESIGN section 5.
pub fn level_of(severity: &str) -> Option<&'static str> {
    match severity.to_ascii_lowercase().as_str() {
        "emergency" => Some("emergency"),
        "page" | "critical" | "p1" | "error" | "high" => Some("critical"),
        "warning" | "p2" | "p3" => Some("warning"),
        "info" | "none" => Some("info"),
        _ => None,
    }
}
