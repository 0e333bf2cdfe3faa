//! Random bytes from the operating system: keys, generations and claims.

use crate::Error;

/// `N` random bytes.
///
/// # Errors
/// [`Error::Refused`] if the operating system has none to give.
pub fn bytes<const N: usize>() -> Result<[u8; N], Error> {
    let mut bytes = [0; N];
    getrandom::fill(&mut bytes).map_err(|e| Error::Refused(format!("no random bytes from the system: {e}")))?;
    Ok(bytes)
}

/// Sixteen random hexadecimal digits.
///
/// # Errors
/// As [`bytes`].
pub fn token() -> Result<String, Error> {
    Ok(format!("{:016x}", u64::from_be_bytes(bytes::<8>()?)))
}
