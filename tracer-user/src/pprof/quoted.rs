//! Strings as Go quotes them (`strconv.Quote`, and the runtime's own `printquoted` in `runtime/print.go`).

/// A quoted string at the start of `text`: what it says, and what follows it. Bytes that are no UTF-8 become replacement characters.
pub fn quoted(text: &str) -> Option<(String, &str)> {
    let inner = text.strip_prefix('"')?;
    let mut bytes = Vec::new();
    let mut rest = inner;
    loop {
        let end = rest.find(['"', '\\'])?;
        bytes.extend_from_slice(&rest.as_bytes()[..end]);
        rest = &rest[end..];
        if let Some(behind) = rest.strip_prefix('"') {
            return Some((String::from_utf8_lossy(&bytes).into_owned(), behind));
        }
        rest = escape(&rest[1..], &mut bytes)?;
    }
}

/// What follows a backslash.
fn escape<'t>(text: &'t str, out: &mut Vec<u8>) -> Option<&'t str> {
    let kind = text.chars().next()?;
    let rest = &text[kind.len_utf8()..];
    let plain = match kind {
        'a' => 7,
        'b' => 8,
        't' => 9,
        'n' => 10,
        'v' => 11,
        'f' => 12,
        'r' => 13,
        '\\' | '"' | '\'' => kind as u8,
        // The runtime writes any control character as two digits, and Go any byte that is no UTF-8.
        'x' => return number(rest, 2, |byte| out.push(byte as u8)),
        'u' => return number(rest, 4, |code| push(code, out)),
        'U' => return number(rest, 8, |code| push(code, out)),
        _ => return None,
    };
    out.push(plain);
    Some(rest)
}

fn number(text: &str, digits: usize, found: impl FnOnce(u32)) -> Option<&str> {
    let hex = text.get(..digits)?;
    if !hex.bytes().all(|byte| byte.is_ascii_hexdigit()) {
        return None;
    }
    found(u32::from_str_radix(hex, 16).ok()?);
    text.get(digits..)
}

fn push(code: u32, out: &mut Vec<u8>) {
    let character = char::from_u32(code).unwrap_or(char::REPLACEMENT_CHARACTER);
    out.extend_from_slice(character.encode_utf8(&mut [0; 4]).as_bytes());
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Check that every escape of Go's two ways to quote comes back as it was, and that what is no string is none.
    #[test]
    fn escapes() {
        let read = |text| quoted(text);
        assert_eq!(read(r#""a b": "c""#), Some(("a b".to_owned(), ": \"c\"")));
        assert_eq!(read(r#""\n\t\\\"\x1b\u00e9\U0001f600é""#), Some(("\n\t\\\"\x1bé😀é".to_owned(), "")));
        assert_eq!(read(r#""\xff""#), Some(("\u{fffd}".to_owned(), "")));
        assert_eq!(read(r#""""#), Some((String::new(), "")));
        for text in ["", "a", "\"", "\"a", r#""\"#, r#""\x1"#, r#""\x+1""#, r#""\q""#, r#""\u12"#, "\"\\é\""] {
            assert_eq!(read(text), None, "{text}");
        }
    }
}
