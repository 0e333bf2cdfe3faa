// Stripe's own SDK against the stand-in, with nothing changed but the address: every operation that our client has, and the ways
// they fail. Every answer is held to Stripe's description.

import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import { writeFile } from 'node:fs/promises';
import { after, before, test } from 'node:test';
import Stripe from 'stripe';
import { startClient } from './client.mjs';
import { loadDescription } from './description.mjs';
import { operations } from './operations.mjs';
import { startServer } from './process.mjs';
import { forward, plausible, serve } from './recorder.mjs';
import { typed } from './types.mjs';

const START = 1801390643; // 2027-01-31T10:17:23Z
const DAY = 86400;
const FEBRUARY_END = START + 28 * DAY;
const HOUR = 3600;

let standin, recorder, controls, stripe;
/** What was asked, and how it was answered. */
const exchanges = [];

before(async () => {
  standin = await startServer(process.env.STANDIN, ['0'], 2);
  controls = standin.addresses[1];
  recorder = await serve(async (request) => {
    const answer = await forward(standin.addresses[0], request);
    if (answer) exchanges.push({ ...request, status: answer.status, answer: answer.body });
    return answer;
  });
  const { hostname, port } = new URL(recorder.address);
  stripe = new Stripe('sk_test_1234567890', { protocol: 'http', host: hostname, port, maxNetworkRetries: 2, telemetry: false });
});

after(async () => {
  await recorder.stop();
  await standin.stop();
});

const control = async (path, body) => {
  const response = await fetch(`${controls}/_standin/${path}`, { method: 'POST', body });
  assert.equal(response.status, 200, await response.text());
};

/** What the steps share. */
const made = {};

test('a meter is created, renamed, found, switched off and on', async () => {
  made.meter = await stripe.billing.meters.create({
    display_name: 'API calls',
    event_name: 'api_calls',
    default_aggregation: { formula: 'sum' },
    customer_mapping: { type: 'by_id', event_payload_key: 'stripe_customer_id' },
    value_settings: { event_payload_key: 'value' },
  });
  assert.equal(made.meter.status, 'active');
  const { id } = made.meter;
  assert.equal((await stripe.billing.meters.update(id, { display_name: 'Calls' })).display_name, 'Calls');
  assert.equal((await stripe.billing.meters.deactivate(id)).status, 'inactive');
  assert.equal((await stripe.billing.meters.reactivate(id)).status, 'active');
  assert.equal((await stripe.billing.meters.retrieve(id)).id, id);
  assert.deepEqual((await stripe.billing.meters.list({ status: 'active' })).data.map((meter) => meter.id), [id]);
});

test('prices of three kinds', async () => {
  const product = await stripe.products.create({ name: 'API', unit_label: 'call', metadata: { tier: 'pro' } });
  await stripe.products.update(product.id, { description: 'Calls by the million' });
  assert.equal((await stripe.products.retrieve(product.id)).description, 'Calls by the million');
  assert.equal((await stripe.products.list({ active: true })).data.length, 1);
  const recurring = { interval: 'month', usage_type: 'metered', meter: made.meter.id };
  const shared = { currency: 'usd', product: product.id };
  made.flat = await stripe.prices.create({ ...shared, unit_amount: 2900, recurring: { interval: 'month' }, lookup_key: 'pro_flat' });
  made.graduated = await stripe.prices.create({
    ...shared,
    recurring,
    billing_scheme: 'tiered',
    tiers_mode: 'graduated',
    tiers: [
      { up_to: 1000, unit_amount: 0 },
      { up_to: 'inf', unit_amount_decimal: Stripe.Decimal ? Stripe.Decimal.from('0.05') : '0.05' },
    ],
    lookup_key: 'pro_usage',
  });
  made.volume = await stripe.prices.create({
    ...shared,
    recurring,
    billing_scheme: 'tiered',
    tiers_mode: 'volume',
    tiers: [{ up_to: 10, unit_amount: 7 }, { up_to: 'inf', unit_amount: 6 }],
  });
  const found = await stripe.prices.list({ lookup_keys: ['pro_usage', 'pro_flat'], expand: ['data.product', 'data.tiers'] });
  assert.deepEqual(found.data.map((price) => price.lookup_key), ['pro_usage', 'pro_flat']);
  assert.equal(found.data[0].product.name, 'API');
  assert.equal(String(found.data[0].tiers[1].unit_amount_decimal), '0.05');
  assert.equal((await stripe.prices.update(made.volume.id, { nickname: 'by volume' })).nickname, 'by volume');
  assert.equal((await stripe.prices.retrieve(made.flat.id)).unit_amount, 2900);
});

