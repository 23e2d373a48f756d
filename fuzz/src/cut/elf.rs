//! Writes an executable whose segments are handed in one by one.

const HEADER: u64 = 64;
const PROGRAM: u64 = 56;
const SECTION: u64 = 64;

#[derive(Default)]
pub struct Writer {
    parts: Vec<Part>,
}

struct Part {
    name: Option<&'static str>,
    address: u64,
    bytes: Vec<u8>,
    writable: bool,
}

impl Writer {
    pub fn segment(&mut self, address: u64, bytes: Vec<u8>, writable: bool) {
        self.parts.push(Part { name: None, address, bytes, writable });
    }

    /// A segment that a section header names.
    pub fn section(&mut self, name: &'static str, address: u64, bytes: Vec<u8>, writable: bool) {
        self.parts.push(Part { name: Some(name), address, bytes, writable });
    }

    pub fn finish(self) -> Vec<u8> {
        let programs = self.parts.len() as u64;
        let mut names = b"\0.shstrtab\0".to_vec();
        let mut sections = vec![[0u64; 8]];
        let mut body = Vec::new();
        let mut headers = Vec::new();
        for part in &self.parts {
            let offset = HEADER + programs * PROGRAM + body.len() as u64;
            let (size, flags) = (part.bytes.len() as u64, if part.writable { 6u64 } else { 5 });
            for word in [1 | flags << 32, offset, part.address, part.address, size, size, 1] {
                headers.extend(word.to_le_bytes());
            }
            if let Some(name) = part.name {
                sections.push([names.len() as u64 | 1 << 32, 2, part.address, offset, size, 0, 1, 0]);
                names.extend(name.bytes().chain([0]));
            }
            body.extend(&part.bytes);
        }
        let names_at = HEADER + programs * PROGRAM + body.len() as u64;
        sections.push([1 | 3 << 32, 0, 0, names_at, names.len() as u64, 0, 1, 0]);
        body.extend(names);
        let sections_at = HEADER + programs * PROGRAM + body.len() as u64;
        let mut file = vec![0x7f, b'E', b'L', b'F', 2, 1, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0];
        file.extend([2, 0, 62, 0, 1, 0, 0, 0]);
        for word in [0x40_1000, HEADER, sections_at] {
            file.extend(word.to_le_bytes());
        }
        let (programs, count) = (programs as u16, sections.len() as u16);
        for half in [0, 0, HEADER as u16, PROGRAM as u16, programs, SECTION as u16, count, count - 1] {
            file.extend(half.to_le_bytes());
        }
        file.extend(headers);
        file.extend(body);
        file.extend(sections.into_iter().flatten().flat_map(u64::to_le_bytes));
        file
    }
}
