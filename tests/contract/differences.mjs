// How our requests may differ from those of Stripe's SDK, and why. Each changes the SDK's request into ours; one that changes
// nothing any more fails a test.

export const differences = [
  {
    name: 'a GET names no type of a body',
    reason: 'The SDK sends Content-Type with GET, too. It describes a body (RFC 9110, 8.3), and there is none.',
    change: (request) => (request.method === 'GET' ? { ...request, contentType: null } : request),
  },
  {
    name: 'a DELETE has its parameters in the body, and an idempotency key',
    reason:
      "Stripe's description has them in the body, as `curl` sends them; the SDK writes them into the address, which Stripe reads, too. " +
      'The key of a DELETE is ignored (https://docs.stripe.com/api/idempotent_requests); our client has one way to write.',
    change: (request) =>
      request.method === 'DELETE' ? { ...request, query: request.form, form: request.query, idempotencyKey: true } : request,
  },
  {
    name: 'a meter event that can be none is a question',
    reason: 'To learn whether a key may send events, one without any field is sent: it has no body and creates nothing, so it needs no key.',
    change: (request) =>
      request.path === '/v1/billing/meter_events' && request.form.length === 0
        ? { ...request, contentType: null, idempotencyKey: false }
        : request,
  },
];