test('a customer subscribes', async () => {
  made.customer = await stripe.customers.create({ name: 'Acme', email: 'a@example.com', metadata: { plan: 'pro' } });
  await stripe.customers.update(made.customer.id, { name: 'Acme Ltd' });
  assert.equal((await stripe.customers.retrieve(made.customer.id)).name, 'Acme Ltd');
  made.subscription = await stripe.subscriptions.create({
    customer: made.customer.id,
    items: [{ price: made.flat.id }, { price: made.graduated.id }],
    metadata: { tier: 'pro' },
    expand: ['latest_invoice'],
  });
  assert.equal(made.subscription.status, 'active');
  assert.equal(made.subscription.latest_invoice.status, 'paid');
  assert.equal(made.subscription.latest_invoice.total, 2900);
  const [item] = made.subscription.items.data;
  assert.deepEqual([item.current_period_start, item.current_period_end], [START, FEBRUARY_END]);
  assert.equal((await stripe.subscriptionItems.list({ subscription: made.subscription.id })).data.length, 2);
  assert.equal((await stripe.subscriptions.list({ customer: made.customer.id })).data[0].id, made.subscription.id);
});

test('meter events are taken once', async () => {
  const event = { event_name: 'api_calls', identifier: 'usage-1', payload: { stripe_customer_id: made.customer.id, value: '1030' } };
  const taken = await stripe.billing.meterEvents.create(event);
  assert.equal(taken.identifier, 'usage-1');
  await assert.rejects(stripe.billing.meterEvents.create(event), (error) => {
    assert.ok(error instanceof Stripe.errors.StripeInvalidRequestError);
    assert.equal(error.statusCode, 400);
    assert.equal(error.message, 'An event already exists with identifier usage-1.');
    return true;
  });
  await stripe.billing.meterEvents.create({ ...event, identifier: 'usage-2', payload: { ...event.payload, value: '7' } });
  await stripe.billing.meterEventAdjustments.create({ event_name: 'api_calls', type: 'cancel', cancel: { identifier: 'usage-2' } });
});

test('bad parameters are named', async () => {
  const rejects = (promise, expected) =>
    assert.rejects(promise, (error) => {
      const { type, code, param, statusCode } = error;
      assert.deepEqual({ type, code, param, statusCode }, expected);
      assert.match(error.requestId, /^req_/);
      return true;
    });
  const type = 'StripeInvalidRequestError';
  await rejects(stripe.customers.create({ nonsense: 1 }), { type, code: 'parameter_unknown', param: 'nonsense', statusCode: 400 });
  await rejects(stripe.prices.create({ product: 'prod_x' }), { type, code: 'parameter_missing', param: 'currency', statusCode: 400 });
  await rejects(stripe.customers.retrieve('cus_x'), { type, code: 'resource_missing', param: 'id', statusCode: 404 });
});

test('summaries add up', async () => {
  const minute = START - (START % 60);
  const summaries = await stripe.billing.meters.listEventSummaries(made.meter.id, {
    customer: made.customer.id,
    start_time: minute,
    end_time: minute + 60,
  });
  assert.deepEqual(summaries.data.map((summary) => summary.aggregated_value), [1030]);
});

test('a preview and the invoice after the period', async () => {
  const preview = await stripe.invoices.createPreview({ customer: made.customer.id });
  assert.equal(preview.total, 2900 + 2);
  await control('clock', `at=${FEBRUARY_END + HOUR}`);
  const [invoice] = (await stripe.invoices.list({ customer: made.customer.id, limit: 1 })).data;
  assert.deepEqual([invoice.status, invoice.total, invoice.billing_reason], ['paid', 2902, 'subscription_cycle']);
  const lines = [];
  for await (const line of stripe.invoices.listLineItems(invoice.id, { limit: 1 })) lines.push(line);
  assert.deepEqual(
    lines.map((line) => [line.amount, line.quantity, line.description]),
    [
      [2900, 1, '1 call × API (at $29.00 / month)'],
      [0, 1000, '1000 call × API (Tier 1 at $0.00 / month)'],
      [2, 30, '30 call × API (Tier 2 at $0.0005 / month)'],
    ],
  );
  assert.equal(lines[2].pricing.price_details.price, made.graduated.id);
  assert.equal((await stripe.invoices.retrieve(invoice.id)).id, invoice.id);
});

