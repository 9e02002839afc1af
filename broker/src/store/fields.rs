//! The parts of a record: texts with their length before them, and numbers, little-endian.

use std::sync::Arc;

/// Whose session, and whose will: the session's owner and the client id.
pub(crate) type SessionKey = (Arc<str>, Box<str>);

pub(super) fn put_key(out: &mut Vec<u8>, (owner, client_id): &SessionKey) {
    put_text(out, owner);
    put_text(out, client_id);
}

pub(super) fn put_text(out: &mut Vec<u8>, text: &str) {
    out.extend_from_slice(&u32::try_from(text.len()).unwrap_or(u32::MAX).to_le_bytes());
    out.extend_from_slice(text.as_bytes());
}

pub(super) fn take_key(rest: &mut &[u8]) -> Option<SessionKey> {
    Some((take_text(rest)?.into(), take_text(rest)?))
}

pub(super) fn take_text(rest: &mut &[u8]) -> Option<Box<str>> {
    let (length, after) = rest.split_first_chunk::<4>()?;
    let (text, after) = after.split_at_checked(u32::from_le_bytes(*length) as usize)?;
    *rest = after;
    std::str::from_utf8(text).ok().map(Into::into)
}

pub(super) fn take_u64(rest: &mut &[u8]) -> Option<u64> {
    take_array(rest).map(u64::from_le_bytes)
}

pub(super) fn take_array<const N: usize>(rest: &mut &[u8]) -> Option<[u8; N]> {
    let (bytes, after) = rest.split_first_chunk::<N>()?;
    *rest = after;
    Some(*bytes)
}
