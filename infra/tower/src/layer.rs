//! The layer, its service and its future.

use std::{
    borrow::Cow,
    pin::Pin,
    task::{Context, Poll, ready},
};

use http::{HeaderMap, HeaderName, HeaderValue, Request, Response};
use pin_project_lite::pin_project;
use tower_layer::Layer;
use tower_service::Service;

use crate::{
    context::{self, AuthorizerContext, Lookup},
    figures::{self, Caller},
};

/// Puts a [`Farebox`] around a service.
#[derive(Clone, Copy, Debug)]
pub struct FareboxLayer {
    source: Source,
}

/// Where the context is looked for.
#[derive(Clone, Copy, Debug)]
enum Source {
    Extension(Lookup),
    Headers,
}

impl FareboxLayer {
    /// Reads the request context that `lambda_http` puts into a request's extensions. Request headers are not believed.
    #[cfg(feature = "lambda_http")]
    #[must_use]
    pub fn lambda() -> Self {
        Self::extension::<lambda_http::request::RequestContext>()
    }

    /// Reads an extension of type `T`, which a layer in front puts there. Request headers are not believed.
    #[must_use]
    pub fn extension<T: AuthorizerContext>() -> Self {
        Self {
            source: Source::Extension(context::in_extension::<T>),
        }
    }

    /// Reads `x-farebox-*` request headers, which is the promise that the gateway sets every one of them and that nobody else
    /// reaches this server. Else a client can give itself another customer's name.
    #[must_use]
    pub fn gateway_headers() -> Self {
        Self {
            source: Source::Headers,
        }
    }
}

impl<S> Layer<S> for FareboxLayer {
    type Service = Farebox<S>;

    fn layer(&self, inner: S) -> Farebox<S> {
        Farebox {
            inner,
            source: self.source,
        }
    }
}

/// A service whose requests know their [`Caller`], and whose answers carry the rate and quota headers.
#[derive(Clone, Copy, Debug)]
pub struct Farebox<S> {
    inner: S,
    source: Source,
}

impl<S, B, A> Service<Request<B>> for Farebox<S>
where
    S: Service<Request<B>, Response = Response<A>>,
{
    type Response = Response<A>;
    type Error = S::Error;
    type Future = ResponseFuture<S::Future>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(context)
    }

    fn call(&mut self, mut request: Request<B>) -> Self::Future {
        let (headers, caller) = self.source.read(&request);
        remove_entries(request.headers_mut());
        let extensions = request.extensions_mut();
        match caller {
            Some(caller) => {
                extensions.insert(caller);
            }
            None => {
                extensions.remove::<Caller>();
            }
        }
        ResponseFuture {
            inner: self.inner.call(request),
            headers,
        }
    }
}

impl Source {
    fn read<B>(self, request: &Request<B>) -> (Vec<(HeaderName, HeaderValue)>, Option<Caller>) {
        let lookup = |name: &'static str, header: &'static str| match self {
            Source::Extension(lookup) => lookup(request.extensions(), name),
            Source::Headers => context::in_headers(request.headers(), header).map(Cow::Borrowed),
        };
        (figures::headers(lookup), figures::caller(lookup))
    }
}

/// Whatever the source: nothing inside of this layer may take a client's header for the gateway's.
fn remove_entries(headers: &mut HeaderMap) {
    let entries: Vec<HeaderName> = headers
        .keys()
        .filter(|name| name.as_str().starts_with(context::PREFIX))
        .cloned()
        .collect();
    for name in entries {
        headers.remove(name);
    }
}

pin_project! {
    /// The answer of the inner service, with the headers added.
    #[derive(Debug)]
    pub struct ResponseFuture<F> {
        #[pin]
        inner: F,
        headers: Vec<(HeaderName, HeaderValue)>,
    }
}

impl<F, A, E> Future for ResponseFuture<F>
where
    F: Future<Output = Result<Response<A>, E>>,
{
    type Output = Result<Response<A>, E>;

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let this = self.project();
        let mut response = ready!(this.inner.poll(context));
        if let Ok(response) = &mut response {
            for (name, value) in this.headers.drain(..) {
                response.headers_mut().insert(name, value);
            }
        }
        Poll::Ready(response)
    }
}
