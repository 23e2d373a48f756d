//! One batch in one file: a head that says what it is, and the request as it goes over the wire.
//!
//! ```text
//! "LTOTLP1\n"  signal u8  number u64  length u32  crc32 u32  request …        (little endian)
//! ```
//! The checksum is that of all but itself. Files are ours, but disks and people do things to them: whatever is read is checked.

use super::super::batch::{Batch, Signal};

const MAGIC: &[u8; 8] = b"LTOTLP1\n";
const HEAD: usize = 8 + 1 + 8 + 4 + 4;
/// A request that is larger was not made here.
pub const MAX_REQUEST: usize = 16 << 20;
/// The same with its head.
pub const MAX_FILE: u64 = (MAX_REQUEST + HEAD) as u64;

/// Bytes of the file of a request.
pub fn size(request: &[u8]) -> u64 {
    (HEAD + request.len()) as u64
}

/// What a file holds.
pub fn pack(batch: &Batch) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(HEAD + batch.request.len());
    bytes.extend_from_slice(MAGIC);
    bytes.push(batch.signal as u8);
    bytes.extend_from_slice(&batch.number.to_le_bytes());
    bytes.extend_from_slice(&u32::try_from(batch.request.len()).unwrap_or(u32::MAX).to_le_bytes());
    let checksum = checksum(&bytes, &batch.request);
    bytes.extend_from_slice(&checksum.to_le_bytes());
    bytes.extend_from_slice(&batch.request);
    bytes
}

/// The batch in it; `None`: it is torn, or something else.
pub fn unpack(bytes: &[u8]) -> Option<Batch> {
    let (head, request) = bytes.split_at_checked(HEAD)?;
    let (said, of) = head.split_at_checked(HEAD - 4)?;
    let of = u32::from_le_bytes(of.try_into().ok()?);
    let length = u32::from_le_bytes(said.get(17..21)?.try_into().ok()?);
    if said.get(..8)? != MAGIC || length as usize != request.len() || of != checksum(said, request) {
        return None;
    }
    let signal = Signal::ALL.get(usize::from(*said.get(8)?)).copied()?;
    let number = u64::from_le_bytes(said.get(9..17)?.try_into().ok()?);
    Some(Batch { number, signal, request: request.to_vec() })
}

fn checksum(head: &[u8], request: &[u8]) -> u32 {
    let mut hasher = crc32fast::Hasher::new();
    hasher.update(head);
    hasher.update(request);
    hasher.finalize()
}

/// `00000000000000000042.traces`: names in order of age.
pub fn name(number: u64, signal: Signal) -> String {
    format!("{number:020}.{}", signal.name())
}

/// What a name says; `None`: it is none of ours.
pub fn named(name: &str) -> Option<(u64, Signal)> {
    let (number, signal) = name.split_once('.')?;
    let signal = Signal::ALL.into_iter().find(|known| known.name() == signal)?;
    let digits = number.len() == 20 && number.bytes().all(|byte| byte.is_ascii_digit());
    digits.then(|| number.parse().ok())?.map(|number| (number, signal))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        /// Check that a batch comes back as it was, and that one that was cut or changed anywhere does not come back at all.
        #[test]
        fn round_trip(request in prop::collection::vec(any::<u8>(), 0..300), number: u64, which in 0usize..4, at: prop::sample::Index, bit in 0u8..8) {
            let batch = Batch { number, signal: Signal::ALL[which], request };
            let bytes = pack(&batch);
            prop_assert_eq!(unpack(&bytes), Some(batch));
            let at = at.index(bytes.len());
            prop_assert_eq!(unpack(&bytes[..at]), None);
            let mut changed = bytes.clone();
            changed[at] ^= 1 << bit;
            prop_assert_eq!(unpack(&changed), None);
            let longer = [&bytes[..], b"x"].concat();
            prop_assert_eq!(unpack(&longer), None);
        }

        /// Check that no bytes and no name make it panic, and that names say what they said.
        #[test]
        fn anything(bytes in prop::collection::vec(any::<u8>(), 0..100), text in "\\PC{0,40}|[0-9]{18,22}\\.(metrics|logs|x)?", number: u64) {
            prop_assert_eq!(unpack(&bytes), None);
            prop_assert_eq!(unpack(&[&MAGIC[..], &bytes].concat()), None);
            let _ = named(&text);
            prop_assert_eq!(named(&name(number, Signal::Logs)), Some((number, Signal::Logs)));
        }
    }
}
