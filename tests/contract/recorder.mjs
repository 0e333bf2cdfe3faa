// An HTTP server that keeps what it was asked, and the comparable form of a request.

import { createServer, request as send } from 'node:http';

/** Serves on a free port. `answer` gets `{ method, path, search, headers, body }` and gives `{ status, headers, body }`. */
export const serve = async (answer) => {
  const server = createServer(async (message, response) => {
    const chunks = await message.toArray();
    const { pathname: path, search } = new URL(message.url, 'http://localhost');
    const { method, headers } = message;
    const answered = await answer({ method, path, search, headers, body: Buffer.concat(chunks).toString() });
    if (answered) response.writeHead(answered.status ?? 200, answered.headers).end(answered.body);
    else response.destroy();
  });
  await new Promise((resolve) => server.listen(0, '127.0.0.1', resolve));
  const stop = () => new Promise((resolve) => (server.close(resolve), server.closeAllConnections()));
  return { address: `http://127.0.0.1:${server.address().port}`, stop };
};

/** Asks somebody else; nothing if the connection breaks. */
export const forward = (address, { method, path, search, headers, body }) =>
  new Promise((resolve) => {
    const asking = send(`${address}${path}${search}`, { method, headers }, async (message) => {
      const chunks = await message.toArray();
      resolve({ status: message.statusCode, headers: message.headers, body: Buffer.concat(chunks).toString() });
    });
    asking.on('error', () => resolve()).end(body);
  });

const sortedPairs = (encoded) => [...new URLSearchParams(encoded)].map(([name, value]) => `${name}=${value}`).sort();

/** What of a request is compared: decoded, sorted, and without what differs by nature. */
export const comparable = ({ method, path, search, headers, body }) => ({
  method,
  path,
  query: sortedPairs(search),
  form: sortedPairs(body),
  version: headers['stripe-version'],
  authorization: headers.authorization,
  contentType: headers['content-type'] ?? null,
  idempotencyKey: 'idempotency-key' in headers,
});

/** An object that every operation can read as the one it asked for. */
const object = (id) => ({
  id,
  object: 'event',
  active: true,
  aggregated_value: 25,
  amount: 0,
  amount_due: 0,
  amount_remaining: 0,
  attempt_count: 0,
  billing_cycle_anchor: 1_795_000_020,
  created: 1_795_000_020,
  currency: 'usd',
  current_period_end: 1_797_592_020,
  current_period_start: 1_795_000_020,
  customer: 'cus_1',
  display_name: 'API calls',
  enabled_events: ['*'],
  event_name: 'another_meter',
  identifier: 'id-1',
  livemode: false,
  metadata: {},
  name: 'Pro',
  payment_status: 'paid',
  period: { start: 1_795_000_020, end: 1_797_592_020 },
  period_end: 1_797_592_020,
  period_start: 1_795_000_020,
  price: { id: 'price_1' },
  product: 'prod_1',
  status: 'active',
  total: 0,
  type: 'invoice.paid',
  url: 'https://app.example/hook',
});

const THIN = { ...object('evt_test_1'), object: 'v2.core.event', created: '2026-11-18T12:27:00.000Z' };
const DESTINATION = { ...object('ed_test_1'), event_payload: 'thin' };
const PLURAL =
  /\/(event_summaries|meters|products|prices|customers|subscriptions|subscription_items|invoices|lines|sessions|events|webhook_endpoints)$/;

/** The answer to any operation. Each list has two pages, the second of them empty; of the lists within an object, those of `…_long`. */
export const plausible = ({ method, path, search }) => {
  const page = (data, more) => ({ object: 'list', data, has_more: more });
  const first = !new URLSearchParams(search).has('starting_after');
  const id = path.split('/').find((part) => /_(1|long)$/.test(part)) ?? 'obj_1';
  let body;
  if (path === '/v2/core/event_destinations') {
    const next = new URLSearchParams(search).has('page') ? null : `${path}${search}&page=2`;
    body = { data: next ? [DESTINATION] : [], next_page_url: next };
  } else if (path.startsWith('/v2/')) body = THIN;
  else if (method === 'GET' && PLURAL.test(path)) {
    const { price, ...one } = { ...object('obj_1'), lines: page([], false), items: page([], false) };
    body = first ? page([path.endsWith('items') || path.endsWith('lines') ? { ...one, price } : one], true) : page([], false);
  } else {
    const within = page([object('obj_1')], id.endsWith('_long'));
    body = { ...object(id), lines: within, items: within };
  }
  return { headers: { 'content-type': 'application/json', 'request-id': 'req_1' }, body: JSON.stringify(body) };
};
