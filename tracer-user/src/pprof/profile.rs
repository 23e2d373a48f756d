//! `profile.proto` in gzip, as `net/http/pprof` gives it without `debug`: unpacked and decoded within bounds.
//!
//! A message of two bytes becomes a structure of a hundred, so what a profile will take is added up over its bytes before it is decoded.
//! Source: the protobuf encoding specification; `proto/profile.proto` of google/pprof.

use std::io::Read;

use flate2::read::GzDecoder;
use pprof::protos::{Message, Profile};

use super::{AnswerError, MAX_UNPACKED};

/// Memory of a decoded profile, besides its bytes.
const MAX_MEMORY: usize = 256 << 20;
/// What the allocator adds to each piece.
const OVERHEAD: usize = 16;

/// Unpacks and decodes a profile that is sound so far: it says what its values are, and every sample has all of them.
pub fn decode(data: &[u8]) -> Result<Profile, AnswerError> {
    let bytes = unpack(data, MAX_UNPACKED)?;
    if memory(&bytes).ok_or(AnswerError::NoProfile)? > MAX_MEMORY {
        return Err(AnswerError::TooMany("samples, places and names"));
    }
    let profile = Profile::decode(&bytes[..]).map_err(|_| AnswerError::NoProfile)?;
    let values = profile.sample_type.len();
    let whole = profile.sample.iter().all(|sample| sample.value.len() == values);
    if values == 0 || !whole || profile.string_table.first().is_none_or(|first| !first.is_empty()) {
        return Err(AnswerError::NoProfile);
    }
    Ok(profile)
}

/// Undoes gzip, up to so many bytes.
pub fn unpack(data: &[u8], limit: usize) -> Result<Vec<u8>, AnswerError> {
    if !data.starts_with(&[0x1f, 0x8b]) {
        return Err(AnswerError::NoProfile);
    }
    let mut bytes = Vec::new();
    match GzDecoder::new(data).take(limit as u64 + 1).read_to_end(&mut bytes) {
        Ok(_) if bytes.len() > limit => Err(AnswerError::UnpacksTooFar),
        Ok(_) => Ok(bytes),
        Err(error) if error.kind() == std::io::ErrorKind::UnexpectedEof => Err(AnswerError::Cut),
        Err(_) => Err(AnswerError::NoProfile),
    }
}

/// What the decoded profile takes at most; `None`: this is none.
fn memory(bytes: &[u8]) -> Option<usize> {
    let mut sum = 0usize;
    for field in fields(bytes) {
        let (number, field) = field?;
        let Field::Bytes(inner) = field else {
            // A number of a repeated field that is not packed.
            sum = sum.saturating_add(16);
            continue;
        };
        // Lists of these grow by doubling, so each element counts twice. The sizes are those of the generated structures, rounded up.
        let grown = match number {
            2 => 2 * 72 + repeated(inner, &[(1, 8), (2, 8), (3, 32)])?,
            4 => 2 * 64 + repeated(inner, &[(4, 16)])?,
            6 => 2 * 24 + OVERHEAD + inner.len(),
            // Mappings, functions, and what there is once.
            3 | 5 => 2 * 64,
            // Comments, packed: a number for each byte.
            _ => 2 * 32 + 16 * inner.len(),
        };
        sum = sum.saturating_add(grown);
    }
    Some(sum)
}

/// What the lists of a message take: fields by number, with the size of an element.
fn repeated(message: &[u8], lists: &[(u64, usize)]) -> Option<usize> {
    let mut counts = [0usize; 4];
    for field in fields(message) {
        let (number, field) = field?;
        let Some(index) = lists.iter().position(|(list, _)| *list == number) else { continue };
        counts[index] += match field {
            // Packed numbers: each ends with a byte whose top bit is clear.
            Field::Bytes(packed) if lists[index].1 == 8 => packed.iter().filter(|byte| **byte < 0x80).count(),
            _ => 1,
        };
    }
    let takes = lists.iter().zip(counts).filter(|(_, count)| *count > 0);
    Some(takes.map(|((_, size), count)| OVERHEAD + size * count.next_power_of_two().max(4)).sum())
}

