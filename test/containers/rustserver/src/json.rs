//! A reader of JSON (RFC 8259), without the crates that a FROM-scratch example
//! should not have to fetch.

use std::iter::Peekable;
use std::str::Chars;

const MAX_DEPTH: usize = 64;

#[derive(Debug, PartialEq)]
pub enum Value {
    Null,
    Bool(bool),
    Number(f64),
    Text(String),
    Array(Vec<Value>),
    Object(Vec<(String, Value)>),
}

impl Value {
    pub fn get(&self, name: &str) -> Option<&Value> {
        match self {
            Value::Object(members) => members.iter().find(|(n, _)| n == name).map(|(_, v)| v),
            _ => None,
        }
    }

    pub fn array(&self) -> Option<&Vec<Value>> {
        match self {
            Value::Array(items) => Some(items),
            _ => None,
        }
    }

    pub fn number(&self) -> Option<f64> {
        match self {
            Value::Number(number) => Some(*number),
            _ => None,
        }
    }
}

pub fn parse(text: &str) -> Result<Value, String> {
    let mut parser = Parser { rest: text.chars().peekable() };
    let value = parser.value(0)?;
    match parser.next_word() {
        None => Ok(value),
        Some(c) => Err(format!("{c:?} after the end")),
    }
}

struct Parser<'a> {
    rest: Peekable<Chars<'a>>,
}

impl Parser<'_> {
    /// Gives the next character that is no space, and leaves it there.
    fn next_word(&mut self) -> Option<char> {
        while self.rest.next_if(|c| " \t\r\n".contains(*c)).is_some() {}
        self.rest.peek().copied()
    }

    fn expect(&mut self, wanted: char) -> Result<(), String> {
        match self.next_word() {
            Some(c) if c == wanted => {
                self.rest.next();
                Ok(())
            }
            other => Err(format!("{other:?} where {wanted:?} should be")),
        }
    }

    fn value(&mut self, depth: usize) -> Result<Value, String> {
        if depth > MAX_DEPTH {
            return Err("too deep".to_string());
        }
        match self.next_word().ok_or("it ends early")? {
            '[' => {
                let mut items = Vec::new();
                self.list('[', ']', |p| {
                    items.push(p.value(depth + 1)?);
                    Ok(())
                })?;
                Ok(Value::Array(items))
            }
            '{' => {
                let mut members = Vec::new();
                self.list('{', '}', |p| {
                    p.next_word();
                    let name = p.text()?;
                    p.expect(':')?;
                    members.push((name, p.value(depth + 1)?));
                    Ok(())
                })?;
                Ok(Value::Object(members))
            }
            '"' => Ok(Value::Text(self.text()?)),
            _ => self.word(),
        }
    }

    fn list(
        &mut self,
        open: char,
        close: char,
        mut item: impl FnMut(&mut Self) -> Result<(), String>,
    ) -> Result<(), String> {
        self.expect(open)?;
        if self.next_word() == Some(close) {
            return self.expect(close);
        }
        loop {
            item(self)?;
            match self.next_word() {
                Some(',') => self.expect(',')?,
                _ => return self.expect(close),
            }
        }
    }

    fn word(&mut self) -> Result<Value, String> {
        let mut word = String::new();
        while let Some(c) = self.rest.next_if(|c| c.is_ascii_alphanumeric() || "+-.".contains(*c)) {
            word.push(c);
        }
        match word.as_str() {
            "null" => Ok(Value::Null),
            "true" => Ok(Value::Bool(true)),
            "false" => Ok(Value::Bool(false)),
            w if w.starts_with(|c: char| c == '-' || c.is_ascii_digit()) => {
                w.parse().map(Value::Number).map_err(|_| format!("{w:?} is no number"))
            }
            w => Err(format!("{w:?} is no value")),
        }
    }

    fn text(&mut self) -> Result<String, String> {
        self.expect('"')?;
        let mut out = String::new();
        loop {
            match self.rest.next().ok_or("a text without an end")? {
                '"' => return Ok(out),
                '\\' => out.push(self.escape()?),
                c if c < ' ' => return Err("a control character in a text".to_string()),
                c => out.push(c),
            }
        }
    }

    fn escape(&mut self) -> Result<char, String> {
        match self.rest.next().ok_or("a text without an end")? {
            'n' => Ok('\n'),
            't' => Ok('\t'),
            'r' => Ok('\r'),
            'b' => Ok('\u{8}'),
            'f' => Ok('\u{c}'),
            'u' => {
                let first = self.unit()?;
                if !(0xD800..0xDC00).contains(&first) {
                    return char::from_u32(first).ok_or("half a surrogate pair".to_string());
                }
                if self.rest.next() != Some('\\') || self.rest.next() != Some('u') {
                    return Err("half a surrogate pair".to_string());
                }
                let second = self.unit()?;
                if !(0xDC00..0xE000).contains(&second) {
                    return Err("half a surrogate pair".to_string());
                }
                char::from_u32(0x10000 + ((first - 0xD800) << 10) + (second - 0xDC00))
                    .ok_or("half a surrogate pair".to_string())
            }
            c @ ('"' | '\\' | '/') => Ok(c),
            c => Err(format!("\\{c} is no escape")),
        }
    }

    fn unit(&mut self) -> Result<u32, String> {
        let mut unit = 0;
        for _ in 0..4 {
            let digit = self.rest.next().and_then(|c| c.to_digit(16));
            unit = unit << 4 | digit.ok_or("\\u without four digits")?;
        }
        Ok(unit)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_what_json_is() {
        let value = parse(r#" {"instances": [[1, -2.5e1], []], "a\u00e9\ud83d\ude00\n": null, "t": [true, "x"]} "#).unwrap();
        let rows = value.get("instances").unwrap().array().unwrap();
        assert_eq!(rows[0].array().unwrap()[1].number(), Some(-25.0));
        assert_eq!(value.get("aé😀\n"), Some(&Value::Null));
    }

    #[test]
    fn refuses_what_json_is_not() {
        let deep = "[".repeat(1000);
        for text in [
            "",
            "[1,]",
            "{1: 2}",
            "[1] x",
            "\"",
            "nan",
            "inf",
            r#""\ud800""#,
            r#""\ud800\u0041""#,
            "--1",
            &deep,
        ] {
            assert!(parse(text).is_err(), "{text}");
        }
    }
}
