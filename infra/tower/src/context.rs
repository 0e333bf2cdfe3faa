//! Where the authorizer's context of a request is.

use std::{
    borrow::Cow,
    collections::{BTreeMap, HashMap},
    hash::BuildHasher,
};

use http::{Extensions, HeaderMap};

/// What every request header that carries an entry begins with.
pub(crate) const PREFIX: &str = "x-farebox-";

/// The authorizer's context of one request: names of letters, digits and `_`, and values.
pub trait AuthorizerContext: Send + Sync + 'static {
    /// The value of an entry, `None` if there is none.
    fn entry(&self, name: &str) -> Option<Cow<'_, str>>;
}

impl<S: BuildHasher + Send + Sync + 'static> AuthorizerContext for HashMap<String, String, S> {
    fn entry(&self, name: &str) -> Option<Cow<'_, str>> {
        self.get(name).map(|value| Cow::Borrowed(value.as_str()))
    }
}

impl AuthorizerContext for BTreeMap<String, String> {
    fn entry(&self, name: &str) -> Option<Cow<'_, str>> {
        self.get(name).map(|value| Cow::Borrowed(value.as_str()))
    }
}

/// REST APIs and payload format 1.0 have the context in `authorizer`, payload format 2.0 in `authorizer.lambda`; `lambda_http`
/// reads both into the same field.
#[cfg(feature = "lambda_http")]
impl AuthorizerContext for lambda_http::request::RequestContext {
    fn entry(&self, name: &str) -> Option<Cow<'_, str>> {
        use lambda_http::request::RequestContext::{ApiGatewayV1, ApiGatewayV2};
        let value = match self {
            ApiGatewayV1(context) => {
                let fields = &context.authorizer.fields;
                fields.get(name).or_else(|| fields.get("lambda")?.get(name))
            }
            ApiGatewayV2(context) => context.authorizer.as_ref()?.fields.get(name),
            _ => None,
        }?;
        match value.as_str() {
            Some(text) => Some(Cow::Borrowed(text)),
            // API Gateway says that it turns them into strings.
            None if value.is_number() => Some(Cow::Owned(value.to_string())),
            None => None,
        }
    }
}

/// Looks an entry up among a request's extensions.
pub(crate) type Lookup = for<'r> fn(&'r Extensions, &str) -> Option<Cow<'r, str>>;

/// The lookup in an extension of type `T`.
pub(crate) fn in_extension<'r, T: AuthorizerContext>(extensions: &'r Extensions, name: &str) -> Option<Cow<'r, str>> {
    extensions.get::<T>()?.entry(name)
}

/// The only header of that name. Where there are two, one of them is not the gateway's.
pub(crate) fn in_headers<'r>(headers: &'r HeaderMap, name: &str) -> Option<&'r str> {
    let mut values = headers.get_all(name).iter();
    let value = values.next()?.to_str().ok()?;
    values.next().is_none().then_some(value)
}