enum Field<'b> {
    Bytes(&'b [u8]),
    Number,
}

/// The fields of a message, by number; `None` ends them where the message makes no sense.
fn fields(bytes: &[u8]) -> impl Iterator<Item = Option<(u64, Field<'_>)>> {
    let mut rest = Some(bytes).filter(|bytes| !bytes.is_empty());
    std::iter::from_fn(move || {
        let bytes = rest.take()?;
        let Some((number, field, behind)) = field(bytes) else { return Some(None) };
        rest = Some(behind).filter(|behind| !behind.is_empty());
        Some(Some((number, field)))
    })
}

fn field(bytes: &[u8]) -> Option<(u64, Field<'_>, &[u8])> {
    let (tag, rest) = varint(bytes)?;
    let (field, rest) = match tag & 7 {
        0 => (Field::Number, varint(rest)?.1),
        1 => (Field::Number, rest.get(8..)?),
        2 => {
            let (len, rest) = varint(rest)?;
            let (inner, rest) = rest.split_at_checked(usize::try_from(len).ok()?)?;
            (Field::Bytes(inner), rest)
        }
        5 => (Field::Number, rest.get(4..)?),
        _ => return None,
    };
    Some((tag >> 3, field, rest))
}

fn varint(bytes: &[u8]) -> Option<(u64, &[u8])> {
    let mut value = 0u64;
    for (index, byte) in bytes.iter().take(10).enumerate() {
        value |= u64::from(byte & 0x7f) << (7 * index);
        if byte & 0x80 == 0 {
            return Some((value, &bytes[index + 1..]));
        }
    }
    None
}

#[cfg(test)]
pub(super) mod tests {
    use std::io::Write;

    use flate2::{Compression, write::GzEncoder};
    use pprof::protos::{Label, Sample, ValueType};

    use super::*;

    pub fn packed(bytes: &[u8]) -> Vec<u8> {
        let mut gzip = GzEncoder::new(Vec::new(), Compression::fast());
        gzip.write_all(bytes).unwrap();
        gzip.finish().unwrap()
    }

    fn small() -> Profile {
        Profile {
            sample_type: vec![ValueType { ty: 1, unit: 2 }],
            sample: vec![Sample {
                location_id: vec![300, 2],
                value: vec![-1],
                label: vec![Label { key: 1, str: 2, ..Label::default() }],
            }],
            string_table: vec![String::new(), "goroutine".to_owned(), "count".to_owned()],
            ..Profile::default()
        }
    }

    /// Check that a profile comes back as it was packed, and that one cut anywhere, or changed to nonsense, is refused.
    #[test]
    fn round_trip() {
        let data = packed(&small().encode_to_vec());
        assert_eq!(decode(&data).unwrap(), small());
        for end in 0..data.len() {
            assert!(matches!(decode(&data[..end]), Err(AnswerError::Cut | AnswerError::NoProfile)), "cut at {end}");
        }
        let without_values = Profile { sample: vec![Sample::default()], ..small() };
        for bytes in [b"".to_vec(), b"<html>".to_vec(), without_values.encode_to_vec()] {
            assert_eq!(decode(&packed(&bytes)), Err(AnswerError::NoProfile), "{bytes:?}");
        }
        assert_eq!(decode(b"<html>"), Err(AnswerError::NoProfile));
    }

    /// Check that what unpacks without end, or would fill the memory when decoded, is refused at the bounds.
    #[test]
    fn bombs() {
        let zeros = packed(&vec![0; 4 << 20]);
        assert!(zeros.len() < 64 << 10);
        assert_eq!(unpack(&zeros, 1 << 20), Err(AnswerError::UnpacksTooFar));
        let samples = packed(&[0x12, 0].repeat(4 << 20));
        assert_eq!(decode(&samples), Err(AnswerError::TooMany("samples, places and names")));
    }
}
