// rate-limiter-flexible on DynamoDB as its documentation uses it: one consume() per request.
import { RateLimiterDynamo } from 'rate-limiter-flexible';
import { client } from './client.mjs';
import { allow, run } from './loop.mjs';

const limiter = await new Promise((resolve, reject) => {
  const made = new RateLimiterDynamo(
    { storeClient: client, points: 1_000_000_000, duration: 60, keyPrefix: 'bench', tableName: process.env.LIMITER_TABLE },
    (error) => (error ? reject(error) : resolve(made)),
  );
});
run(async (event) => {
  const { remainingPoints } = await limiter.consume(event.headers['x-api-key']);
  return allow(event.methodArn, { remaining: String(remainingPoints) });
});
