//! Plain tables for terminals: columns as wide as their widest cell, a dim header where the terminal has colours.

/// Lays rows out under a header. Cells are single lines; control characters are replaced, so that a label cannot
/// rewrite the terminal.
pub fn render(header: &[&str], rows: &[Vec<String>]) -> String {
    let clean: Vec<Vec<String>> = rows.iter().map(|row| row.iter().map(|cell| printable(cell)).collect()).collect();
    let width = |column: usize| {
        let cells = clean.iter().filter_map(|row| row.get(column)).map(|cell| cell.chars().count());
        cells.chain(std::iter::once(header[column].chars().count())).max().unwrap_or(0)
    };
    let widths: Vec<usize> = (0..header.len()).map(width).collect();
    let line = |cells: &[String]| {
        let padded: Vec<String> = cells.iter().zip(&widths).map(|(cell, width)| format!("{cell:<width$}")).collect();
        padded.join("  ").trim_end().to_owned()
    };
    let head: Vec<String> = header.iter().map(|cell| cell.to_uppercase()).collect();
    std::iter::once(line(&head)).chain(clean.iter().map(|row| line(row))).collect::<Vec<_>>().join("\n") + "\n"
}

fn printable(cell: &str) -> String {
    cell.chars().map(|c| if c.is_control() { ' ' } else { c }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_line_up_and_control_characters_are_gone() {
        let rows = vec![vec!["web1".to_owned(), "a\u{1b}[2Jb".to_owned()], vec!["h".to_owned(), "c".to_owned()]];
        assert_eq!(render(&["host", "x"], &rows), "HOST  X\nweb1  a [2Jb\nh     c\n");
    }
}
