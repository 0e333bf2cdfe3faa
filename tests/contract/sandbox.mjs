// @ts-check
// What we assume of Stripe and its documentation does not settle, asked of a real account: `STRIPE_TEST_KEY=sk_test_… run.sh sandbox`.
//
// It makes products, prices, meters, customers and subscriptions of its own on test clocks, and takes away what can be taken away.
// STRIPE_BASE_URL leads elsewhere than to Stripe. Each assumption is a line: `settled` as assumed, `otherwise`, or `not settled`
// and why. It ends with another code than 0 if one is otherwise, or if something failed.

import { randomBytes } from 'node:crypto';
import { setTimeout as sleep } from 'node:timers/promises';
import Stripe from 'stripe';

const MINUTE = 60;
const HOUR = 3600;
const DAY = 86400;
/** How long we wait for what Stripe does by and by: sums of meter events, and reports about them. */
const PATIENCE_MS = Number(process.env.STRIPE_PATIENCE_S ?? 900) * 1000;

const refuse = (sentence) => {
  console.error(`contract: ${sentence}`);
  process.exit(2);
};

const key = process.env.STRIPE_TEST_KEY ?? '';
if (/^[sr]k_live_/.test(key)) refuse('STRIPE_TEST_KEY is a live key. This makes customers and invoices: give it the key of a sandbox.');
if (!/^[sr]k_test_/.test(key)) refuse('set STRIPE_TEST_KEY to the secret key of a sandbox, sk_test_… or rk_test_…');

const base = new URL(process.env.STRIPE_BASE_URL ?? 'https://api.stripe.com');
const stripe = new Stripe(key, {
  protocol: base.protocol === 'http:' ? 'http' : 'https',
  host: base.hostname,
  port: base.port || undefined,
  telemetry: false,
});

/** Tells this run's objects from those of another. */
const run = randomBytes(4).toString('hex');

class NotSettled extends Error {}

/** What a call is refused with; `null` if it is not refused. */
const refusal = async (promise) => {
  try {
    await promise;
    return null;
  } catch (error) {
    if (error instanceof Stripe.errors.StripeError && error.statusCode) return error;
    throw error;
  }
};

const described = (error) =>
  error ? `${error.statusCode} ${error.rawType ?? error.type}, code ${error.code ?? 'none'}: ${error.message}` : 'it was accepted';

/** Asks again and again until the answer is not undefined; says how many seconds it took. */
const eventually = async (ask, what) => {
  const start = Date.now();
  for (;;) {
    const answer = await ask();
    const seconds = Math.round((Date.now() - start) / 1000);
    if (answer !== undefined) return { answer, seconds };
    if (Date.now() - start > PATIENCE_MS) throw new NotSettled(`${what} within ${seconds} s`);
    await sleep(1000);
  }
};

/** Takes away, last things first, what was made. */
const cleanup = [];

const startClock = async (name) => {
  const clock = await stripe.testHelpers.testClocks.create({ frozen_time: Math.floor(Date.now() / 1000), name: `farebox ${run} ${name}` });
  cleanup.push(() => stripe.testHelpers.testClocks.del(clock.id));
  const advance = async (time) => {
    await stripe.testHelpers.testClocks.advance(clock.id, { frozen_time: time });
    await eventually(async () => {
      const { status } = await stripe.testHelpers.testClocks.retrieve(clock.id);
      if (status === 'internal_failure') throw new Error(`the clock ${clock.id} failed`);
      return status === 'ready' ? true : undefined;
    }, 'the test clock did not arrive');
  };
  return { id: clock.id, now: clock.frozen_time, advance };
};

const createMeter = async (name) => {
  const meter = await stripe.billing.meters.create({
    display_name: `Farebox ${run} ${name}`,
    event_name: `farebox_${run}_${name}`,
    default_aggregation: { formula: 'sum' },
    customer_mapping: { type: 'by_id', event_payload_key: 'stripe_customer_id' },
    value_settings: { event_payload_key: 'value' },
  });
  cleanup.push(() => stripe.billing.meters.deactivate(meter.id));
  return meter;
};

const createPrice = async (params) => {
  const price = await stripe.prices.create({ currency: 'usd', ...params });
  cleanup.push(() => stripe.prices.update(price.id, { active: false }));
  return price;
};

