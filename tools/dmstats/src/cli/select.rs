// SPDX-License-Identifier: GPL-2.0

//! Selections of rows: `region_len>1m && (obj_type=region || stats_name=~^db)`.

use regex::bytes::Regex;

use super::fields;
use super::fields::Cell;
use super::fields::Field;
use super::fields::Kind;
use super::units;

/// What rows must be.
pub enum Selection {
    All,
    Any(Vec<Selection>),
    Every(Vec<Selection>),
    Not(Box<Selection>),
    Number(&'static Field, Compare, f64),
    Text(&'static Field, bool, Vec<u8>),
    Matches(&'static Field, bool, Regex),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Compare {
    Equal,
    Differs,
    AtLeast,
    Above,
    AtMost,
    Below,
}

/// Longer first, where one begins with another.
const OPERATORS: [&str; 8] = ["=~", "!~", "!=", ">=", "<=", "=", ">", "<"];

/// How deep parentheses may be.
const DEEPEST: usize = 100;

struct Parser<'a> {
    text: &'a str,
    depth: usize,
}

type Parsed = Result<Selection, String>;

impl Selection {
    /// Reads a selection.
    pub fn parse(text: &str) -> Result<Self, String> {
        if text.trim().is_empty() || text.trim() == "all" {
            return Ok(Selection::All);
        }
        let mut parser = Parser { text, depth: 0 };
        let parsed = parser.any().and_then(|selection| match parser.peek() {
            "" => Ok(selection),
            _ => Err("An operator is expected".into()),
        });
        parsed.map_err(|why| format!("{why}\nSelection syntax error at '{}'.\nUse 'help' for selection to get more help.", parser.text))
    }

    /// Whether a row is wanted; `cell` gives what stands in a field.
    pub fn wants(&self, cell: &dyn Fn(&'static Field) -> Cell) -> bool {
        match self {
            Selection::All => true,
            Selection::Any(all) => all.iter().any(|one| one.wants(cell)),
            Selection::Every(all) => all.iter().all(|one| one.wants(cell)),
            Selection::Not(one) => !one.wants(cell),
            Selection::Number(field, compare, wanted) => {
                let Some(value) = cell(field).number else {
                    return false;
                };
                match compare {
                    Compare::Equal => value == *wanted,
                    Compare::Differs => value != *wanted,
                    Compare::AtLeast => value >= *wanted,
                    Compare::Above => value > *wanted,
                    Compare::AtMost => value <= *wanted,
                    Compare::Below => value < *wanted,
                }
            }
            Selection::Text(field, equal, wanted) => (cell(field).text == *wanted) == *equal,
            Selection::Matches(field, yes, regex) => regex.is_match(&cell(field).text) == *yes,
        }
    }
}

impl<'a> Parser<'a> {
    fn peek(&mut self) -> &'a str {
        self.text = self.text.trim_start();
        self.text
    }

    fn take(&mut self, word: &str) -> bool {
        match self.peek().strip_prefix(word) {
            Some(rest) => {
                self.text = rest;
                true
            }
            None => false,
        }
    }

    fn any(&mut self) -> Parsed {
        let mut all = vec![self.every()?];
        while self.take("||") || self.take("#") {
            all.push(self.every()?);
        }
        Ok(Selection::Any(all))
    }

    fn every(&mut self) -> Parsed {
        let mut all = vec![self.one()?];
        while self.take("&&") || self.take(",") {
            all.push(self.one()?);
        }
        Ok(Selection::Every(all))
    }

    fn one(&mut self) -> Parsed {
        if self.take("!") {
            if !self.peek().starts_with('(') {
                return Err("Syntax error: left parenthesis expected".into());
            }
            return self.one().map(|one| Selection::Not(Box::new(one)));
        }
        if !self.take("(") {
            return self.comparison();
        }
        self.depth += 1;
        if self.depth > DEEPEST {
            return Err("Syntax error: too many parentheses".into());
        }
        let inner = self.any()?;
        self.depth -= 1;
        if !self.take(")") {
            return Err("Syntax error: right parenthesis expected".into());
        }
        Ok(inner)
    }

    fn comparison(&mut self) -> Parsed {
        let start = self.peek();
        let end = start
            .find(|c: char| !c.is_ascii_alphanumeric() && c != '_')
            .unwrap_or(start.len());
        if end == 0 {
            return Err("Expecting field name".into());
        }
        let name = &start[..end];
        let field =
            fields::find(name).ok_or_else(|| format!("Unrecognised selection field: {name}"))?;
        self.text = &start[end..];
        let operator = OPERATORS
            .iter()
            .find(|operator| self.take(operator))
            .ok_or("Unrecognised comparison operator")?;
        let (value, quoted) = self.value(operator.ends_with('~'))?;
        if operator.ends_with('~') {
            let regex = Regex::new(&value)
                .map_err(|_| format!("Failed to parse the regular expression {value}"))?;
            return Ok(Selection::Matches(field, *operator == "=~", regex));
        }
        let compare = match *operator {
            "=" => Compare::Equal,
            "!=" => Compare::Differs,
            ">=" => Compare::AtLeast,
            ">" => Compare::Above,
            "<=" => Compare::AtMost,
            _ => Compare::Below,
        };
        if field.kind == Kind::Text {
            return match compare {
                Compare::Equal | Compare::Differs => Ok(Selection::Text(
                    field,
                    compare == Compare::Equal,
                    value.into_bytes(),
                )),
                _ => Err(
                    "Operator can be used only with number, size, time or percent fields".into(),
                ),
            };
        }
        let number = match field.kind {
            Kind::Size => units::selected(&value),
            Kind::Percent => value.strip_suffix('%').unwrap_or(&value).parse().ok(),
            _ => value.parse().ok(),
        };
        let number = number.filter(|number: &f64| !quoted && number.is_finite() && *number >= 0.0);
        number
            .map(|number| Selection::Number(field, compare, number))
            .ok_or_else(|| {
                format!(
                    "Failed to parse numeric value for selection field {}.",
                    field.name
                )
            })
    }

    /// A value, and whether it was in quotes. A regular expression may have a single `&` or `|` and parentheses that
    /// are open; one with more must be in quotes.
    fn value(&mut self, regex: bool) -> Result<(String, bool), String> {
        let start = self.peek();
        if let Some(quote) = start.chars().next().filter(|c| matches!(c, '"' | '\'')) {
            let inner = &start[1..];
            let end = inner
                .find(quote)
                .ok_or("Failed to find the closing quote")?;
            self.text = &inner[end + 1..];
            return Ok((inner[..end].into(), true));
        }
        let ends = |c: char| {
            c.is_whitespace()
                || matches!(c, ',' | '#' | ')')
                || (!regex && matches!(c, '&' | '|' | '('))
        };
        let ends = [start.find(ends), start.find("&&"), start.find("||")];
        let end = ends.into_iter().flatten().min().unwrap_or(start.len());
        self.text = &start[end..];
        Ok((start[..end].into(), false))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn wants(text: &str) -> bool {
        let cell = |field: &'static Field| match field.name {
            "region_id" => Cell {
                text: b"3".to_vec(),
                number: Some(3.0),
            },
            "region_len" => Cell {
                text: b"1.50k".to_vec(),
                number: Some(1536.0),
            },
            "stats_name" => Cell {
                text: b"db 1".to_vec(),
                number: None,
            },
            _ => Cell {
                text: Vec::new(),
                number: None,
            },
        };
        Selection::parse(text)
            .unwrap_or_else(|error| panic!("{text}: {error}"))
            .wants(&cell)
    }

    #[test]
    fn rows_are_selected() {
        for text in [
            "",
            "all",
            "region_id=3",
            "regionid=3",
            "region_id>=3",
            "region_id!=4",
            "region_id<3.5",
            "region_len>1k",
            "region_len=3s",
            "region_len<1",
            "stats_name=\"db 1\"",
            "stats_name=~^db",
            "stats_name!~^d$",
            "!(region_id=4)",
            "region_id=4 || region_id=3",
            "region_id=4 # region_id=3",
            "region_id=3 && region_len>1k",
            "region_id=3,region_len>1k",
            "(region_id=4 || region_id=3) && !(stats_name=x)",
            "user_data=\"\"",
            "region_id=3 || region_id=4 && region_id=5",
            "(stats_name=~^db)",
            "(region_id=4 || (stats_name=~^db)) && region_id=3",
            "stats_name=~^db,region_id=3",
            "stats_name=~^x#region_id=3",
            "stats_name=~^x||stats_name=~^d&&region_id=3",
            "stats_name=~x|b && region_id=3",
            "stats_name!~d&b",
            "stats_name=~'^(d|x)b'",
        ] {
            assert!(wants(text), "{text}");
        }
        for text in [
            "region_id=4",
            "region_len>1k && region_id=4",
            "!(all_or_nothing=1)",
            "region_len>1",
            "stats_name=~^db&&region_id=4||region_id=5",
            "!(stats_name=~^db)",
        ] {
            assert!(!Selection::parse(text).is_ok_and(|_| wants(text)), "{text}");
        }
    }

    #[test]
    fn nonsense_is_refused_with_its_reason() {
        for (text, why) in [
            ("bogus=1", "Unrecognised selection field: bogus"),
            ("region_id=", "Failed to parse numeric value"),
            ("region_id=x", "Failed to parse numeric value"),
            ("region_id>-1", "Failed to parse numeric value"),
            ("region_id='1'", "Failed to parse numeric value"),
            ("region_id>1k", "Failed to parse numeric value"),
            ("region_id 1", "Unrecognised comparison operator"),
            ("(region_id=1", "right parenthesis expected"),
            ("!region_id=1", "left parenthesis expected"),
            ("region_id=1 &&", "Expecting field name"),
            ("region_id=1)", "An operator is expected"),
            ("stats_name>x", "only with number"),
            ("stats_name=~(", "regular expression"),
            ("stats_name=\"x", "closing quote"),
        ] {
            let error = Selection::parse(text).err().unwrap_or_default();
            assert!(error.contains(why), "{text}: {error}");
        }
        assert!(Selection::parse(&"(".repeat(1_000_000)).is_err());
    }

    proptest! {
        #[test]
        fn no_selection_is_too_strange(text in "(region_id|user_data|util|[!(])?[=~<>!|&#,)( \"'é0-9a-z%]{0,20}") {
            let _ = Selection::parse(&text);
        }
    }
}
