//! One object with all its parts, indented, for people: YAML that nobody has to parse.

use serde_json::Value;

/// A value as indented lines. Empty parts are left out.
pub fn render(value: &Value) -> String {
    let mut text = String::new();
    write_value(value, 0, &mut text);
    text
}

fn write_value(value: &Value, depth: usize, text: &mut String) {
    let indent = "  ".repeat(depth);
    match value {
        Value::Object(entries) => {
            for (key, value) in entries.iter().filter(|(_, value)| !is_empty(value)) {
                write_entry(&format!("{indent}{key}:"), value, depth + 1, text);
            }
        }
        Value::Array(items) => {
            for item in items {
                let mut part = String::new();
                write_value(item, depth + 1, &mut part);
                // The dash takes the place of the first line's last two spaces.
                text.push_str(&indent);
                text.push_str("- ");
                text.push_str(part.trim_start());
            }
        }
        scalar => *text += &format!("{indent}{}\n", scalar_text(scalar)),
    }
}

fn write_entry(key: &str, value: &Value, depth: usize, text: &mut String) {
    match value {
        Value::Object(_) => {
            *text += &format!("{key}\n");
            write_value(value, depth, text);
        }
        Value::Array(items) if items.iter().any(|item| item.is_object() || item.is_array()) => {
            *text += &format!("{key}\n");
            write_value(value, depth, text);
        }
        Value::Array(items) => {
            let items: Vec<String> = items.iter().map(scalar_text).collect();
            *text += &format!("{key} [{}]\n", items.join(", "));
        }
        scalar => *text += &format!("{key} {}\n", scalar_text(scalar)),
    }
}

fn is_empty(value: &Value) -> bool {
    match value {
        Value::Null => true,
        Value::String(text) => text.is_empty(),
        Value::Array(items) => items.is_empty(),
        Value::Object(entries) => entries.values().all(is_empty),
        Value::Bool(_) | Value::Number(_) => false,
    }
}

fn scalar_text(value: &Value) -> String {
    match value {
        Value::String(text) => text.replace(char::is_control, " "),
        other => other.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_are_indented_and_empty_ones_left_out() {
        let value = serde_json::json!({
            "id": "t1", "error": "", "list": ["a", "b"], "none": [],
            "spec": {"networks": [{"id": "app", "on": true}, {"id": "x\ny"}]}
        });
        assert_eq!(
            render(&value),
            "id: t1\nlist: [a, b]\nspec:\n  networks:\n    - id: app\n      on: true\n    - id: x y\n"
        );
    }
}
