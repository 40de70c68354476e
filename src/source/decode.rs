//! How does a value become a typed object? As protojson reads it, with the path of what is wrong or unknown.
//!
//! Fields may be written in snake case, whole numbers as text, enums by number; `null` is an absent field.

use std::cell::RefCell;
use std::fmt;

use serde::de::value::StrDeserializer;
use serde::de::{
    self, DeserializeOwned, DeserializeSeed, Deserializer, EnumAccess, IntoDeserializer, MapAccess, SeqAccess,
    VariantAccess, Visitor,
};
use serde_json::{Map, Value};

use super::yaml::camel_case;

/// A typed object, and the fields that its type does not have.
#[derive(Debug)]
pub(crate) struct Decoded<T> {
    pub value: T,
    pub unknown: Vec<Unknown>,
}

/// A field that a type does not have.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Unknown {
    pub path: String,
    /// The field of the type that is written almost like it.
    pub meant: Option<&'static str>,
}

impl Unknown {
    /// What to do about it: the field that was probably meant, or `otherwise`.
    pub(crate) fn hint(&self, otherwise: &str) -> String {
        self.meant.map_or_else(|| otherwise.to_owned(), |meant| format!("did you mean `{meant}`?"))
    }
}

/// Where a value does not fit its type, and why.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct DecodeError {
    pub path: String,
    pub message: String,
}

/// Reads `value` as a `T`; paths in the answer begin with `path`.
pub(crate) fn decode<T: DeserializeOwned>(value: &Value, path: &str) -> Result<Decoded<T>, DecodeError> {
    let trail = Trail { path: RefCell::new(path.to_owned()), failed: RefCell::default(), unknown: RefCell::default() };
    match T::deserialize(Cursor { value, trail: &trail }) {
        Ok(value) => Ok(Decoded { value, unknown: trail.unknown.into_inner() }),
        Err(Message(message)) => {
            Err(DecodeError { path: trail.failed.into_inner().unwrap_or_else(|| path.to_owned()), message })
        }
    }
}

/// Appends a key to a path, quoted where its text could be misread.
pub(crate) fn push_key(path: &mut String, key: &str) {
    if key.contains(['.', '[', ']']) || key.is_empty() {
        path.extend(["[\"", key, "\"]"]);
    } else {
        if !path.is_empty() {
            path.push('.');
        }
        path.push_str(key);
    }
}

