// Our requests, as stripe-mock judges them, and its answers, as our client reads them.

import assert from 'node:assert/strict';
import { after, before, test } from 'node:test';
import { startClient } from './client.mjs';
import { operations } from './operations.mjs';
import { startServer } from './process.mjs';

/** What the description can't judge, and why. */
const UNJUDGED = {
  'update_subscription: cycle begins': 'billing_cycle_anchor became an object in 2026-09-30.endive, after the description',
  'update_subscription: cycle stays': 'billing_cycle_anchor became an object in 2026-09-30.endive, after the description',
  thin_event: 'the description holds nothing of the second API',
  event_destinations: 'the description holds nothing of the second API',
};
const skip = process.env.MOCK ? false : 'stripe-mock is not installed, as there is no Go';

let mock, client;

before(async () => {
  if (skip) return;
  mock = await startServer(process.env.MOCK, ['-http-addr', '127.0.0.1:0'], 1);
  client = startClient(mock.addresses[0]);
});

after(async () => {
  await client?.stop();
  await mock?.stop();
});

for (const name of Object.keys(operations)) {
  test(`described: ${name}`, { skip }, async () => {
    const outcome = await client.perform(name);
    if (name in UNJUDGED) assert.match(outcome, /^stripe rejected the call: 40[04]/);
    else assert.equal(outcome, 'ok');
  });
}

test('what the description does not know is refused', { skip }, async () => {
  const ask = (path, body) =>
    fetch(`${mock.addresses[0]}${path}`, { method: 'POST', headers: { authorization: 'Bearer sk_test_123' }, body });
  assert.equal((await ask('/v1/customers', new URLSearchParams({ name: 'Ada' }))).status, 200);
  assert.equal((await ask('/v1/customers', new URLSearchParams({ nonsense: 'Ada' }))).status, 400);
  assert.equal((await ask('/v1/prices', new URLSearchParams({ product: 'prod_1' }))).status, 400, 'a required parameter is missing');
});