test('a lost answer is retried without doing it twice', async () => {
  const count = async () => (await stripe.customers.list({ limit: 100 })).data.length;
  const before = await count();
  await control('fault', 'drop=/v1/customers');
  await stripe.customers.create({ name: 'Once' });
  assert.equal(await count(), before + 1);
});

test('items change and the subscription ends', async () => {
  const id = made.subscription.id;
  const [, metered] = made.subscription.items.data;
  const switched = await stripe.subscriptions.update(id, { items: [{ id: metered.id, price: made.volume.id }] });
  assert.equal(switched.items.data[1].price.id, made.volume.id);
  const item = await stripe.subscriptionItems.update(switched.items.data[0].id, { quantity: 2 });
  assert.equal(item.quantity, 2);
  assert.equal((await stripe.subscriptions.update(id, { cancel_at_period_end: true })).cancel_at_period_end, true);
  assert.equal((await stripe.subscriptions.update(id, { cancel_at_period_end: false })).cancel_at, null);
  assert.equal((await stripe.subscriptions.cancel(id, { invoice_now: true })).status, 'canceled');
  assert.equal((await stripe.subscriptions.retrieve(id)).status, 'canceled');
  assert.equal((await stripe.customers.del(made.customer.id)).deleted, true);
});

test('the events tell the story', async () => {
  const kinds = [];
  for await (const event of stripe.events.list({ limit: 100 })) kinds.push(event.type);
  for (const kind of ['billing.meter.created', 'customer.created', 'customer.subscription.created', 'invoice.created', 'invoice.finalized', 'invoice.paid', 'customer.subscription.updated', 'customer.subscription.deleted', 'customer.deleted']) {
    assert.ok(kinds.includes(kind), kind);
  }
  assert.equal(kinds.at(-1), 'billing.meter.created');
  const [latest] = (await stripe.events.list({ limit: 1 })).data;
  assert.equal((await stripe.events.retrieve(latest.id)).type, 'customer.deleted');
});

test('a card fails, is replaced, and the invoice is paid', async () => {
  const price = await stripe.prices.create({
    currency: 'usd',
    unit_amount: 1500,
    recurring: { interval: 'month' },
    product_data: { name: 'Flat' },
  });
  const customer = await stripe.customers.create({
    invoice_settings: { default_payment_method: 'pm_card_chargeCustomerFail' },
  });
  const items = [{ price: price.id }];
  await assert.rejects(
    stripe.subscriptions.create({ customer: customer.id, items, payment_behavior: 'error_if_incomplete' }),
    (error) => error instanceof Stripe.errors.StripeCardError && error.decline_code === 'generic_decline',
  );
  const subscription = await stripe.subscriptions.create({ customer: customer.id, items });
  assert.equal(subscription.status, 'incomplete');
  const paid = await stripe.invoices.pay(subscription.latest_invoice, { payment_method: 'pm_card_visa' });
  assert.equal(paid.status, 'paid');
  assert.equal((await stripe.subscriptions.retrieve(subscription.id)).status, 'active');
  made.flatPrice = price;
});

test('a visitor checks out', async () => {
  const session = await stripe.checkout.sessions.create({
    mode: 'subscription',
    customer_email: 'visitor@example.com',
    line_items: [{ price: made.flatPrice.id, quantity: 1 }],
    subscription_data: { metadata: { account: '7' } },
    success_url: 'https://app.example/done',
  });
  const page = await fetch(session.url);
  assert.match(await page.text(), /<button>/);
  const pressed = await fetch(session.url, { method: 'POST', redirect: 'manual' });
  assert.equal(pressed.headers.get('location'), 'https://app.example/done');
  const complete = await stripe.checkout.sessions.retrieve(session.id, { expand: ['subscription'] });
  assert.equal(complete.payment_status, 'paid');
  assert.equal(complete.subscription.metadata.account, '7');
});