/// The field that is written almost like `key`: at most two letters differ, or one in short names.
fn closest(key: &str, fields: &[&'static str]) -> Option<&'static str> {
    if key.len() > MAX_KEY {
        return None;
    }
    let key = camel_case(key).to_ascii_lowercase();
    let far = |field: &&'static str| (strsim::damerau_levenshtein(&key, &field.to_ascii_lowercase()), *field);
    let (distance, field) = fields.iter().map(far).min()?;
    let is_close = distance <= 1 || distance == 2 && (field.len() > 5 || key.starts_with(field));
    is_close.then_some(field)
}

/// No field of a type has a longer name.
const MAX_KEY: usize = 64;

/// What is remembered on the way through a value.
struct Trail {
    path: RefCell<String>,
    failed: RefCell<Option<String>>,
    unknown: RefCell<Vec<Unknown>>,
}

impl Trail {
    /// Runs `step` one level deeper; the deepest level that fails is the one that is remembered.
    fn step<R>(
        &self,
        extend: impl FnOnce(&mut String),
        step: impl FnOnce() -> Result<R, Message>,
    ) -> Result<R, Message> {
        let length = self.path.borrow().len();
        extend(&mut self.path.borrow_mut());
        let result = step();
        if result.is_err() && self.failed.borrow().is_none() {
            *self.failed.borrow_mut() = Some(self.path.borrow().clone());
        }
        self.path.borrow_mut().truncate(length);
        result
    }

    fn note_unknown(&self, key: &str, fields: &[&'static str]) {
        let mut path = self.path.borrow().clone();
        push_key(&mut path, key);
        self.unknown.borrow_mut().push(Unknown { path, meant: closest(key, fields) });
    }
}

#[derive(Debug)]
struct Message(String);

impl fmt::Display for Message {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for Message {}

impl de::Error for Message {
    fn custom<T: fmt::Display>(message: T) -> Self {
        Message(message.to_string())
    }
}

#[derive(Clone, Copy)]
struct Cursor<'a> {
    value: &'a Value,
    trail: &'a Trail,
}

impl Cursor<'_> {
    fn wrong(&self, wanted: &str) -> Message {
        let found = match self.value {
            Value::Null => "nothing".to_owned(),
            Value::Bool(value) => format!("the boolean {value}"),
            Value::Number(number) => format!("the number {number}"),
            Value::String(text) if text.len() <= 60 => format!("`{text}`"),
            Value::String(_) => "a long text".to_owned(),
            Value::Array(_) => "a list".to_owned(),
            Value::Object(_) => "a mapping".to_owned(),
        };
        Message(format!("{wanted} is expected here, not {found}"))
    }

    fn whole_number(&self) -> Result<i128, Message> {
        let number = match self.value {
            Value::Number(number) => number.as_i128().or_else(|| whole(number.as_f64()?)),
            Value::String(text) => text.parse().ok(),
            _ => None,
        };
        number.ok_or_else(|| self.wrong("a whole number"))
    }
}

fn whole(number: f64) -> Option<i128> {
    let fits = number.fract() == 0.0 && number.abs() < 9e15;
    // Exact: integers below 2^53 have a float each.
    fits.then_some(number as i128)
}

macro_rules! integers {
    ($($method:ident $visit:ident $type:ty),*) => { $(
        fn $method<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Message> {
            let number = <$type>::try_from(self.whole_number()?);
            visitor.$visit(number.map_err(|_| {
                self.wrong(&format!("a number from {} to {}", <$type>::MIN, <$type>::MAX))
            })?)
        }
    )* };
}

impl<'de> Deserializer<'de> for Cursor<'de> {
    type Error = Message;

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Message> {
        match self.value {
            Value::Null => visitor.visit_unit(),
            Value::Bool(value) => visitor.visit_bool(*value),
            Value::Number(number) => {
                if let Some(value) = number.as_u64() {
                    visitor.visit_u64(value)
                } else if let Some(value) = number.as_i64() {
                    visitor.visit_i64(value)
                } else {
                    visitor.visit_f64(number.as_f64().unwrap_or(f64::NAN))
                }
            }
            Value::String(text) => visitor.visit_borrowed_str(text),
            Value::Array(items) => visitor.visit_seq(Items { items: items.iter().enumerate(), trail: self.trail }),
            Value::Object(entries) => visitor.visit_map(Entries::all(entries, self.trail)),
        }
    }

    fn deserialize_bool<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Message> {
        match self.value {
            Value::Bool(value) => visitor.visit_bool(*value),
            _ => Err(self.wrong("true or false")),
        }
    }

    integers!(deserialize_i8 visit_i8 i8, deserialize_i16 visit_i16 i16, deserialize_i32 visit_i32 i32,
        deserialize_i64 visit_i64 i64, deserialize_u8 visit_u8 u8, deserialize_u16 visit_u16 u16,
        deserialize_u32 visit_u32 u32, deserialize_u64 visit_u64 u64);

    fn deserialize_f64<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Message> {
        let number = match self.value {
            Value::Number(number) => number.as_f64(),
            Value::String(text) => text.parse().ok(),
            _ => None,
        };
        visitor.visit_f64(number.ok_or_else(|| self.wrong("a number"))?)
    }

    fn deserialize_str<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Message> {
        match self.value {
            Value::String(text) => visitor.visit_borrowed_str(text),
            Value::Bool(_) | Value::Number(_) => Err(Message(format!("{}; put it in quotes", self.wrong("text").0))),
            _ => Err(self.wrong("text")),
        }
    }

    fn deserialize_string<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Message> {
        self.deserialize_str(visitor)
    }

    fn deserialize_identifier<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Message> {
        self.deserialize_str(visitor)
    }

    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Message> {
        if self.value.is_null() { visitor.visit_none() } else { visitor.visit_some(self) }
    }

    fn deserialize_seq<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Message> {
        match self.value {
            Value::Array(_) => self.deserialize_any(visitor),
            _ => Err(self.wrong("a list")),
        }
    }

    fn deserialize_map<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Message> {
        match self.value {
            Value::Object(_) => self.deserialize_any(visitor),
            _ => Err(self.wrong("a mapping")),
        }
    }

    fn deserialize_struct<V: Visitor<'de>>(
        self,
        _name: &'static str,
        fields: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Message> {
        match self.value {
            Value::Object(entries) => visitor.visit_map(Entries::fields(entries, fields, self.trail)),
            _ => Err(self.wrong("a mapping")),
        }
    }

    fn deserialize_enum<V: Visitor<'de>>(
        self,
        _name: &'static str,
        variants: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Message> {
        let variant = match self.value {
            Value::String(text) => variants.iter().find(|variant| **variant == text),
            Value::Number(number) => {
                number.as_u64().and_then(|n| usize::try_from(n).ok()).and_then(|n| variants.get(n))
            }
            _ => None,
        };
        match variant {
            Some(variant) => visitor.visit_enum(Word(variant)),
            None => Err(self.wrong(&format!("one of {}", variants.join(", ")))),
        }
    }

    serde::forward_to_deserialize_any! {
        f32 char bytes byte_buf unit unit_struct newtype_struct tuple tuple_struct ignored_any
    }
}

impl<'de> IntoDeserializer<'de, Message> for Cursor<'de> {
    type Deserializer = Self;

    fn into_deserializer(self) -> Self {
        self
    }
}

