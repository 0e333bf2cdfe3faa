// @ts-check
// Every operation of our client, as Stripe's own SDK does it. The names and the arguments are those of
// `shared/stripe/examples/contract.rs`; `tsc` holds the parameters to the types that Stripe publishes for our API version.

import Stripe from 'stripe';

const MINUTE = 1_795_000_020;
const PAGE = 100;
const ONE = { limit: 1 };
const metadata = { tier: 'a & b' };
const email = 'ada+1@example.com';
const shown = { active: true, expand: ['data.tiers'], limit: PAGE };

/**
 * Reads a list to its end.
 * @param {AsyncIterable<unknown>} list
 */
const all = async (list) => {
  for await (const _ of list);
};

/** @type {Stripe.PriceCreateParams.Recurring} */
const metered = { interval: 'month', meter: 'mtr_1', usage_type: 'metered' };
/** @type {Stripe.PriceCreateParams} */
const price = {
  product: 'prod_1',
  currency: 'usd',
  lookup_key: 'pro',
  transfer_lookup_key: true,
  nickname: 'Pro, monthly',
  metadata,
};
const perUnit = { billing_scheme: /** @type {const} */ ('per_unit'), unit_amount_decimal: Stripe.Decimal.from('0.05') };
/** @param {Stripe.PriceCreateParams.TiersMode} mode */
const tiered = (mode) => ({
  recurring: metered,
  billing_scheme: /** @type {const} */ ('tiered'),
  tiers_mode: mode,
  tiers: [
    { up_to: 10_000, unit_amount_decimal: Stripe.Decimal.from('0') },
    { up_to: /** @type {const} */ ('inf'), unit_amount_decimal: Stripe.Decimal.from('0.05'), flat_amount: 100 },
  ],
});

/** @type {Stripe.SubscriptionCreateParams} */
const subscription = {
  customer: 'cus_1',
  items: [{ price: 'price_1' }, { price: 'price_2' }],
  trial_period_days: 14,
  metadata,
};
/** @param {Stripe.SubscriptionCreateParams.TrialSettings.EndBehavior.MissingPaymentMethod} missing */
const trying = (missing) => ({
  ...subscription,
  default_payment_method: 'pm_1',
  trial_settings: { end_behavior: { missing_payment_method: missing } },
});

/** What our client always says of a change. */
const prorated = { proration_behavior: /** @type {const} */ ('create_prorations') };

/** @type {Stripe.Checkout.SessionCreateParams} */
const checkout = {
  mode: 'subscription',
  line_items: [{ price: 'price_1', quantity: 1 }, { price: 'price_2' }],
  client_reference_id: 'visit-1',
  subscription_data: { trial_period_days: 14, metadata },
  metadata,
  success_url: 'https://app.example/done?session={CHECKOUT_SESSION_ID}',
  cancel_url: 'https://app.example/back',
};