test('a webhook endpoint is kept', async () => {
  const { id, secret } = await stripe.webhookEndpoints.create({
    url: 'https://app.example/hook',
    enabled_events: ['invoice.paid'],
  });
  assert.match(secret, /^whsec_/);
  const listed = await stripe.webhookEndpoints.list();
  assert.equal(listed.data[0].id, id);
});

/** Asserts that a call is refused just so. */
const refused = (promise, expected) =>
  assert.rejects(promise, (error) => {
    const actual = Object.fromEntries(Object.keys(expected).map((name) => [name, error[name]]));
    assert.deepEqual(actual, expected);
    return true;
  });

const once = { maxNetworkRetries: 0 };
const invalid = 'StripeInvalidRequestError';

test('what is made twice under one name is refused', async () => {
  const taken = { type: invalid, statusCode: 400, code: 'resource_already_exists' };
  await stripe.products.create({ id: 'farebox_pro', name: 'Pro' });
  await refused(stripe.products.create({ id: 'farebox_pro', name: 'Pro' }), { ...taken, param: 'id' });
  const price = { currency: 'usd', product: 'farebox_pro', unit_amount: 1, lookup_key: 'twice' };
  const first = await stripe.prices.create(price);
  await refused(stripe.prices.create(price), { ...taken, param: 'lookup_key' });
  const second = await stripe.prices.create({ ...price, transfer_lookup_key: true });
  assert.equal(second.lookup_key, 'twice');
  assert.equal((await stripe.prices.retrieve(first.id)).lookup_key, null);
  const meter = { display_name: 'Again', event_name: 'api_calls', default_aggregation: { formula: 'sum' } };
  await refused(stripe.billing.meters.create(meter), { ...taken, param: 'event_name' });
});

test('what is not there is missing', async () => {
  const missing = { type: invalid, statusCode: 404, code: 'resource_missing' };
  await refused(stripe.customers.retrieve('cus_none'), missing);
  await refused(stripe.products.retrieve('prod_none'), missing);
  await refused(stripe.prices.retrieve('price_none'), missing);
  await refused(stripe.billing.meters.retrieve('mtr_none'), missing);
  await refused(stripe.subscriptions.retrieve('sub_none'), missing);
  await refused(stripe.subscriptions.update('sub_none', { cancel_at_period_end: true }), missing);
  await refused(stripe.subscriptions.cancel('sub_none'), missing);
  await refused(stripe.subscriptions.cancel(made.subscription.id), missing);
  await refused(stripe.invoices.retrieve('in_none'), missing);
  await refused(stripe.invoices.pay('in_none'), missing);
  await refused(stripe.invoices.finalizeInvoice('in_none'), missing);
  await refused(stripe.checkout.sessions.retrieve('cs_test_none'), missing);
  await refused(stripe.events.retrieve('evt_none'), missing);
  await refused(stripe.v2.core.events.retrieve('evt_test_none'), { statusCode: 404 });
  assert.equal((await stripe.customers.retrieve(made.customer.id)).deleted, true);
});

test('one meter event at a time for a customer', async () => {
  const customer = await stripe.customers.create({ name: 'Busy' });
  const event = (identifier, id = customer.id) =>
    stripe.billing.meterEvents.create(
      { event_name: 'api_calls', identifier, payload: { stripe_customer_id: id, value: '1' } },
      once,
    );
  await control('fault', 'delay=/v1/billing/meter_events');
  const slow = event('slow');
  await new Promise((resolve) => setTimeout(resolve, 300));
  await refused(event('meanwhile'), { statusCode: 429, code: 'lock_timeout' });
  assert.equal((await slow).identifier, 'slow');
  assert.equal((await event('meanwhile')).identifier, 'meanwhile');
});

test('too many calls', async () => {
  await control('fault', 'rate_limit=/v1/customers');
  await refused(stripe.customers.create({ name: 'Hasty' }, once), { statusCode: 429, code: 'rate_limit' });
});

