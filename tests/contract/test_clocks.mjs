// Test clocks for the stand-in, which has one clock for everybody: each test clock moves that one.

import { forward, serve } from './recorder.mjs';

const CLOCKS = '/v1/test_helpers/test_clocks';

/** Serves the stand-in with test clocks. `amend` may change an answer on its way; `clocks` are those that were not deleted. */
export const serveWithTestClocks = async (standin, controls, amend = (_request, answer) => answer) => {
  const clocks = new Set();
  let made = 0;
  const move = async (body) => {
    const response = await fetch(`${controls}/_standin/clock`, body && { method: 'POST', body });
    return Number(await response.text());
  };
  const json = (body) => ({ headers: { 'content-type': 'application/json', 'request-id': 'req_clock' }, body: JSON.stringify(body) });
  const shown = async (id) => json({ id, object: 'test_helpers.test_clock', frozen_time: await move(), status: 'ready' });

  const answerClock = async ({ method, path, body }) => {
    const [id, action] = path.slice(CLOCKS.length + 1).split('/');
    if (!id) {
      clocks.add(`clock_${(made += 1)}`);
      return shown(`clock_${made}`);
    }
    if (method === 'DELETE') {
      clocks.delete(id);
      return json({ id, object: 'test_helpers.test_clock', deleted: true });
    }
    if (action === 'advance') await move(`at=${new URLSearchParams(body).get('frozen_time')}`);
    return shown(id);
  };

  const { address, stop } = await serve(async (request) => {
    if (request.path.startsWith(CLOCKS)) return answerClock(request);
    const form = new URLSearchParams(request.body);
    form.delete('test_clock');
    const body = form.toString();
    const headers = { ...request.headers, 'content-length': Buffer.byteLength(body) };
    return amend(request, await forward(standin, { ...request, headers, body }));
  });
  return { address, stop, clocks };
};
