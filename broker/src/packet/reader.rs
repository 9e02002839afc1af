//! A cursor over a packet's bytes.

use super::{Fault, malformed, protocol_error};

/// Reads a packet from front to back; every read checks that the bytes are there.
pub(super) struct Reader<'a> {
    pub(super) rest: &'a [u8],
}

impl<'a> Reader<'a> {
    pub(super) fn new(rest: &'a [u8]) -> Self {
        Self { rest }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.rest.is_empty()
    }

    fn take(&mut self, length: usize) -> Result<&'a [u8], Fault> {
        let (taken, rest) =
            self.rest.split_at_checked(length).ok_or(malformed("the packet is shorter than it says"))?;
        self.rest = rest;
        Ok(taken)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], Fault> {
        let (taken, rest) = self.rest.split_first_chunk().ok_or(malformed("the packet is shorter than it says"))?;
        self.rest = rest;
        Ok(*taken)
    }

    pub(super) fn u8(&mut self) -> Result<u8, Fault> {
        self.array::<1>().map(|[byte]| byte)
    }

    pub(super) fn u16(&mut self) -> Result<u16, Fault> {
        self.array().map(u16::from_be_bytes)
    }

    pub(super) fn u32(&mut self) -> Result<u32, Fault> {
        self.array().map(u32::from_be_bytes)
    }

    pub(super) fn variable_integer(&mut self) -> Result<u32, Fault> {
        let (value, length) = remaining_length(self.rest)?.ok_or(malformed("a variable byte integer is cut off"))?;
        self.take(length)?;
        u32::try_from(value).map_err(|_| malformed("a variable byte integer is too large"))
    }

    pub(super) fn binary(&mut self) -> Result<&'a [u8], Fault> {
        let length = self.u16()?;
        self.take(usize::from(length))
    }

    pub(super) fn string(&mut self) -> Result<&'a str, Fault> {
        let text = std::str::from_utf8(self.binary()?).map_err(|_| malformed("a string is not UTF-8"))?;
        if text.as_bytes().contains(&0) { Err(malformed("a string holds NUL")) } else { Ok(text) }
    }

    pub(super) fn packet_id(&mut self) -> Result<u16, Fault> {
        match self.u16()? {
            0 => Err(protocol_error("packet id 0")),
            id => Ok(id),
        }
    }

    /// A property block's bytes, its length taken off.
    pub(super) fn property_block(&mut self) -> Result<&'a [u8], Fault> {
        let length = self.variable_integer()?;
        self.take(length as usize)
    }

    pub(super) fn finish(&self) -> Result<(), Fault> {
        if self.is_empty() { Ok(()) } else { Err(malformed("bytes are left over at the packet's end")) }
    }
}

/// A variable byte integer at the start of `bytes` and its own length; `None` when it is cut off.
pub(super) fn remaining_length(bytes: &[u8]) -> Result<Option<(usize, usize)>, Fault> {
    let mut value = 0;
    for (index, &byte) in bytes.iter().take(4).enumerate() {
        value |= usize::from(byte & 0x7F) << (7 * index);
        if byte & 0x80 == 0 {
            return Ok(Some((value, index + 1)));
        }
    }
    if bytes.len() >= 4 { Err(malformed("a length has more than four bytes")) } else { Ok(None) }
}
