// The Lambda loop in Node: the Runtime API over one kept-alive connection. Less than what Lambda's own Node runtime does.
import http from 'node:http';

const [host, port] = process.env.AWS_LAMBDA_RUNTIME_API.split(':');
const agent = new http.Agent({ keepAlive: true, maxSockets: 1, noDelay: true });

function call(method, path, body) {
  return new Promise((resolve, reject) => {
    const request = http.request({ host, port, method, path, agent }, (response) => {
      const chunks = [];
      response.on('data', (chunk) => chunks.push(chunk));
      response.on('end', () => resolve({ headers: response.headers, body: Buffer.concat(chunks).toString() }));
    });
    request.on('error', reject);
    request.end(body);
  });
}

export async function run(handler) {
  for (;;) {
    const { headers, body } = await call('GET', '/2018-06-01/runtime/invocation/next');
    const id = headers['lambda-runtime-aws-request-id'];
    try {
      await call('POST', `/2018-06-01/runtime/invocation/${id}/response`, JSON.stringify(await handler(JSON.parse(body))));
    } catch (error) {
      await call('POST', `/2018-06-01/runtime/invocation/${id}/error`, JSON.stringify({ errorMessage: String(error) }));
    }
  }
}

export const allow = (resource, context) => ({
  principalId: 'node',
  policyDocument: { Version: '2012-10-17', Statement: [{ Action: 'execute-api:Invoke', Effect: 'Allow', Resource: resource }] },
  context,
});
