//! Where in a document a field stands, so that a refusal can name the line.

use std::fmt;

use serde::de::{Error, MapAccess, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer};
use serde_saphyr::Spanned;

use super::yaml_options;

/// Any YAML, with positions.
enum Tree {
    Scalar(String),
    List(Vec<Spanned<Self>>),
    Map(Vec<(Spanned<String>, Spanned<Self>)>),
}

struct TreeVisitor;

impl<'de> Visitor<'de> for TreeVisitor {
    type Value = Tree;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("any YAML")
    }
    fn visit_bool<E: Error>(self, value: bool) -> Result<Tree, E> {
        Ok(Tree::Scalar(value.to_string()))
    }
    fn visit_i64<E: Error>(self, value: i64) -> Result<Tree, E> {
        Ok(Tree::Scalar(value.to_string()))
    }
    fn visit_u64<E: Error>(self, value: u64) -> Result<Tree, E> {
        Ok(Tree::Scalar(value.to_string()))
    }
    fn visit_f64<E: Error>(self, value: f64) -> Result<Tree, E> {
        Ok(Tree::Scalar(value.to_string()))
    }
    fn visit_str<E: Error>(self, value: &str) -> Result<Tree, E> {
        Ok(Tree::Scalar(value.to_owned()))
    }
    fn visit_unit<E: Error>(self) -> Result<Tree, E> {
        Ok(Tree::Scalar(String::new()))
    }
    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Tree, A::Error> {
        let mut list = Vec::new();
        while let Some(item) = items.next_element()? {
            list.push(item);
        }
        Ok(Tree::List(list))
    }
    fn visit_map<A: MapAccess<'de>>(self, mut entries: A) -> Result<Tree, A::Error> {
        let mut map = Vec::new();
        while let Some(entry) = entries.next_entry()? {
            map.push(entry);
        }
        Ok(Tree::Map(map))
    }
}

impl<'de> Deserialize<'de> for Tree {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(TreeVisitor)
    }
}

impl Tree {
    fn get(&self, key: &str) -> Option<(u64, &Self)> {
        let Self::Map(entries) = self else {
            return None;
        };
        let (key, value) = entries.iter().find(|(name, _)| name.value == key)?;
        Some((key.referenced.line(), &value.value))
    }

    /// An element by its number, or by its `id`.
    fn element(&self, key: &str) -> Option<(u64, &Self)> {
        let Self::List(items) = self else {
            return self.get(key.trim_matches('"'));
        };
        let item = match key.strip_prefix('"').and_then(|key| key.strip_suffix('"')) {
            Some(id) => items.iter().find(
                |item| matches!(item.value.get("id"), Some((_, Self::Scalar(text))) if text == id),
            )?,
            None => items.get(key.parse::<usize>().ok()?)?,
        };
        Some((item.referenced.line(), &item.value))
    }
}

/// The line of a field such as `tasks["t1"].networks[0]`, or of the nearest thing around it that
/// the document has. None when there is nothing of it.
pub fn line_of(text: &str, field: &str) -> Option<u64> {
    let root: Tree = serde_saphyr::from_str_with_options(text, yaml_options()).ok()?;
    let mut place = &root;
    let mut line = None;
    let mut rest = field;
    while !rest.is_empty() {
        let (found, left) = if let Some(inner) = rest.strip_prefix('[') {
            let end = bracket_end(inner)?;
            (place.element(&inner[..end]), &inner[end + 1..])
        } else {
            let word = rest.strip_prefix('.').unwrap_or(rest);
            let end = word.find(['.', '[']).unwrap_or(word.len());
            (place.get(&word[..end]), &word[end..])
        };
        let Some((found_line, found)) = found else {
            break;
        };
        (line, place, rest) = (Some(found_line), found, left);
    }
    line
}

/// Where the bracket closes; brackets inside quotes do not count.
fn bracket_end(text: &str) -> Option<usize> {
    let mut in_quotes = false;
    text.char_indices().find_map(|(index, letter)| {
        in_quotes ^= letter == '"';
        (letter == ']' && !in_quotes).then_some(index)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn finds_the_line_or_the_one_around_it() {
        let text = "version: 1\n\
                    tasks:\n\
                    - id: a\n  \
                      slot: 3\n\
                    - id: \"b]\"\n  \
                      networks:\n  \
                      - networkId: app\n    \
                        addresses: [10.1.0.3/24]\n";
        for (field, line) in [
            ("version", Some(1)),
            ("tasks", Some(2)),
            ("tasks[\"a\"]", Some(3)),
            ("tasks[\"a\"].slot", Some(4)),
            ("tasks[\"b]\"].networks[0].addresses[0]", Some(8)),
            ("tasks[\"b]\"].networks[0].mac", Some(7)),
            ("tasks[1].networks[7]", Some(6)),
            ("services[\"web\"]", None),
            ("", None),
        ] {
            assert_eq!(line_of(text, field), line, "{field}");
        }
    }
}
