//! Random bytes: keys, generations and claims.

use std::{fmt, sync::Arc};

use crate::Error;

type Fill = dyn Fn(&mut [u8]) -> Result<(), Error> + Send + Sync;

/// Where random bytes come from: the operating system, unless a run has to be repeated as it was.
#[derive(Clone)]
pub struct Random(Arc<Fill>);

impl Random {
    /// The operating system's.
    #[must_use]
    pub fn system() -> Self {
        Self::new(|bytes| {
            getrandom::fill(bytes).map_err(|e| Error::Refused(format!("no random bytes from the system: {e}")))
        })
    }

    /// Whatever fills a buffer.
    pub fn new(fill: impl Fn(&mut [u8]) -> Result<(), Error> + Send + Sync + 'static) -> Self {
        Self(Arc::new(fill))
    }

    /// `N` random bytes.
    ///
    /// # Errors
    /// [`Error::Refused`] if the source has none to give.
    pub fn bytes<const N: usize>(&self) -> Result<[u8; N], Error> {
        let mut bytes = [0; N];
        (self.0)(&mut bytes)?;
        Ok(bytes)
    }

    /// Sixteen random hexadecimal digits.
    ///
    /// # Errors
    /// As [`Self::bytes`].
    pub fn token(&self) -> Result<String, Error> {
        Ok(format!("{:016x}", u64::from_be_bytes(self.bytes::<8>()?)))
    }
}

impl fmt::Debug for Random {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Random")
    }
}
