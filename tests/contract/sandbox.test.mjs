// The job for a real account, done with the stand-in: there everything is as we assume, and what is not would be seen.

import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { test } from 'node:test';
import { fileURLToPath } from 'node:url';
import { startServer } from './process.mjs';
import { serveWithTestClocks } from './test_clocks.mjs';

const SANDBOX = fileURLToPath(new URL('sandbox.mjs', import.meta.url));
const KEY = 'sk_test_planted1234567890';

/** Its exit code, and the lines that it printed. */
const run = async (environment) => {
  const child = spawn(process.execPath, [SANDBOX], { env: { PATH: process.env.PATH, ...environment } });
  const [output, code] = await Promise.all([
    Promise.all([child.stdout, child.stderr].map(async (stream) => Buffer.concat(await stream.toArray()).toString())),
    new Promise((resolve) => child.on('close', resolve)),
  ]);
  return { code, lines: output.join('').trim().split('\n') };
};

const withStandin = async (amend) => {
  const standin = await startServer(process.env.STANDIN, ['0'], 2);
  const { address, stop, clocks } = await serveWithTestClocks(...standin.addresses, amend);
  const result = await run({ STRIPE_TEST_KEY: KEY, STRIPE_BASE_URL: address, STRIPE_PATIENCE_S: '3' });
  await stop();
  await standin.stop();
  return { ...result, clocks };
};

test('a live key is refused, and so is none', async () => {
  for (const key of ['sk_live_planted1234567890', 'rk_live_planted1234567890']) {
    const { code, lines } = await run({ STRIPE_TEST_KEY: key });
    assert.equal(code, 2);
    assert.deepEqual(lines, ['contract: STRIPE_TEST_KEY is a live key. This makes customers and invoices: give it the key of a sandbox.']);
  }
  assert.equal((await run({})).code, 2);
});

test('with the stand-in everything is as assumed', async () => {
  const { code, lines, clocks } = await withStandin();
  const text = lines.join('\n');
  assert.equal(code, 0, text);
  assert.equal(lines.at(-1), '12 settled as assumed, 0 otherwise, 1 not settled');
  assert.deepEqual(lines[lines.findIndex((line) => line.startsWith('not settled')) + 1].trim(), 'this server has no portal');
  assert.equal(clocks.size, 0, 'a test clock is left');
  assert.doesNotMatch(text, /planted/);
});

test('what is otherwise is seen', async () => {
  const { code, lines, clocks } = await withStandin((request, answer) => {
    const isDuplicate = answer.body.includes('An event already exists');
    return isDuplicate ? { ...answer, headers: { 'content-type': 'application/json' }, body: answer.body.replace('An event already exists', 'Twice') } : answer;
  });
  assert.equal(code, 1);
  assert.match(lines[0], /^otherwise +a known identifier is refused/);
  assert.equal(lines.at(-1), '11 settled as assumed, 1 otherwise, 1 not settled');
  assert.equal(clocks.size, 0, 'a test clock is left');
});
