//! Fields that hold an id, or the object itself if it was expanded: <https://docs.stripe.com/api/expanding_objects>.

use serde::{Deserialize, Deserializer};

#[derive(Deserialize)]
#[serde(untagged)]
enum Reference {
    Id(String),
    Object { id: String },
}

impl From<Reference> for String {
    fn from(reference: Reference) -> Self {
        match reference {
            Reference::Id(id) | Reference::Object { id } => id,
        }
    }
}

/// The id, whichever form it came in.
pub(crate) fn id<'de, D: Deserializer<'de>>(deserializer: D) -> Result<String, D::Error> {
    Reference::deserialize(deserializer).map(Into::into)
}

/// The id, if there is one.
pub(crate) fn optional<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<String>, D::Error> {
    let reference: Option<Reference> = Option::deserialize(deserializer)?;
    Ok(reference.map(Into::into))
}
