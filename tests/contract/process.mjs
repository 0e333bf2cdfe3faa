// A server that says on its output where it listens.

import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { createInterface } from 'node:readline';

/** Starts it and waits for as many lines with an address as are wanted. */
export const startServer = async (command, args, wanted) => {
  const child = spawn(command, args, { stdio: ['ignore', 'pipe', 'inherit'] });
  const lines = createInterface({ input: child.stdout });
  const addresses = [];
  for await (const line of lines) {
    const found = line.match(/(?:http:\/\/)?(127\.0\.0\.1:\d+)/);
    if (found) addresses.push(`http://${found[1]}`);
    if (addresses.length === wanted) break;
  }
  if (addresses.length < wanted) throw new Error(`${command} did not start`);
  child.stdout.resume();
  const stop = async () => {
    if (child.exitCode === null) {
      child.kill();
      await once(child, 'exit');
    }
  };
  return { addresses, stop };
};