const meteredPrice = (product, meter) =>
  createPrice({
    product,
    recurring: { interval: 'month', usage_type: 'metered', meter: meter.id },
    billing_scheme: 'tiered',
    tiers_mode: 'graduated',
    tiers: [{ up_to: 10, unit_amount: 0 }, { up_to: 'inf', unit_amount: 3 }],
    lookup_key: meter.event_name,
  });

const createProduct = async (id) => {
  const product = await stripe.products.create({ id, name: `Farebox ${run}` });
  cleanup.push(() => stripe.products.update(product.id, { active: false }));
  return product;
};

/**
 * What the assumptions are about: filled by `prepare`.
 * @type {any}
 */
const world = {};

const prepare = async () => {
  const product = await createProduct(`farebox_${run}`);
  const meter = await createMeter('calls');
  const spare = await createMeter('spare');
  const flat = await createPrice({ product: product.id, unit_amount: 2900, recurring: { interval: 'month' }, lookup_key: `farebox_${run}_flat` });
  const metered = await meteredPrice(product.id, meter);
  const former = await meteredPrice(product.id, spare);
  const clock = await startClock('pays');
  const customer = await stripe.customers.create({
    name: `Farebox ${run}`,
    test_clock: clock.id,
    payment_method: 'pm_card_visa',
    invoice_settings: { default_payment_method: 'pm_card_visa' },
  });
  const subscription = await stripe.subscriptions.create({
    customer: customer.id,
    items: [{ price: flat.id }, { price: metered.id }, { price: former.id }],
  });
  Object.assign(world, { product, meter, spare, flat, metered, former, clock, customer, subscription });
  world.minute = clock.now - (clock.now % MINUTE);
};

const meterEvent = ({ meter, identifier, value, customer = world.customer.id }, options) =>
  stripe.billing.meterEvents.create(
    { event_name: meter.event_name, identifier, timestamp: world.minute, payload: { stripe_customer_id: customer, value: String(value) } },
    options,
  );

const counted = async (meter, start, end) => {
  let sum = 0;
  const range = { customer: world.customer.id, start_time: start, end_time: end, limit: 100 };
  for await (const summary of stripe.billing.meters.listEventSummaries(meter.id, range)) sum += summary.aggregated_value;
  return sum;
};

const cycleInvoices = async (subscription) => {
  const { data } = await stripe.invoices.list({ subscription, limit: 100 });
  return data.filter(({ billing_reason: reason }) => reason === 'subscription_cycle');
};

