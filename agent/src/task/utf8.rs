//! UTF-8 from bytes that come in pieces: what is invalid becomes U+FFFD, what is cut at the end of
//! a piece waits for the next.

/// At most three bytes of a character whose rest has not come yet.
#[derive(Debug, Default)]
pub(crate) struct Decoder {
    carry: Vec<u8>,
}

impl Decoder {
    /// Decodes a piece; `take` is called with each part of the text.
    pub(crate) fn decode(&mut self, bytes: &[u8], mut take: impl FnMut(&str)) {
        if self.carry.is_empty() {
            self.carry = decode_part(bytes, &mut take).to_vec();
        } else {
            let mut joined = std::mem::take(&mut self.carry);
            joined.extend_from_slice(bytes);
            self.carry = decode_part(&joined, &mut take).to_vec();
        }
    }

    /// No more comes: an unfinished character is invalid.
    pub(crate) fn finish(&mut self, mut take: impl FnMut(&str)) {
        if !std::mem::take(&mut self.carry).is_empty() {
            take("\u{fffd}");
        }
    }
}

/// Decodes all but an unfinished character at the end, which is returned.
fn decode_part<'a>(mut bytes: &'a [u8], take: &mut impl FnMut(&str)) -> &'a [u8] {
    loop {
        let error = match std::str::from_utf8(bytes) {
            Ok(text) => {
                take(text);
                return &[];
            }
            Err(error) => error,
        };
        let (valid, rest) = bytes.split_at(error.valid_up_to());
        take(std::str::from_utf8(valid).unwrap_or_default());
        let Some(invalid) = error.error_len() else { return rest };
        take("\u{fffd}");
        bytes = &rest[invalid..];
    }
}
