//! Header fields on their way out, as the lines they are sent in.

/// Field lines: `name: value` and CR LF each, in the order they were added.
///
/// What is added must be a field already: a name that is a token, a value without control bytes. That is the case for
/// everything that was read from a message and for every `http::HeaderName` and `http::HeaderValue`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct FieldLines(Vec<u8>);

impl FieldLines {
    /// No lines, with room for `bytes`.
    pub fn with_capacity(bytes: usize) -> Self {
        Self(Vec::with_capacity(bytes))
    }

    /// Adds lines behind what `memory` holds.
    pub const fn continuing(memory: Vec<u8>) -> Self {
        Self(memory)
    }

    /// Adds a field whose value is a number.
    pub fn push_number(&mut self, name: &[u8], number: u64) {
        let mut digits = [0; 20];
        let mut at = digits.len();
        let mut rest = number;
        loop {
            at -= 1;
            digits[at] = b'0' + (rest % 10) as u8;
            rest /= 10;
            if rest == 0 {
                break;
            }
        }
        self.push(name, &digits[at..]);
    }

    /// The bytes, for something else.
    pub fn into_memory(self) -> Vec<u8> {
        self.0
    }

    /// Adds a field behind the others.
    #[inline]
    pub fn push(&mut self, name: &[u8], value: &[u8]) {
        self.0.reserve(name.len() + value.len() + 4);
        self.0.extend_from_slice(name);
        self.0.extend_from_slice(b": ");
        self.0.extend_from_slice(value);
        self.0.extend_from_slice(b"\r\n");
    }

    /// Adds a line that is whole: name, value and ending.
    #[inline]
    pub fn push_line(&mut self, line: &[u8]) {
        debug_assert!(line.ends_with(b"\r\n"), "{}", line.escape_ascii());
        self.0.extend_from_slice(line);
    }

    /// Adds a field whose value is made of pieces.
    pub fn push_pieces(&mut self, name: &[u8], pieces: &[&[u8]]) {
        self.0.extend_from_slice(name);
        self.0.extend_from_slice(b": ");
        pieces.iter().for_each(|piece| self.0.extend_from_slice(piece));
        self.0.extend_from_slice(b"\r\n");
    }

    /// The lines as they are sent.
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Name and value of every field.
    pub fn iter(&self) -> impl Iterator<Item = (&[u8], &[u8])> {
        let mut rest = &self.0[..];
        std::iter::from_fn(move || {
            let (line, behind) = rest.split_at_checked(memchr::memchr(b'\n', rest)? + 1)?;
            rest = behind;
            let line = line.strip_suffix(b"\r\n")?;
            let (name, value) = line.split_at_checked(memchr::memchr(b':', line)?)?;
            Some((name, value.strip_prefix(b": ").unwrap_or_default()))
        })
    }

    /// The values of every field of this name, whatever its case.
    pub fn all<'a>(&'a self, name: &str) -> impl Iterator<Item = &'a [u8]> {
        self.iter().filter(move |(known, _)| known.eq_ignore_ascii_case(name.as_bytes())).map(|(_, value)| value)
    }

    /// The same as a map, with room for so many fields more. One that grows is moved, and a large one is much memory.
    pub fn to_headers(&self, more: usize) -> http::HeaderMap {
        let mut headers = http::HeaderMap::with_capacity(memchr::memchr_iter(b'\n', &self.0).count() + more);
        for (name, value) in self.iter() {
            let name = http::HeaderName::from_bytes(name);
            if let (Ok(name), Ok(value)) = (name, http::HeaderValue::from_bytes(value)) {
                headers.append(name, value);
            }
        }
        headers
    }

    /// Takes out every field of this name.
    pub fn remove(&mut self, name: &str) {
        if self.all(name).next().is_none() {
            return;
        }
        let mut kept = Self::with_capacity(self.0.len());
        for (known, value) in self.iter().filter(|(known, _)| !known.eq_ignore_ascii_case(name.as_bytes())) {
            kept.push(known, value);
        }
        *self = kept;
    }
}

impl From<&http::HeaderMap> for FieldLines {
    fn from(headers: &http::HeaderMap) -> Self {
        let mut lines = Self::with_capacity(headers.len() * 48);
        headers.iter().for_each(|(name, value)| lines.push(name.as_str().as_bytes(), value.as_bytes()));
        lines
    }
}

impl From<&FieldLines> for http::HeaderMap {
    fn from(lines: &FieldLines) -> Self {
        lines.to_headers(0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_read_back_as_they_were_added() {
        let mut lines = FieldLines::default();
        lines.push_line(b"A: 1: 2\r\n");
        lines.push_pieces(b"b", &[b"x", b"", b"y"]);
        lines.push(b"a", b"");
        for (number, digits) in [(0, "0"), (9, "9"), (10, "10"), (u64::MAX, "18446744073709551615")] {
            let mut lines = FieldLines::default();
            lines.push_number(b"n", number);
            assert_eq!(lines.as_bytes(), format!("n: {digits}\r\n").as_bytes());
        }
        assert_eq!(lines.as_bytes(), b"A: 1: 2\r\nb: xy\r\na: \r\n");
        let all: Vec<_> = lines.iter().collect();
        assert_eq!(all, [(&b"A"[..], &b"1: 2"[..]), (b"b", b"xy"), (b"a", b"")]);
        assert_eq!(lines.all("a").count(), 2);
        let headers = http::HeaderMap::from(&lines);
        assert_eq!(headers.get_all("a").iter().count(), 2);
        assert_eq!(lines.to_headers(9), headers);
        assert_eq!(FieldLines::from(&headers).iter().count(), 3);
        lines.remove("B");
        assert_eq!(lines.as_bytes(), b"A: 1: 2\r\na: \r\n");
        lines.remove("a");
        assert!(lines.is_empty());
    }
}
