//! Lists that come in pages: <https://docs.stripe.com/api/pagination>.

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use stripe_client_core::{RequestBuilder, StripeMethod};

use crate::{Client, Error};

/// The most that one page may hold.
pub(crate) const PAGE: i64 = 100;

/// More pages than this mean that the cursor does not move.
const PAGES_MAX: usize = 1_000;

/// One page.
#[derive(Clone, Debug, Deserialize)]
pub(crate) struct Page<T> {
    pub(crate) data: Vec<T>,
    #[serde(default)]
    pub(crate) has_more: bool,
}

/// Something in a list, whose id is the cursor to what comes after it.
pub(crate) trait Listed: DeserializeOwned {
    fn id(&self) -> &str;
}

impl Client {
    /// The whole list. `page` makes the request for what comes after an id.
    pub(crate) async fn list<T: Listed>(&self, page: impl Fn(Option<&str>) -> RequestBuilder) -> Result<Vec<T>, Error> {
        let accepted = self.get(page(None)).await?;
        self.rest(accepted.read()?, page).await
    }

    /// The whole list whose first page stood inside another object, such as the lines of an invoice.
    pub(crate) async fn rest<T: Listed>(
        &self,
        first: Page<T>,
        page: impl Fn(Option<&str>) -> RequestBuilder,
    ) -> Result<Vec<T>, Error> {
        let Page { mut data, mut has_more } = first;
        for _ in 0..PAGES_MAX {
            let after = match data.last() {
                Some(last) if has_more => last.id().to_owned(),
                None if has_more => break,
                _ => return Ok(data),
            };
            let accepted = self.get(page(Some(&after))).await?;
            let next: Page<T> = accepted.read()?;
            if next.has_more && next.data.last().is_none_or(|last| last.id() == after) {
                return Err(accepted.doubt("a list does not move on"));
            }
            data.extend(next.data);
            has_more = next.has_more;
        }
        Err(Error::Malformed {
            what: "a list does not end".to_owned(),
            request_id: None,
        })
    }
}

/// A page of a list for which async-stripe has no request among the features that we compile.
pub(crate) fn page_of<Q: Serialize>(path: &str, query: &Q, after: Option<&str>) -> RequestBuilder {
    #[derive(Serialize)]
    struct Paged<'a, Q> {
        #[serde(flatten)]
        query: &'a Q,
        limit: i64,
        #[serde(skip_serializing_if = "Option::is_none")]
        starting_after: Option<&'a str>,
    }
    RequestBuilder::new(StripeMethod::Get, path).query(&Paged {
        query,
        limit: PAGE,
        starting_after: after,
    })
}
