// The requests of our client are those of Stripe's own SDK.

import assert from 'node:assert/strict';
import { readFile, readdir } from 'node:fs/promises';
import { after, before, test } from 'node:test';
import Stripe from 'stripe';
import { startClient } from './client.mjs';
import { differences } from './differences.mjs';
import { operations } from './operations.mjs';
import { comparable, plausible, serve } from './recorder.mjs';

const SOURCES = `${process.env.ROOT}/shared/stripe/src`;

let recorder, client, stripe;
let requests = [];
const met = new Set();

before(async () => {
  recorder = await serve((request) => {
    requests.push(comparable(request));
    return plausible(request);
  });
  client = startClient(recorder.address);
  const { hostname, port } = new URL(recorder.address);
  stripe = new Stripe('sk_test_123', { protocol: 'http', host: hostname, port, telemetry: false });
});

after(async () => {
  await client.stop();
  await recorder.stop();
});

const recorded = async (act) => {
  requests = [];
  await act();
  return requests;
};

/** The SDK's request with every difference that is allowed. */
const allowed = (request) =>
  differences.reduce((changed, { name, change }) => {
    const next = change(changed);
    if (next !== changed && JSON.stringify(next) !== JSON.stringify(changed)) met.add(name);
    return next;
  }, request);

test('every operation of our client is compared', async () => {
  const methods = new Set();
  for (const file of await readdir(SOURCES)) {
    const source = await readFile(`${SOURCES}/${file}`, 'utf8');
    for (const [, name] of source.matchAll(/\bpub async fn (\w+)/g)) methods.add(name);
  }
  assert.ok(methods.size > 30, `only ${methods.size} operations were found in ${SOURCES}`);
  assert.deepEqual([...new Set(Object.keys(operations).map((name) => name.split(': ')[0]))].sort(), [...methods].sort());
});

for (const [name, perform] of Object.entries(operations)) {
  test(`request: ${name}`, async () => {
    const ours = await recorded(async () => assert.equal(await client.perform(name), 'ok'));
    const theirs = await recorded(() => perform(stripe));
    assert.ok(theirs.length > 0);
    assert.deepEqual(ours, theirs.map(allowed));
  });
}

test('every difference that is allowed is met', () => {
  assert.deepEqual([...met], differences.map(({ name }) => name));
});