test('an idempotency key is for one request', async () => {
  const key = { ...once, idempotencyKey: 'once' };
  const first = await stripe.customers.create({ name: 'Ada' }, key);
  const again = await stripe.customers.create({ name: 'Ada' }, key);
  assert.equal(again.id, first.id);
  assert.equal(again.lastResponse.headers['idempotent-replayed'], 'true');
  const conflict = { type: 'StripeIdempotencyError', statusCode: 400 };
  await refused(stripe.customers.create({ name: 'Eve' }, key), conflict);
  await refused(stripe.products.create({ name: 'Ada' }, key), conflict);
  await control('fault', 'delay=/v1/customers');
  const flying = { ...once, idempotencyKey: 'flying' };
  const slow = stripe.customers.create({ name: 'Ada' }, flying);
  await new Promise((resolve) => setTimeout(resolve, 300));
  await refused(stripe.customers.create({ name: 'Ada' }, flying), { statusCode: 409, code: 'idempotency_key_in_use' });
  assert.equal((await slow).name, 'Ada');
});

test('a meter event of nobody is reported afterwards', async () => {
  await stripe.billing.meterEvents.create({
    event_name: 'api_calls',
    identifier: 'of-nobody',
    payload: { stripe_customer_id: 'cus_nobody', value: '1' },
  });
  const [notice] = (await stripe.v2.core.events.list({ object_id: made.meter.id })).data;
  assert.equal(notice.type, 'v1.billing.meter.error_report_triggered');
  assert.equal(notice.data, undefined);
  const { data } = await stripe.v2.core.events.retrieve(notice.id);
  assert.equal(data.reason.error_types[0].code, 'meter_event_customer_not_found');
  assert.equal(data.reason.error_types[0].sample_errors[0].request.identifier, 'of-nobody');
  assert.deepEqual((await stripe.v2.core.eventDestinations.list({ include: ['webhook_endpoint.url'] })).data, []);
});

test('a trial without a card pauses, and goes on with one', async () => {
  const customer = await stripe.customers.create({ name: 'Trying' });
  const subscription = await stripe.subscriptions.create({
    customer: customer.id,
    items: [{ price: made.flatPrice.id }],
    trial_period_days: 3,
    trial_settings: { end_behavior: { missing_payment_method: 'pause' } },
  });
  assert.equal(subscription.status, 'trialing');
  await refused(stripe.subscriptions.resume(subscription.id), { statusCode: 400 });
  await control('clock', `by=${3 * DAY}`);
  assert.equal((await stripe.subscriptions.retrieve(subscription.id)).status, 'paused');
  await stripe.customers.update(customer.id, { invoice_settings: { default_payment_method: 'pm_card_visa' } });
  assert.equal((await stripe.subscriptions.resume(subscription.id)).status, 'active');
  made.trying = subscription.id;
});

test('collection pauses', async () => {
  const pause = (pause_collection) => stripe.subscriptions.update(made.trying, { pause_collection });
  assert.equal((await pause({ behavior: 'keep_as_draft' })).pause_collection.behavior, 'keep_as_draft');
  assert.equal((await pause('')).pause_collection, null);
});

test('the cycle begins anew, and a draft is made final', async () => {
  const before = await stripe.subscriptions.retrieve(made.trying);
  await control('clock', `by=${DAY}`);
  const after = await stripe.subscriptions.update(made.trying, { billing_cycle_anchor: { type: 'now' }, proration_behavior: 'none' });
  assert.equal(after.billing_cycle_anchor, before.billing_cycle_anchor + DAY);
  await control('clock', `at=${after.items.data[0].current_period_end}`);
  const [draft] = (await stripe.invoices.list({ customer: after.customer, limit: 1 })).data;
  assert.equal(draft.status, 'draft');
  assert.equal(draft.period_end, after.items.data[0].current_period_end);
  const open = await stripe.invoices.finalizeInvoice(draft.id, { auto_advance: false });
  assert.equal(open.status, 'open');
  await refused(stripe.invoices.finalizeInvoice(draft.id), { statusCode: 400 });
  assert.equal((await stripe.invoices.pay(open.id)).status, 'paid');
  await refused(stripe.invoices.pay(open.id), { statusCode: 400 });
});

test('every list can be asked for one object', async () => {
  const { checkout, customers, events, invoices, prices, products, subscriptions, webhookEndpoints } = stripe;
  for (const kind of [checkout.sessions, customers, events, invoices, prices, products, subscriptions, webhookEndpoints]) {
    assert.equal((await kind.list({ limit: 1 })).data.length, 1);
  }
});

