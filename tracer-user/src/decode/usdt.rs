//! Hits of USDT probes.

use tracer_common::{
    header::{Header, Kind},
    usdt::{MAX_ARGS, TEXT_MAX, UsdtHit},
};

use super::{DecodeError, bytes, process::lossy};
use crate::event::What;

pub fn decode(record: &UsdtHit) -> Result<What, DecodeError> {
    let text = record.text.get(..usize::from(record.text_len)).ok_or(DecodeError::Malformed { kind: Kind::UsdtHit })?;
    let mut args = [None; MAX_ARGS];
    for (index, arg) in args.iter_mut().enumerate().filter(|(index, _)| record.fetched & 1 << index != 0) {
        *arg = Some(record.args[index]);
    }
    Ok(What::UsdtHit { args: Box::new(args), text: (record.has_text != 0).then(|| lossy(text)) })
}

pub fn encode(header: Header, args: &[Option<u64>; MAX_ARGS], text: Option<&str>) -> Vec<u8> {
    let has_text = u8::from(text.is_some());
    let mut record = UsdtHit { header, args: [0; MAX_ARGS], fetched: 0, has_text, text_len: 0, _pad: 0, text: [0; TEXT_MAX] };
    for (index, value) in args.iter().enumerate().filter_map(|(index, arg)| Some((index, (*arg)?))) {
        record.args[index] = value;
        record.fetched |= 1 << index;
    }
    for (slot, byte) in record.text.iter_mut().zip(text.unwrap_or_default().bytes()) {
        *slot = byte;
        record.text_len += 1;
    }
    bytes(&record)
}

#[cfg(test)]
pub mod tests {
    use super::*;

    /// One of each form.
    pub fn every() -> Vec<What> {
        vec![
            What::UsdtHit { args: Box::new([None; MAX_ARGS]), text: None },
            What::UsdtHit { args: Box::new([Some(0), None, Some(u64::MAX), None, None, Some(7)]), text: Some("net read".into()) },
            What::UsdtHit { args: Box::new([Some(1); MAX_ARGS]), text: Some(String::new()) },
        ]
    }

    /// Check that a length beyond the record is named as such.
    #[test]
    fn malformed() {
        let text = [0; TEXT_MAX];
        let header =
            Header { ktime_ns: 0, seq: 0, tgid: 1, tid: 1, cpu: 0, binary: 1, site: 1, kind: Kind::UsdtHit as u8, _pad: 0 };
        let record =
            UsdtHit { header, args: [0; MAX_ARGS], fetched: 0, has_text: 1, text_len: TEXT_MAX as u16 + 1, _pad: 0, text };
        assert_eq!(decode(&record), Err(DecodeError::Malformed { kind: Kind::UsdtHit }));
    }
}
