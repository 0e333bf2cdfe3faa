//! API keys, as callers send them and as tables hold them.

use farebox_core::key::{ApiKey, KeyHash, Mode, from_headers};

use crate::{is_short, text};

/// A key reads back as itself, one changed character makes it none, and nothing said of it holds it.
pub(crate) fn api_key(data: &[u8]) {
    if let Ok(random) = <[u8; 32]>::try_from(&data[..data.len().min(32)]) {
        made(random, data.get(32).copied().unwrap_or_default());
    }
    let Some(text) = text(data) else { return };
    read(text);
    hash(text);
    if let Some((api_key, authorization)) = text.split_once('\n')
        && let Some(key) = from_headers(None, Some(authorization))
    {
        assert!(authorization.contains(key));
        assert_eq!(
            from_headers(Some(api_key), Some(authorization)),
            Some(api_key.trim_matches(' '))
        );
    }
}

fn made(random: [u8; 32], at: u8) {
    let Ok(key) = ApiKey::new("fb", Mode::Live, random) else {
        panic!("the brand is good")
    };
    let whole = key.reveal();
    assert!(ApiKey::parse(whole).is_ok_and(|read| read.hash() == key.hash()));
    assert!(!whole.starts_with(&key.hash().to_string()));
    let at = usize::from(at) % whole.len();
    let other = if whole.as_bytes()[at] == b'a' { "b" } else { "a" };
    let changed = [&whole[..at], other, &whole[at + 1..]].concat();
    assert!(ApiKey::parse(&changed).is_err(), "one character is noticed");
}

fn read(text: &str) {
    match ApiKey::parse(text) {
        Ok(key) => {
            assert!(key.reveal() == text);
            assert!(text.starts_with(key.display_prefix()) && text.ends_with(key.last_four()));
            let hidden = text.len() - key.display_prefix().len() - key.last_four().len();
            assert!(hidden >= 41, "what is shown is too little to guess the rest from");
        }
        Err(error) => is_short(&error),
    }
}

fn hash(text: &str) {
    if let Some(hash) = KeyHash::from_hex(text) {
        assert_eq!(hash.to_string(), text.to_ascii_lowercase(), "a hash has one spelling");
    }
}
