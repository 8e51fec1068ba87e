//! JSON that anybody may have written, read with bounds: how deep it is, how many values it has, which characters are in its texts.
//!
//! What is beyond a bound is passed over and noted, and does not fail what it stands in: serde_json gives up at 128 levels, and a list
//! of all services with it. Nothing is passed over by recursion, nor kept.

use std::fmt;

use serde::de::{DeserializeSeed, Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde_json::{Map, Number, Value};

/// Values at most, those in values included: an object of a megabyte and a half can be half a million of them, each many times as large in
/// memory as it is written. No handler's configuration and no template of pods comes near.
pub(super) const MAX_VALUES: usize = 20_000;
/// Levels at most, the outermost included. Workers read what they are to obey as YAML, whose reader gives up at 64, those around a
/// specification included.
pub(super) const MAX_LEVELS: usize = 60;
/// Of the place of what is wrong so many names are told, and so much of each.
const NAMED: usize = 4;
const MAX_NAME: usize = 64;
/// Keys that begin so mean something to serde_json itself, which would read a text below them as JSON without any of these bounds.
const RESERVED: &str = "$serde_json::";

/// What was read.
#[derive(Debug, Default)]
pub(super) struct Bounded {
    /// It, or null if something is wrong with it.
    pub(super) value: Value,
    /// The first thing that is.
    pub(super) fault: Option<Fault>,
}

/// What is wrong, and where.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Fault {
    what: What,
    /// From the inside to the outside.
    place: Vec<String>,
}

#[derive(Debug, PartialEq, Eq)]
enum What {
    Deep,
    Large,
    Character(char),
    Reserved,
}

impl Fault {
    /// The key of it below `root`.
    pub(super) fn key(&self, root: &str) -> String {
        // Of what is too large nobody knows which part is.
        if self.what == What::Large {
            return root.to_owned();
        }
        self.place.iter().rev().fold(root.to_owned(), |key, name| match name.starts_with('[') {
            true => key + name,
            false => key + "." + name,
        })
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.what {
            What::Deep => write!(f, "is nested too deeply: there are more than {MAX_LEVELS} levels"),
            What::Large => write!(f, "is too large: it has more than {MAX_VALUES} values"),
            What::Character(c) => {
                write!(f, "has the character U+{:04X}, which cannot be written into a cluster", u32::from(c))
            }
            What::Reserved => write!(f, "has a key that begins with {RESERVED:?}"),
        }
    }
}

/// Whether a character can stand in YAML, in which objects are applied: JSON escapes some of the others, and not all.
#[must_use]
pub fn is_printable(c: char) -> bool {
    matches!(c, '\t' | '\n' | '\r' | ' '..='~' | '\u{85}' | '\u{a0}'..='\u{fffd}' | '\u{10000}'..)
}

/// Reads what is applied to a cluster again: each character has to be one that can be.
pub(super) fn written<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Bounded, D::Error> {
    read(deserializer, true)
}

/// Reads what is looked at only.
pub(super) fn seen<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Bounded, D::Error> {
    read(deserializer, false)
}

fn read<'de, D: Deserializer<'de>>(deserializer: D, is_written: bool) -> Result<Bounded, D::Error> {
    let mut reading = Reading { is_written, values: 0, fault: None };
    let value = Part { reading: &mut reading, level: 1 }.deserialize(deserializer)?;
    Ok(Bounded { value: if reading.fault.is_none() { value } else { Value::Null }, fault: reading.fault })
}

struct Reading {
    is_written: bool,
    values: usize,
    fault: Option<Fault>,
}

impl Reading {
    fn note(&mut self, what: What) {
        self.fault = Some(Fault { what, place: Vec::new() });
    }

    fn check(&mut self, text: &str) {
        if let Some(c) = text.chars().find(|c| self.is_written && !is_printable(*c)) {
            self.note(What::Character(c));
        }
    }

    /// Notes that the fault is below a name. Says whether there is one.
    fn is_below(&mut self, level: usize, name: impl FnOnce() -> String) -> bool {
        let Some(fault) = &mut self.fault else { return false };
        if level <= NAMED {
            fault.place.push(name());
        }
        true
    }
}

/// The beginning of a key that may be anything.
fn shown(key: &str) -> String {
    key.chars().take(MAX_NAME).map(|c| if is_printable(c) { c } else { char::REPLACEMENT_CHARACTER }).collect()
}

struct Part<'a> {
    reading: &'a mut Reading,
    level: usize,
}

impl<'de> DeserializeSeed<'de> for Part<'_> {
    type Value = Value;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Value, D::Error> {
        self.reading.values += 1;
        if self.reading.values > MAX_VALUES {
            self.reading.note(What::Large);
            return deserializer.deserialize_ignored_any(IgnoredAny).map(|_| Value::Null);
        }
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Part<'_> {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("any JSON")
    }

    fn visit_bool<E>(self, value: bool) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_i64<E>(self, value: i64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_u64<E>(self, value: u64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_f64<E>(self, value: f64) -> Result<Value, E> {
        Ok(Number::from_f64(value).map_or(Value::Null, Value::Number))
    }

    fn visit_str<E>(self, text: &str) -> Result<Value, E> {
        self.reading.check(text);
        Ok(text.into())
    }

    fn visit_string<E>(self, text: String) -> Result<Value, E> {
        self.reading.check(&text);
        Ok(text.into())
    }

    fn visit_none<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_unit<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_some<D: Deserializer<'de>>(self, deserializer: D) -> Result<Value, D::Error> {
        deserializer.deserialize_any(self)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Value, A::Error> {
        let Self { reading, level } = self;
        let mut values = Vec::new();
        if level > MAX_LEVELS {
            reading.note(What::Deep);
        }
        while reading.fault.is_none() {
            match list.next_element_seed(Part { reading: &mut *reading, level: level + 1 })? {
                Some(value) => values.push(value),
                None => return Ok(Value::Array(values)),
            }
            reading.is_below(level, || format!("[{}]", values.len() - 1));
        }
        while list.next_element::<IgnoredAny>()?.is_some() {}
        Ok(Value::Null)
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Value, A::Error> {
        let Self { reading, level } = self;
        let mut values = Map::new();
        if level > MAX_LEVELS {
            reading.note(What::Deep);
        }
        while reading.fault.is_none() {
            let Some(key) = map.next_key::<String>()? else { return Ok(Value::Object(values)) };
            reading.check(&key);
            if key.starts_with(RESERVED) {
                reading.note(What::Reserved);
            }
            if reading.fault.is_some() {
                map.next_value::<IgnoredAny>()?;
                break;
            }
            let value = map.next_value_seed(Part { reading: &mut *reading, level: level + 1 })?;
            if !reading.is_below(level, || shown(&key)) {
                values.insert(key, value);
            }
        }
        while map.next_entry::<IgnoredAny, IgnoredAny>()?.is_some() {}
        Ok(Value::Null)
    }
}
