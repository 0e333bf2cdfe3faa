//! Object ids: no randomness, so that a replayed journal gives the same ones.

use sha2::{Digest, Sha256};

const BASE62: &[u8; 62] = b"0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz";

/// Mints ids from a counter. They look like Stripe's: a prefix and base62.
#[derive(Debug, Default, Clone)]
pub(crate) struct Ids {
    minted: u64,
}

impl Ids {
    /// The next id of a kind of object.
    pub(crate) fn mint(&mut self, kind: Kind) -> String {
        self.minted += 1;
        kind.shape(&self.minted.to_be_bytes())
    }
}

/// A kind of object; knows the shape of its ids.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Kind {
    CheckoutSession,
    Customer,
    Event,
    Invoice,
    InvoiceItem,
    InvoiceLine,
    LineItem,
    Meter,
    PaymentLink,
    Price,
    Product,
    Request,
    Subscription,
    SubscriptionItem,
    Summary,
    ThinEvent,
    WebhookEndpoint,
    WebhookSecret,
}

impl Kind {
    /// An id that follows from `seed` alone.
    pub(crate) fn shape(self, seed: &[u8]) -> String {
        let (prefix, length) = match self {
            Self::CheckoutSession => ("cs_test_a1", 42),
            Self::Customer => ("cus_", 14),
            Self::Event => ("evt_1", 23),
            Self::Invoice => ("in_1", 23),
            Self::InvoiceItem => ("ii_1", 23),
            Self::InvoiceLine => ("il_1", 23),
            Self::LineItem => ("li_1", 23),
            Self::Meter => ("mtr_test_61", 30),
            Self::PaymentLink => ("plink_1", 23),
            Self::Price => ("price_1", 23),
            Self::Product => ("prod_", 14),
            Self::Request => ("req_", 14),
            Self::Subscription => ("sub_1", 23),
            Self::SubscriptionItem => ("si_", 14),
            Self::Summary => ("mtrusg_test_6", 40),
            Self::ThinEvent => ("evt_test_65", 40),
            Self::WebhookEndpoint => ("we_1", 23),
            Self::WebhookSecret => ("whsec_", 32),
        };
        format!("{prefix}{}", base62(prefix, seed, length))
    }
}

/// `length` base62 digits (at most 42) of the hash of `kind` and `seed`.
fn base62(kind: &str, seed: &[u8], length: usize) -> String {
    let mut hash: [u8; 32] = Sha256::new()
        .chain_update(kind)
        .chain_update([0])
        .chain_update(seed)
        .finalize()
        .into();
    (0..length)
        .map(|_| char::from(BASE62[usize::from(divide_by_62(&mut hash))]))
        .collect()
}

/// Divides a big-endian number in place; gives the remainder.
fn divide_by_62(number: &mut [u8; 32]) -> u8 {
    let mut remainder = 0u32;
    for chunk in number.chunks_exact_mut(2) {
        let part = (remainder << 16) | (u32::from(chunk[0]) << 8) | u32::from(chunk[1]);
        let quotient = part / 62;
        remainder = part % 62;
        chunk[0] = (quotient >> 8) as u8;
        chunk[1] = quotient as u8;
    }
    remainder as u8
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_look_like_stripes_and_differ() {
        let mut ids = Ids::default();
        let first = ids.mint(Kind::Customer);
        assert!(first.starts_with("cus_") && first.len() == 18, "{first}");
        assert_ne!(first, ids.mint(Kind::Customer));
        assert_eq!(first, Ids::default().mint(Kind::Customer));
    }
}
