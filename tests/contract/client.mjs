// Our client, as the example `contract` of farebox-stripe, doing one operation at a time.

import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { createInterface } from 'node:readline';

/** Starts it against an address. */
export const startClient = (address) => {
  const child = spawn(process.env.CLIENT, [address], { stdio: ['pipe', 'pipe', 'inherit'] });
  const lines = createInterface({ input: child.stdout })[Symbol.asyncIterator]();
  return {
    /** `ok`, or what went wrong. */
    perform: async (operation) => {
      child.stdin.write(`${operation}\n`);
      return (await lines.next()).value;
    },
    stop: async () => {
      child.stdin.end();
      await once(child, 'exit');
    },
  };
};