struct Items<'de> {
    items: std::iter::Enumerate<std::slice::Iter<'de, Value>>,
    trail: &'de Trail,
}

impl<'de> SeqAccess<'de> for Items<'de> {
    type Error = Message;

    fn next_element_seed<T: DeserializeSeed<'de>>(&mut self, seed: T) -> Result<Option<T::Value>, Message> {
        let Some((index, value)) = self.items.next() else { return Ok(None) };
        let trail = self.trail;
        let extend = |path: &mut String| path.push_str(&format!("[{index}]"));
        trail.step(extend, || seed.deserialize(Cursor { value, trail })).map(Some)
    }

    fn size_hint(&self) -> Option<usize> {
        Some(self.items.len())
    }
}

/// The entries of a mapping: as they are, or matched to the fields of a struct.
struct Entries<'de> {
    entries: serde_json::map::Iter<'de>,
    fields: Option<&'static [&'static str]>,
    current: Option<(&'de str, &'de Value)>,
    trail: &'de Trail,
}

impl<'de> Entries<'de> {
    fn all(entries: &'de Map<String, Value>, trail: &'de Trail) -> Self {
        Entries { entries: entries.iter(), fields: None, current: None, trail }
    }

    fn fields(entries: &'de Map<String, Value>, fields: &'static [&'static str], trail: &'de Trail) -> Self {
        Entries { entries: entries.iter(), fields: Some(fields), current: None, trail }
    }
}

impl<'de> MapAccess<'de> for Entries<'de> {
    type Error = Message;

    fn next_key_seed<K: DeserializeSeed<'de>>(&mut self, seed: K) -> Result<Option<K::Value>, Message> {
        loop {
            let Some((key, value)) = self.entries.next() else { return Ok(None) };
            let Some(fields) = self.fields else {
                self.current = Some((key, value));
                return seed.deserialize(StrDeserializer::<Message>::new(key)).map(Some);
            };
            let known = |name: &str| fields.iter().copied().find(|field| *field == name);
            let Some(field) = known(key).or_else(|| known(&camel_case(key))) else {
                self.trail.note_unknown(key, fields);
                continue;
            };
            if value.is_null() {
                continue;
            }
            self.current = Some((field, value));
            return seed.deserialize(StrDeserializer::<Message>::new(field)).map(Some);
        }
    }

    fn next_value_seed<T: DeserializeSeed<'de>>(&mut self, seed: T) -> Result<T::Value, Message> {
        let Some((key, value)) = self.current.take() else {
            return Err(Message("a value without a key".into()));
        };
        let trail = self.trail;
        trail.step(|path| push_key(path, key), || seed.deserialize(Cursor { value, trail }))
    }
}

