// Stripe's published description (OpenAPI), as stripe-mock brings it along, and what it says of an answer.

import { readFileSync } from 'node:fs';
import Ajv from 'ajv';

/** A schema of OpenAPI 3.0 in JSON Schema: null where it is nullable, and nothing beyond the properties that are named. */
const translated = (schema) => {
  if (Array.isArray(schema)) return schema.map(translated);
  if (schema === null || typeof schema !== 'object') return schema;
  const { nullable, discriminator, ...rest } = schema;
  const result = Object.fromEntries(Object.entries(rest).map(([name, value]) => [name, translated(value)]));
  if (result.properties && Object.keys(result.properties).length && !('additionalProperties' in result)) result.additionalProperties = false;
  return nullable === true ? { anyOf: [result, { type: 'null' }] } : result;
};

const parameter = /\{[^}]+\}/g;
const pattern = (template) => new RegExp(`^${template.replace(parameter, '[^/]+')}$`);

/** What the SDK's types have, and the description does not: it leaves it out, or is older. */
const LEFT_OUT = {
  'checkout.session': ['allowed_payment_method_types'],
  product: ['tax_details', 'type'],
  recurring: ['trial_period_days'],
  subscription_item: ['current_trial', 'plan'],
  subscriptions_resource_trial_settings_end_behavior: ['billing_cycle_anchor'],
};

export const loadDescription = (file) => {
  const { info, paths, components } = JSON.parse(readFileSync(file, 'utf8'));
  for (const [name, properties] of Object.entries(LEFT_OUT)) {
    for (const property of properties) {
      const known = components.schemas[name].properties;
      if (property in known) throw new Error(`the description has ${name}.${property} by now`);
      known[property] = {};
    }
  }
  const ajv = new Ajv({ strict: false, allErrors: true, validateFormats: false });
  ajv.addSchema({ $id: 'stripe', components: translated(components) });
  // Paths without parameters first: `/v1/invoices/upcoming` is not an invoice.
  const templates = Object.keys(paths).sort((a, b) => (a.match(parameter)?.length ?? 0) - (b.match(parameter)?.length ?? 0));
  const validators = new Map();

  const schemaOf = (operation, status) => {
    const { content } = operation.responses[status] ?? operation.responses.default;
    return JSON.parse(JSON.stringify(translated(content['application/json'].schema)).replaceAll('"#/components', '"stripe#/components'));
  };

  return {
    version: info.version,
    /** `GET /v1/customers/{customer}`, or undefined if no such operation is described. */
    operation: (method, path) => {
      const template = templates.find((candidate) => paths[candidate][method.toLowerCase()] && pattern(candidate).test(path));
      return template && `${method} ${template}`;
    },
    /** What is wrong with an answer to an operation, a line each. */
    findings: (operation, status, body) => {
      const key = `${operation} ${status}`;
      if (!validators.has(key)) {
        const [method, template] = operation.split(' ');
        validators.set(key, ajv.compile(schemaOf(paths[template][method.toLowerCase()], String(status))));
      }
      const validate = validators.get(key);
      if (validate(body)) return [];
      const lines = validate.errors.map((error) => {
        const what = error.params.additionalProperty ?? error.params.missingProperty ?? error.params.allowedValues ?? '';
        return `${operation} ${status}: ${error.instancePath.replace(/\/\d+/g, '/*') || '/'} ${error.message} ${what}`.trim();
      });
      return [...new Set(lines)];
    },
  };
};