/** Each gives whether it is as assumed, and what was seen. */
const assumptions = {
  'a known identifier is refused with 400 and "An event already exists with identifier"': async () => {
    const event = { meter: world.meter, identifier: `${run}-usage`, value: 1030 };
    await meterEvent(event, { idempotencyKey: `${run}-usage-0` });
    const error = await refusal(meterEvent(event, { idempotencyKey: `${run}-usage-1` }));
    await meterEvent({ meter: world.spare, identifier: `${run}-spare`, value: 12 });
    const says = error?.message.startsWith(`An event already exists with identifier ${event.identifier}`) ?? false;
    const as = error?.statusCode === 400 && error.rawType === 'invalid_request_error';
    return { as: as && (says || error.code === 'duplicate_meter_event'), seen: described(error) };
  },

  'sums are there within a day': async () => {
    const ask = async () => ((await counted(world.meter, world.minute, world.minute + MINUTE)) === 1030 ? true : undefined);
    const { seconds } = await eventually(ask, 'the sum was not there');
    return { as: true, seen: `after ${seconds} s` };
  },

  'a sum is of whole minutes, from the first up to the last': async () => {
    const own = await counted(world.meter, world.minute, world.minute + MINUTE);
    const before = await counted(world.meter, world.minute - MINUTE, world.minute);
    const next = await counted(world.meter, world.minute + MINUTE, world.minute + 2 * MINUTE);
    const askew = await refusal(counted(world.meter, world.minute + 1, world.minute + MINUTE + 1));
    if (own === 0) throw new NotSettled('no sum is there');
    const seen = `${before} before, ${own} within, ${next} after; between minutes: ${described(askew)}`;
    return { as: own === 1030 && before === 0 && next === 0 && askew?.statusCode === 400, seen };
  },

  'an error report names the identifier, or the idempotency key': async () => {
    const [identifier, idempotencyKey] = [`${run}-nobody`, `${run}-nobody-0`];
    const refused = await refusal(meterEvent({ meter: world.meter, identifier, value: 1, customer: 'cus_nobody' }, { idempotencyKey }));
    if (refused) throw new NotSettled(`an event of nobody is refused at once: ${described(refused)}`);
    const ask = async () => {
      const notices = (await stripe.v2.core.events.list({ object_id: world.meter.id, limit: 20 })).data;
      return notices.find(({ type }) => type === 'v1.billing.meter.error_report_triggered');
    };
    const { answer, seconds } = await eventually(ask, 'no report came');
    const event = await stripe.v2.core.events.retrieve(answer.id);
    if (event.type !== 'v1.billing.meter.error_report_triggered' || !event.data) throw new NotSettled('the report has no data');
    const [error] = event.data.reason.error_types;
    const named = error.sample_errors[0].request.identifier;
    const means = { [identifier]: 'the identifier', [idempotencyKey]: 'the idempotency key' }[named];
    return { as: means !== undefined, seen: `${error.code} after ${seconds} s names ${means ?? named}` };
  },

  'a second price with a lookup key is refused as resource_already_exists, or at least with 400': async () => {
    const { product, flat } = world;
    const params = { product: product.id, currency: 'usd', unit_amount: 1, recurring: { interval: 'month' }, lookup_key: flat.lookup_key };
    const error = await refusal(stripe.prices.create(params));
    return { as: error?.statusCode === 400, seen: described(error) };
  },

  'a second product with an id is refused as resource_already_exists': async () => {
    const error = await refusal(stripe.products.create({ id: world.product.id, name: 'Again' }));
    return { as: error?.statusCode === 400 && error.code === 'resource_already_exists', seen: described(error) };
  },

  'a second active meter with an event name is refused with 400': async () => {
    const { event_name } = world.meter;
    const error = await refusal(stripe.billing.meters.create({ display_name: 'Again', event_name, default_aggregation: { formula: 'sum' } }));
    return { as: error?.statusCode === 400, seen: described(error) };
  },

  'the portal refuses to switch a subscription of several prices, or offers it: either is followed': async () => {
    const { product, flat, metered, customer, subscription } = world;
    const features = {
      // Without it, updates are refused altogether.
      payment_method_update: { enabled: true },
      subscription_update: {
        enabled: true,
        default_allowed_updates: ['price'],
        products: [{ product: product.id, prices: [flat.id] }],
      },
    };
    let configuration;
    try {
      configuration = await stripe.billingPortal.configurations.create({ features });
    } catch (error) {
      throw new NotSettled(error.statusCode === 404 ? 'this server has no portal' : described(error));
    }
    cleanup.push(() => stripe.billingPortal.configurations.update(configuration.id, { active: false }));
    const withMetered = structuredClone(features);
    withMetered.subscription_update.products[0].prices.push(metered.id);
    const offering = await refusal(
      stripe.billingPortal.configurations.create({ features: withMetered }).then(({ id }) => stripe.billingPortal.configurations.update(id, { active: false })),
    );
    const switching = await refusal(
      stripe.billingPortal.sessions.create({
        customer: customer.id,
        configuration: configuration.id,
        flow_data: { type: 'subscription_update', subscription_update: { subscription: subscription.id } },
      }),
    );
    return { as: !switching || switching.statusCode === 400, seen: `switching: ${described(switching)}; offering a metered price: ${described(offering)}` };
  },

  "an invoice's period_end is the second of the renewal": async () => {
    const { clock, subscription } = world;
    world.renewal = subscription.items.data[0].current_period_end;
    await clock.advance(world.renewal + MINUTE);
    const [invoice] = await cycleInvoices(subscription.id);
    if (!invoice) throw new NotSettled('no invoice was made');
    world.invoice = invoice;
    return { as: invoice.period_end === world.renewal, seen: `period_end ${invoice.period_end}, renewal ${world.renewal}, ${invoice.status}` };
  },

  'an invoice stays a draft for an hour at least, and is paid within three days': async () => {
    const { clock, renewal, invoice } = world;
    if (!invoice) throw new NotSettled('there is no invoice');
    const read = async (after) => {
      await clock.advance(renewal + after);
      return (await stripe.invoices.retrieve(invoice.id)).status;
    };
    const early = await read(HOUR / 2);
    for (const after of [2 * HOUR, 26 * HOUR, 74 * HOUR]) {
      world.final = await read(after);
      if (world.final !== 'draft') return { as: early === 'draft' && world.final === 'paid', seen: `${early} after half an hour, ${world.final} after ${after / HOUR} h` };
    }
    return { as: false, seen: 'still a draft after three days' };
  },

  'to remove a metered item after its last invoice costs nothing': async () => {
    const { subscription, former, final } = world;
    if (final !== 'paid') throw new NotSettled('the last invoice is not paid');
    const invoices = async () => (await stripe.invoices.list({ subscription: subscription.id, limit: 100 })).data.length;
    const preview = async () => (await stripe.invoices.createPreview({ subscription: subscription.id })).total;
    const [had, owed] = [await invoices(), await preview()];
    const item = subscription.items.data.find(({ price }) => price.id === former.id);
    const update = { items: [{ id: item.id, deleted: true }], proration_behavior: 'none' };
    const error = await refusal(stripe.subscriptions.update(subscription.id, update));
    if (error) return { as: false, seen: described(error) };
    const [has, owes] = [await invoices(), await preview()];
    return { as: has === had && owes === owed, seen: `${has - had} invoices more, the next one ${owed} before and ${owes} after` };
  },

  'of several open invoices the newest decides: paid, the subscription is active': async () => {
    const { product } = world;
    const clock = await startClock('fails');
    const price = await createPrice({ product: product.id, unit_amount: 500, recurring: { interval: 'week' } });
    const customer = await stripe.customers.create({
      name: `Farebox ${run} fails`,
      test_clock: clock.id,
      payment_method: 'pm_card_chargeCustomerFail',
      invoice_settings: { default_payment_method: 'pm_card_chargeCustomerFail' },
    });
    // The trial lets it begin although the card will fail.
    const { id } = await stripe.subscriptions.create({ customer: customer.id, items: [{ price: price.id }], trial_period_days: 1 });
    const status = async () => (await stripe.subscriptions.retrieve(id)).status;
    const begin = clock.now;
    world.failing = { clock, id, status, at: begin + 8 * DAY + 4 * HOUR };
    await clock.advance(begin + DAY + 4 * HOUR);
    const first = await status();
    await clock.advance(world.failing.at);
    const open = (await cycleInvoices(id)).filter((invoice) => invoice.status === 'open');
    if (open.length < 2) throw new NotSettled(`${first} after the first failure, then ${open.length} open invoices`);
    await stripe.invoices.pay(open[0].id, { paid_out_of_band: true });
    const then = await status();
    return { as: first === 'past_due' && then === 'active', seen: `${first} with the first, ${then} with the newest of ${open.length} paid` };
  },

  'after the last attempt it is canceled, unpaid, or still past due': async () => {
    if (!world.failing) throw new NotSettled('there is no subscription that fails');
    const { clock, id, status, at } = world.failing;
    const seen = [];
    for (let day = 3.5; day <= 63; day += 3.5) {
      await clock.advance(at + day * DAY);
      const now = await status();
      if (seen.at(-1) !== now) seen.push(now);
      if (now === 'canceled' || now === 'unpaid') {
        const attempts = (await cycleInvoices(id)).map(({ attempt_count: count }) => count);
        return { as: true, seen: `${seen.join(', ')}; attempts by invoice, newest first: ${attempts.join(', ')}` };
      }
    }
    return { as: seen.at(-1) === 'past_due', seen: `${seen.join(', ')}: the account leaves it so` };
  },
};

const tally = { settled: 0, otherwise: 0, 'not settled': 0 };
let failed = false;

const report = (verdict, name, seen) => {
  tally[verdict] += 1;
  console.log(`${verdict.padEnd(11)}  ${name}\n${' '.repeat(13)}${seen}`);
};

try {
  await prepare();
  for (const [name, check] of Object.entries(assumptions)) {
    try {
      const { as, seen } = await check();
      report(as ? 'settled' : 'otherwise', name, seen);
    } catch (error) {
      if (!(error instanceof NotSettled)) failed = true;
      report('not settled', name, error instanceof NotSettled ? error.message : `failed: ${error.message}`);
    }
  }
} catch (error) {
  failed = true;
  console.error(`contract: the scenario could not be set up: ${error.message}`);
} finally {
  for (const takeAway of cleanup.reverse()) {
    await takeAway().catch((error) => {
      failed = true;
      console.error(`contract: something is left in the account: ${error.message}`);
    });
  }
}
console.log(`${tally.settled} settled as assumed, ${tally.otherwise} otherwise, ${tally['not settled']} not settled`);
process.exitCode = failed || tally.otherwise > 0 ? 1 : 0;