struct Word(&'static str);

impl<'de> EnumAccess<'de> for Word {
    type Error = Message;
    type Variant = Unit;

    fn variant_seed<V: DeserializeSeed<'de>>(self, seed: V) -> Result<(V::Value, Unit), Message> {
        Ok((seed.deserialize(StrDeserializer::<Message>::new(self.0))?, Unit))
    }
}

/// All enums of the configuration are plain words.
struct Unit;

impl<'de> VariantAccess<'de> for Unit {
    type Error = Message;

    fn unit_variant(self) -> Result<(), Message> {
        Ok(())
    }

    fn newtype_variant_seed<T: DeserializeSeed<'de>>(self, _seed: T) -> Result<T::Value, Message> {
        Err(Message("a plain word is expected here".into()))
    }

    fn tuple_variant<V: Visitor<'de>>(self, _len: usize, _visitor: V) -> Result<V::Value, Message> {
        Err(Message("a plain word is expected here".into()))
    }

    fn struct_variant<V: Visitor<'de>>(
        self,
        _fields: &'static [&'static str],
        _visitor: V,
    ) -> Result<V::Value, Message> {
        Err(Message("a plain word is expected here".into()))
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::resource::networking::{DestinationRule, VirtualService};

    #[test]
    fn protojson_freedoms_are_taken() {
        let value = json!({"http": [{"match": [{"ignore_uri_case": true, "port": "80", "headers": {"x": null}}],
            "direct_response": {"status": 200.0}, "timeout": null}]});
        let decoded = decode::<VirtualService>(&value, "spec").unwrap();
        let entry = &decoded.value.http[0].matches[0];
        assert!(entry.ignore_uri_case && entry.port == 80 && entry.headers["x"].is_none());
        assert_eq!(decoded.value.http[0].direct_response.as_ref().unwrap().status, 200);
        assert!(decoded.unknown.is_empty());
        let rule = json!({"trafficPolicy": {"tls": {"mode": 1}}});
        assert!(decode::<DestinationRule>(&rule, "spec").is_ok());
    }

    #[test]
    fn a_misspelt_field_is_guessed() {
        let fields = ["match", "route", "corsPolicy", "mirrorPercentage"];
        for (key, meant) in [
            ("mach", Some("match")),
            ("CorsPolicy", Some("corsPolicy")),
            ("cors_polcy", Some("corsPolicy")),
            ("mirrorPercetnage", Some("mirrorPercentage")),
            ("rule", None),
            ("fault", None),
        ] {
            assert_eq!(closest(key, &fields), meant, "{key}");
        }
    }

    #[test]
    fn faults_have_their_path() {
        let unknown = decode::<VirtualService>(&json!({"http": [{"matches": []}], "x.y": 1}), "spec").unwrap().unknown;
        let told: Vec<_> = unknown.iter().map(|field| (field.path.as_str(), field.meant)).collect();
        assert_eq!(told, [("spec.http[0].matches", Some("match")), ("spec[\"x.y\"]", None)]);
        let error = decode::<VirtualService>(&json!({"http": [{"timeout": "5"}]}), "spec").unwrap_err();
        assert_eq!(error.path, "spec.http[0].timeout");
        let error = decode::<VirtualService>(&json!({"hosts": [true]}), "spec").unwrap_err();
        assert_eq!(error.path, "spec.hosts[0]");
        assert_eq!(error.message, "text is expected here, not the boolean true; put it in quotes");
    }
}
