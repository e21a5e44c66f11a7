//! Protocol buffers as they lie in the body: fields are found, not copied. For the messages that come a million times a second;
//! all others use generated types.

/// What a field holds.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Value<'a> {
    /// Integers and booleans.
    Varint(u64),
    /// Doubles, and integers of fixed size.
    Fixed64(u64),
    /// Text, bytes, messages, packed numbers.
    Bytes(&'a [u8]),
    /// Floats, and integers of fixed size.
    Fixed32(u32),
}

/// The bytes are no protocol buffer message.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a protocol buffer field ends early or has an unknown type")]
pub struct MalformedError;

/// The fields of one message, in their order.
#[derive(Debug, Clone)]
pub struct Fields<'a>(pub &'a [u8]);

/// Numbers of fields are below this, and 0 is none.
const FIELD_NUMBERS: u32 = 1 << 29;

impl<'a> Fields<'a> {
    /// The next field's number and value; `None` at the end.
    ///
    /// # Errors
    /// What follows is no field.
    pub fn take(&mut self) -> Result<Option<(u32, Value<'a>)>, MalformedError> {
        if self.0.is_empty() {
            return Ok(None);
        }
        let key = self.varint()?;
        let number = u32::try_from(key >> 3).map_err(|_| MalformedError)?;
        if !(1..FIELD_NUMBERS).contains(&number) {
            return Err(MalformedError);
        }
        let value = match key & 7 {
            0 => Value::Varint(self.varint()?),
            1 => Value::Fixed64(u64::from_le_bytes(self.array()?)),
            2 => {
                let length = usize::try_from(self.varint()?).map_err(|_| MalformedError)?;
                let (bytes, rest) = self.0.split_at_checked(length).ok_or(MalformedError)?;
                self.0 = rest;
                Value::Bytes(bytes)
            }
            5 => Value::Fixed32(u32::from_le_bytes(self.array()?)),
            _ => return Err(MalformedError),
        };
        Ok(Some((number, value)))
    }

    /// A plain varint, as in packed fields.
    ///
    /// # Errors
    /// It ends early or is longer than 64 bits need.
    pub fn varint(&mut self) -> Result<u64, MalformedError> {
        let mut value = 0u64;
        for shift in (0..64).step_by(7) {
            let (&byte, rest) = self.0.split_first().ok_or(MalformedError)?;
            self.0 = rest;
            value |= u64::from(byte & 0x7f) << shift;
            if byte < 0x80 {
                return Ok(value);
            }
        }
        Err(MalformedError)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], MalformedError> {
        let (bytes, rest) = self.0.split_first_chunk::<N>().ok_or(MalformedError)?;
        self.0 = rest;
        Ok(*bytes)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn all(bytes: &[u8]) -> Result<Vec<(u32, Value<'_>)>, MalformedError> {
        let mut fields = Fields(bytes);
        let mut found = Vec::new();
        while let Some(field) = fields.take()? {
            found.push(field);
        }
        Ok(found)
    }

    #[test]
    fn fields_of_every_type_are_found() {
        let bytes = b"\x08\x96\x01\x12\x02hi\x19\x00\x00\x00\x00\x00\x00\xf0\x3f\x25\x01\x00\x00\x00";
        let expected = [
            (1, Value::Varint(150)),
            (2, Value::Bytes(b"hi")),
            (3, Value::Fixed64(1.0f64.to_bits())),
            (4, Value::Fixed32(1)),
        ];
        assert_eq!(all(bytes).unwrap(), expected);
        for wrong in [
            &b"\x08"[..],
            b"\0\0",
            b"\x80\x80\x80\x80\x10\x01",
            b"\x12\x05hi",
            b"\x19\x00",
            b"\x0b",
            b"\x08\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01",
        ] {
            assert_eq!(all(wrong), Err(MalformedError), "{wrong:x?}");
        }
    }

    proptest! {
        #[test]
        fn any_bytes_are_read_or_refused(bytes in prop::collection::vec(any::<u8>(), 0..60)) {
            let _ = all(&bytes);
        }
    }
}
