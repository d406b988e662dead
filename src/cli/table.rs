//! Rows below a heading, for a terminal.

/// `rows` below `heading`, each column as wide as its widest cell. Cells are fit for a terminal.
pub(super) fn text<const N: usize>(heading: [&str; N], rows: &[[String; N]]) -> String {
    let heading = heading.map(str::to_owned);
    let mut widths = [0; N];
    for row in std::iter::once(&heading).chain(rows) {
        for (width, cell) in widths.iter_mut().zip(row) {
            *width = cell.chars().count().max(*width);
        }
    }
    let mut text = String::new();
    for row in std::iter::once(&heading).chain(rows) {
        let cells = row.iter().zip(&widths);
        let line: String = cells
            .map(|(cell, width)| format!("{cell:<width$}  "))
            .collect();
        text.push_str(line.trim_end());
        text.push('\n');
    }
    text
}

#[cfg(test)]
mod tests {
    #[test]
    fn columns_are_as_wide_as_their_widest_cell() {
        let rows = [["é".into(), "b".into()], ["long".into(), "-".into()]];
        assert_eq!(
            super::text(["A", "BB"], &rows),
            "A     BB\né     b\nlong  -\n"
        );
    }
}
