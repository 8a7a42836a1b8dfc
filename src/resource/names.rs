//! The names of a kind's arguments, other spellings included, as `serde` knows them.

use serde::de::{Deserialize, Deserializer, Visitor, value::Error};

/// The names that a struct's fields may have. Empty for what is no plain struct.
#[must_use]
pub fn of<'de, K: Deserialize<'de>>() -> &'static [&'static str] {
    let mut names: &'static [&'static str] = &[];
    drop(K::deserialize(Listen(&mut names)));
    names
}

/// Takes the list that a struct asks its deserializer for, and gives it nothing.
struct Listen<'a>(&'a mut &'static [&'static str]);

impl<'de> Deserializer<'de> for Listen<'_> {
    type Error = Error;

    fn deserialize_any<V: Visitor<'de>>(self, _: V) -> Result<V::Value, Error> {
        Err(serde::de::Error::custom("there is no value"))
    }

    fn deserialize_struct<V: Visitor<'de>>(self, _: &'static str, fields: &'static [&'static str], visitor: V) -> Result<V::Value, Error> {
        *self.0 = fields;
        self.deserialize_any(visitor)
    }

    serde::forward_to_deserialize_any! {
        bool i8 i16 i32 i64 i128 u8 u16 u32 u64 u128 f32 f64 char str string bytes byte_buf option unit
        unit_struct newtype_struct seq tuple tuple_struct map enum identifier ignored_any
    }
}

#[cfg(test)]
mod tests {
    #[test]
    fn other_spellings_are_listed() {
        let names = super::of::<crate::resource::sysctl::SysctlSpec>();
        for name in ["name", "key", "value", "val", "state"] {
            assert!(names.contains(&name), "{name}: {names:?}");
        }
    }
}
