// Answers, written down as TypeScript that gives each object the type that Stripe's SDK publishes for it: so `tsc` says what is
// missing, of another kind, or made up, for exactly the API version that we name.

const TYPES = {
  'billing.meter': 'Stripe.Billing.Meter',
  'billing.meter_event': 'Stripe.Billing.MeterEvent',
  'billing.meter_event_adjustment': 'Stripe.Billing.MeterEventAdjustment',
  'billing.meter_event_summary': 'Stripe.Billing.MeterEventSummary',
  'checkout.session': 'Stripe.Checkout.Session',
  customer: 'Stripe.Customer',
  // The object within an event may be any.
  event: 'Omit<Stripe.EventBase, "data"> & { data: { object: unknown; previous_attributes?: unknown } }',
  invoice: 'Stripe.Invoice',
  line_item: 'Stripe.InvoiceLineItem',
  price: 'Stripe.Price',
  product: 'Stripe.Product',
  subscription: 'Stripe.Subscription',
  subscription_item: 'Stripe.SubscriptionItem',
  'v2.core.event': 'ThinEvent',
  webhook_endpoint: 'Stripe.WebhookEndpoint',
};

/** A list of thin events leaves out their data. The types leave out what may be null. */
const HEAD = `import Stripe from 'stripe';
declare const decimal: Stripe.Decimal;
type AnyThinEvent = Awaited<ReturnType<Stripe['v2']['core']['events']['retrieve']>>;
type MeterReport = Extract<AnyThinEvent, { type: 'v1.billing.meter.error_report_triggered' }>;
type Known = 'id' | 'object' | 'created' | 'livemode' | 'type' | 'related_object';
type ThinEvent = Pick<MeterReport, Known> & Partial<Pick<MeterReport, 'data'>> & { context: null; reason: null };`;

/** A value as the SDK hands it over: decimals, which travel as text, are objects. */
const literal = (value, name) => {
  if (name?.endsWith('_decimal') && value !== null) return 'decimal';
  if (Array.isArray(value)) return `[${value.map((each) => literal(each)).join(', ')}]`;
  if (value === null || typeof value !== 'object') return JSON.stringify(value);
  return `{ ${Object.entries(value).map(([key, each]) => `${JSON.stringify(key)}: ${literal(each, key)}`).join(', ')} }`;
};

/** The text, and how many objects are in it. An answer is an object or a list; of what is deleted only a stub is left. */
export const typed = (answers) => {
  const isList = ({ object, data }) => object === 'list' || (!object && Array.isArray(data));
  const objects = answers.flatMap((answer) => (isList(answer) ? answer.data : [answer])).filter(({ deleted }) => !deleted);
  const lines = objects.map((object) => {
    const type = TYPES[object.object];
    if (!type) throw new Error(`${object.object} has no type here`);
    return `{ const answer: ${type} = ${literal(object)}; }`;
  });
  const distinct = [...new Set(lines)];
  return { count: distinct.length, text: [HEAD, ...distinct, ''].join('\n') };
};