/** `POST /v1/customers/*`: an operation without its ids. */
const shape = ({ method, path }) =>
  `${method} ${path.replace(/\/(?:(?:cus|prod|price|mtr|sub|si|in|cs|evt|we|ed)_\w+|farebox_pro)(?=\/|$)/g, '/*')}`;

test('the SDK did all that our client does', async () => {
  const asked = new Set();
  const ours = await serve((request) => (asked.add(shape(request)), plausible(request)));
  const client = startClient(ours.address);
  for (const name of Object.keys(operations)) assert.equal(await client.perform(name), 'ok');
  await client.stop();
  await ours.stop();
  assert.ok(asked.size > 25);
  const done = new Set(exchanges.filter(({ status }) => status === 200).map(shape));
  assert.deepEqual([...asked].filter((operation) => !done.has(operation)), []);
});

test('every answer has the type that Stripe publishes', async () => {
  const answers = exchanges.filter(({ status, path }) => status === 200 && !path.startsWith('/_standin/')).map(({ answer }) => JSON.parse(answer));
  const { count, text } = typed(answers);
  assert.ok(count > 60, `only ${count} objects`);
  assert.match(text, /: ThinEvent = /);
  const made = { object: 'customer', id: 'cus_1', nonsense: 1 };
  await writeFile('answers.ts', text);
  await writeFile('nonsense.ts', typed([made]).text);
  await writeFile('tsconfig.answers.json', JSON.stringify({ extends: './tsconfig.json', files: ['answers.ts', 'nonsense.ts'] }));
  const { stdout } = spawnSync('node_modules/.bin/tsc', ['--project', 'tsconfig.answers.json', '--pretty', 'false'], { encoding: 'utf8' });
  const findings = stdout.split('\n').filter((line) => line.includes('error TS'));
  assert.deepEqual(findings.filter((line) => line.startsWith('answers.ts')), []);
  assert.ok(findings.some((line) => line.startsWith('nonsense.ts')), 'what is made up is not found');
});

test('every answer is as described', { skip: process.env.SPEC ? false : 'the description comes with stripe-mock' }, () => {
  const description = loadDescription(process.env.SPEC);
  const { answer: customer } = exchanges.find(({ method, path, status }) => method === 'POST' && path === '/v1/customers' && status === 200);
  const findings = new Set();
  let judged = 0;
  for (const { method, path, status, answer } of exchanges) {
    const operation = description.operation(method, path);
    if (!operation) {
      assert.match(path, /^\/(v2|_standin)\//, `${method} ${path} is not described`);
      continue;
    }
    judged += 1;
    for (const finding of description.findings(operation, status, JSON.parse(answer))) findings.add(finding);
  }
  assert.ok(judged > 80, `only ${judged} answers`);
  assert.deepEqual([...findings], []);
  const [wrong] = description.findings('GET /v1/customers/{customer}', 200, { ...JSON.parse(customer), created: 'today' });
  assert.match(wrong, /created must be integer/);
  assert.ok(description.findings('GET /v1/customers/{customer}', 200, { ...JSON.parse(customer), nonsense: 1 }).length > 0);
  assert.ok(description.findings('GET /v1/customers/{customer}', 404, { error: { code: 'no_type' } }).length > 0);
});

test('what the stand-in accepts, stripe-mock accepts', { skip: process.env.MOCK ? false : 'stripe-mock is not installed, as there is no Go' }, async () => {
  const mock = await startServer(process.env.MOCK, ['-http-addr', '127.0.0.1:0'], 1);
  const accepted = exchanges.filter(({ status, path }) => status === 200 && path.startsWith('/v1/'));
  const refusals = new Set();
  for (const exchange of accepted) {
    const { status, body } = await forward(mock.addresses[0], exchange);
    if (status !== 200) refusals.add(`${shape(exchange)} ${decodeURIComponent(exchange.body)}: ${JSON.parse(body).error.message.slice(0, 200)}`);
  }
  await mock.stop();
  // Its description is older than the form of this parameter.
  assert.deepEqual([...refusals].filter((refusal) => !refusal.includes('billing_cycle_anchor[type]=now')), []);
  assert.equal(refusals.size, 1);
});
