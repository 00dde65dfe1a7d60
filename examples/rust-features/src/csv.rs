//! Tables as pandas writes them: RFC 4180 with a header, quotes where needed.

/// A table of texts; all rows have as many cells as the header.
pub struct Table {
    pub header: Vec<String>,
    pub rows: Vec<Vec<String>>,
}

impl Table {
    pub fn column(&self, name: &str) -> Option<usize> {
        self.header.iter().position(|h| h == name)
    }

    /// The position of a column that there must be.
    pub fn need(&self, name: &str) -> Result<usize, String> {
        self.column(name).ok_or_else(|| format!("the table has no column {name}"))
    }
}

pub fn parse(text: &str) -> Result<Table, String> {
    let mut records = Vec::new();
    let mut record = Vec::new();
    let mut cell = String::new();
    let (mut quoted, mut line) = (false, 1);
    let mut chars = text.chars().peekable();
    while let Some(c) = chars.next() {
        match c {
            '"' if quoted && chars.peek() == Some(&'"') => {
                chars.next();
                cell.push('"');
            }
            '"' if quoted || cell.is_empty() => quoted = !quoted,
            ',' if !quoted => record.push(std::mem::take(&mut cell)),
            '\r' if !quoted && chars.peek() == Some(&'\n') => {}
            '\n' if !quoted => {
                line += 1;
                end_record(&mut records, &mut record, &mut cell);
            }
            c => cell.push(c),
        }
    }
    if quoted {
        return Err(format!("a quote is not closed; {line} lines were read"));
    }
    end_record(&mut records, &mut record, &mut cell);
    let mut records = records.into_iter();
    let header: Vec<String> = records.next().ok_or("the table is empty")?;
    let rows: Vec<Vec<String>> = records.collect();
    if let Some(n) = rows.iter().position(|r| r.len() != header.len()) {
        let (want, got) = (header.len(), rows[n].len());
        return Err(format!("row {} has {got} cells, the header {want}", n + 1));
    }
    Ok(Table { header, rows })
}

/// Keeps a record; an empty line is none.
fn end_record(records: &mut Vec<Vec<String>>, record: &mut Vec<String>, cell: &mut String) {
    record.push(std::mem::take(cell));
    let record = std::mem::take(record);
    if record.len() > 1 || !record[0].is_empty() {
        records.push(record);
    }
}

/// What pandas reads as a missing value.
pub fn missing(cell: &str) -> bool {
    const NONE: [&str; 18] = [
        "", "#N/A", "#N/A N/A", "#NA", "-1.#IND", "-1.#QNAN", "-NaN", "-nan", "1.#IND", "1.#QNAN",
        "<NA>", "N/A", "NA", "NULL", "NaN", "None", "n/a", "nan",
    ];
    cell == "null" || NONE.contains(&cell)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_quotes_and_line_ends() {
        let table = parse("a,b\r\n\"x, \"\"y\"\"\n\",2\n\n3,\n").unwrap();
        assert_eq!(table.header, ["a", "b"]);
        assert_eq!(table.rows, [["x, \"y\"\n", "2"], ["3", ""]]);
    }

    #[test]
    fn refuses_what_is_no_table() {
        for text in ["", "a,b\n1\n", "a\n\"x"] {
            assert!(parse(text).is_err(), "{text:?}");
        }
    }
}