/** @type {Record<string, (stripe: Stripe) => Promise<unknown>>} */
export const operations = {
  report_meter_event: (stripe) =>
    stripe.billing.meterEvents.create({
      event_name: 'api_calls',
      identifier: 'id-1',
      payload: { stripe_customer_id: 'cus_1', value: '25' },
      timestamp: MINUTE,
    }),
  event_summary: (stripe) =>
    all(stripe.billing.meters.listEventSummaries('mtr_1', { customer: 'cus_1', start_time: MINUTE, end_time: MINUTE + 60, limit: PAGE })),
  create_meter: (stripe) =>
    stripe.billing.meters.create({
      event_name: 'api_calls',
      display_name: 'API calls',
      default_aggregation: { formula: 'sum' },
      customer_mapping: { type: 'by_id', event_payload_key: 'stripe_customer_id' },
      value_settings: { event_payload_key: 'value' },
    }),
  find_meter: (stripe) => all(stripe.billing.meters.list({ status: 'active', limit: PAGE })),
  meters: (stripe) => all(stripe.billing.meters.list({ status: 'active', limit: PAGE })),

  create_product: (stripe) => stripe.products.create({ name: 'Pro', metadata }),
  create_product_with_id: (stripe) => stripe.products.create({ id: 'farebox_pro', name: 'Pro', metadata }),
  find_product: (stripe) => stripe.products.retrieve('prod_1'),
  update_product: (stripe) => stripe.products.update('prod_1', { name: 'Pro', metadata }),

  create_flat_price: (stripe) =>
    stripe.prices.create({ product: 'prod_1', currency: 'usd', unit_amount: 4900, recurring: { interval: 'year' }, lookup_key: 'pro' }),
  create_metered_price: (stripe) =>
    stripe.prices.create({ product: 'prod_1', currency: 'usd', ...perUnit, recurring: metered, lookup_key: 'calls' }),
  'create_price: flat': (stripe) => stripe.prices.create({ ...price, unit_amount: 4900, recurring: { interval: 'month' } }),
  'create_price: per unit': (stripe) => stripe.prices.create({ ...price, ...perUnit, recurring: metered }),
  'create_price: graduated': (stripe) => stripe.prices.create({ ...price, ...tiered('graduated') }),
  'create_price: volume': (stripe) => stripe.prices.create({ ...price, ...tiered('volume') }),
  find_price: (stripe) => stripe.prices.list({ ...shown, lookup_keys: ['pro'], limit: 1 }),
  prices_by_lookup_keys: (stripe) => all(stripe.prices.list({ ...shown, lookup_keys: ['a', 'b'] })),
  prices_of_product: (stripe) => all(stripe.prices.list({ ...shown, product: 'prod_1' })),

  create_customer: (stripe) => stripe.customers.create({ name: 'Ada', email, metadata }),
  customer: (stripe) => stripe.customers.retrieve('cus_1'),
  update_customer: (stripe) =>
    stripe.customers.update('cus_1', {
      name: 'Ada',
      email,
      invoice_settings: { default_payment_method: 'pm_1' },
      metadata: { gone: '' },
    }),

  create_subscription: (stripe) => stripe.subscriptions.create(subscription),
  'subscribe: or cancel': (stripe) => stripe.subscriptions.create(trying('cancel')),
  'subscribe: or invoice': (stripe) => stripe.subscriptions.create(trying('create_invoice')),
  'subscribe: or pause': (stripe) => stripe.subscriptions.create(trying('pause')),
  subscription: (stripe) => stripe.subscriptions.retrieve('sub_1'),
  'subscription: of two pages': async (stripe) => {
    const { id, items } = await stripe.subscriptions.retrieve('sub_long');
    await stripe.subscriptionItems.list({ subscription: id, limit: PAGE, starting_after: items.data[0].id });
  },
  subscriptions_of: (stripe) => all(stripe.subscriptions.list({ customer: 'cus_1', status: 'all', limit: PAGE })),
  'update_subscription: items': (stripe) =>
    stripe.subscriptions.update('sub_1', {
      items: [
        { price: 'price_3' },
        { id: 'si_1', price: 'price_2' },
        { id: 'si_2', deleted: true, clear_usage: true },
        { id: 'si_3', deleted: true },
      ],
      proration_behavior: 'none',
      metadata,
    }),
  'update_subscription: invoiced': (stripe) =>
    stripe.subscriptions.update('sub_1', { proration_behavior: 'always_invoice', proration_date: MINUTE }),
  'update_subscription: ending': (stripe) => stripe.subscriptions.update('sub_1', { ...prorated, cancel_at_period_end: true }),
  'update_subscription: staying': (stripe) => stripe.subscriptions.update('sub_1', { ...prorated, cancel_at_period_end: false }),
  'update_subscription: trial ends': (stripe) => stripe.subscriptions.update('sub_1', { ...prorated, trial_end: 'now' }),
  'update_subscription: trial moves': (stripe) => stripe.subscriptions.update('sub_1', { ...prorated, trial_end: MINUTE }),
  'update_subscription: cycle begins': (stripe) =>
    stripe.subscriptions.update('sub_1', { ...prorated, billing_cycle_anchor: { type: 'now' } }),
  'update_subscription: cycle stays': (stripe) =>
    stripe.subscriptions.update('sub_1', { ...prorated, billing_cycle_anchor: { type: 'unchanged' } }),
  cancel_subscription: (stripe) => stripe.subscriptions.cancel('sub_1', { invoice_now: true, prorate: true }),
  resume_subscription: (stripe) => stripe.subscriptions.resume('sub_1'),
  'pause_collection: as drafts': (stripe) =>
    stripe.subscriptions.update('sub_1', { pause_collection: { behavior: 'keep_as_draft' } }),
  'pause_collection: uncollectible': (stripe) =>
    stripe.subscriptions.update('sub_1', { pause_collection: { behavior: 'mark_uncollectible', resumes_at: MINUTE } }),
  'pause_collection: void': (stripe) => stripe.subscriptions.update('sub_1', { pause_collection: { behavior: 'void' } }),
  resume_collection: (stripe) => stripe.subscriptions.update('sub_1', { pause_collection: '' }),

  invoices: (stripe) => all(stripe.invoices.list({ customer: 'cus_1', limit: PAGE })),
  invoice: (stripe) => stripe.invoices.retrieve('in_1'),
  'invoice: of two pages': async (stripe) => {
    const { lines } = await stripe.invoices.retrieve('in_long');
    await stripe.invoices.listLineItems('in_long', { limit: PAGE, starting_after: lines.data[0].id });
  },
  invoice_times: (stripe) => stripe.invoices.list({ limit: PAGE }),
  pay_invoice: (stripe) => stripe.invoices.pay('in_1'),
  finalize_invoice: (stripe) => stripe.invoices.finalizeInvoice('in_1'),

  'create_checkout_session: customer': (stripe) => stripe.checkout.sessions.create({ ...checkout, customer: 'cus_1' }),
  'create_checkout_session: email': (stripe) => stripe.checkout.sessions.create({ ...checkout, customer_email: email }),
  'create_checkout_session: anyone': (stripe) => stripe.checkout.sessions.create(checkout),
  checkout_session: (stripe) => stripe.checkout.sessions.retrieve('cs_test_1'),

  event: (stripe) => stripe.events.retrieve('evt_1'),
  thin_event: (stripe) => stripe.v2.core.events.retrieve('evt_test_1'),
  webhook_endpoints: (stripe) => all(stripe.webhookEndpoints.list({ limit: PAGE })),
  event_destinations: (stripe) => all(stripe.v2.core.eventDestinations.list({ limit: PAGE, include: ['webhook_endpoint.url'] })),

  'access: Meters': (stripe) => stripe.billing.meters.list(ONE),
  // The types rightly demand what makes an event.
  'access: Meter events': (stripe) => stripe.billing.meterEvents.create(/** @type {any} */ ({})),
  'access: Products': (stripe) => stripe.products.list(ONE),
  'access: Prices': (stripe) => stripe.prices.list(ONE),
  'access: Customers': (stripe) => stripe.customers.list(ONE),
  'access: Subscriptions': (stripe) => stripe.subscriptions.list(ONE),
  'access: Invoices': (stripe) => stripe.invoices.list(ONE),
  'access: Checkout Sessions': (stripe) => stripe.checkout.sessions.list(ONE),
  'access: Events': (stripe) => stripe.events.list(ONE),
  date: (stripe) => stripe.billing.meters.list(ONE),
};
