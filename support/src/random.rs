//! Random numbers of the operating system.

use std::io;

use pistat_protocol::order::secret_text;

/// Random bytes for a secret.
///
/// # Errors
/// The system gives no random numbers.
pub fn secret<const N: usize>() -> io::Result<[u8; N]> {
    let mut bytes = [0; N];
    getrandom::fill(&mut bytes)?;
    Ok(bytes)
}

/// A new secret of 256 bits, as text.
///
/// # Errors
/// The system gives no random numbers.
pub fn new_secret() -> io::Result<String> {
    secret().map(secret_text)
}

/// Random bytes where nothing depends on their quality; zeros without randomness.
pub fn spread<const N: usize>() -> [u8; N] {
    secret().unwrap_or([0; N])
}

/// A random byte for [`crate::backoff::Backoff::next`]; without randomness the middle.
pub fn byte() -> u8 {
    secret::<1>().map_or(127, |[byte]| byte)
}
