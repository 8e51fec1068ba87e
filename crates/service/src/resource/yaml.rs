//! JSON written as YAML that people can read.

use std::fmt::Write as _;

use serde_json::Value;

/// One document.
pub(super) fn document(value: &Value) -> String {
    let mut text = String::new();
    block(&mut text, value, 0);
    text
}

/// A value below its key: each entry on lines of its own.
fn block(text: &mut String, value: &Value, depth: usize) {
    match value {
        Value::Object(map) if !map.is_empty() => {
            for (key, value) in map {
                indent(text, depth);
                entry(text, key, value, depth);
            }
        }
        Value::Array(list) if !list.is_empty() => {
            for value in list {
                indent(text, depth);
                text.push('-');
                item(text, value, depth + 1);
            }
        }
        plain => {
            text.push_str(&scalar(plain));
            text.push('\n');
        }
    }
}

fn entry(text: &mut String, key: &str, value: &Value, depth: usize) {
    // Writing to a string does not fail.
    let _ = write!(text, "{}:", word(key));
    match value {
        Value::Object(map) if !map.is_empty() => {
            text.push('\n');
            block(text, value, depth + 1);
        }
        // A list is as deep as its key: it begins with its dashes.
        Value::Array(list) if !list.is_empty() => {
            text.push('\n');
            block(text, value, depth);
        }
        plain => {
            let _ = writeln!(text, " {}", scalar(plain));
        }
    }
}

/// What follows a dash: the first entry of a map on its line.
fn item(text: &mut String, value: &Value, depth: usize) {
    match value {
        Value::Object(map) if !map.is_empty() => {
            for (n, (key, value)) in map.iter().enumerate() {
                match n {
                    0 => text.push(' '),
                    _ => indent(text, depth),
                }
                entry(text, key, value, depth);
            }
        }
        Value::Array(list) if !list.is_empty() => {
            text.push('\n');
            block(text, value, depth);
        }
        plain => {
            let _ = writeln!(text, " {}", scalar(plain));
        }
    }
}

fn indent(text: &mut String, depth: usize) {
    text.extend(std::iter::repeat_n("  ", depth));
}

fn scalar(value: &Value) -> String {
    match value {
        Value::String(text) => word(text),
        // Kubernetes' bounds are of type double, whatever they bound.
        Value::Number(number) => number.to_string().trim_end_matches(".0").to_owned(),
        // Empty ones too: JSON is YAML.
        other => other.to_string(),
    }
}

/// A text as it stands, where nobody can take it for anything else, and quoted as in JSON where somebody could.
fn word(text: &str) -> String {
    let is_free = |b: u8| b.is_ascii_alphanumeric() || b" ./_(),;-".contains(&b);
    let is_text = text.starts_with(|c: char| c.is_ascii_alphabetic() || c == '/')
        && text.bytes().all(is_free)
        && !text.ends_with(' ');
    // What YAML 1.1 takes for something else.
    let words = ["true", "false", "null", "yes", "no", "on", "off", "y", "n"];
    let is_other = words.iter().any(|word| text.eq_ignore_ascii_case(word));
    if is_text && !is_other { text.to_owned() } else { Value::from(text).to_string() }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    #[test]
    fn it_looks_as_people_write_it() {
        let value = json!({
            "name": "a b", "none": {}, "empty": [], "on": true, "number": 3.0, "time": "3", "said": "so: it is",
            "list": [{ "a": 1, "b": { "c": [] } }, "x", ["y", { "z": null }], "no"],
        });
        let expected = "empty: []
list:
- a: 1
  b:
    c: []
- x
-
  - \"y\"
  - z: null
- \"no\"
name: a b
none: {}
number: 3
\"on\": true
said: \"so: it is\"
time: \"3\"
";
        assert_eq!(document(&value), expected);
    }

    fn value() -> impl Strategy<Value = Value> {
        let leaf = prop_oneof![
            Just(Value::Null),
            any::<bool>().prop_map(Value::from),
            any::<i64>().prop_map(Value::from),
            "[ -~]{0,12}".prop_map(Value::from),
            "(true|no|nan|1e3|0x1|null|~|y|/|a: b|a #b|- a|&a|\\*a|é\n|\\.inf)".prop_map(Value::from),
        ];
        leaf.prop_recursive(4, 32, 4, |inner| {
            prop_oneof![
                prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
                prop::collection::btree_map("[a-z./ :-]{0,8}|on|3", inner, 0..4)
                    .prop_map(|map| map.into_iter().collect::<serde_json::Map<_, _>>().into()),
            ]
        })
    }

    proptest! {
        #[test]
        fn what_is_written_is_read(value in value()) {
            let text = document(&value);
            prop_assert_eq!(serde_saphyr::from_str::<Value>(&text).map_err(|error| error.to_string()), Ok(value), "{}", text);
        }
    }
}
