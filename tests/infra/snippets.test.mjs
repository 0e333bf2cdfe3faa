// Runs the snippets for Node: check.sh copies them beside this file, where their packages are.
import assert from 'node:assert/strict';
import { test } from 'node:test';
import express from 'express';
import { App, Stack, aws_apigateway as apigateway } from 'aws-cdk-lib';
import { Match, Template } from 'aws-cdk-lib/assertions';
import { Farebox } from './built/cdk.js';
import { fareboxHeaders } from './express.mjs';

const FIGURES = {
  limit: '100', remaining: '99', reset: '1795435260', ratelimit: '"per60s";r=99;t=60', ratelimit_policy: '"per60s";q=100;w=60',
  quota_limit: '50000', quota_used: '40041', quota_reset: '1797163200', cost: '1', customer: 'acme',
};

/** The headers of an answer of an application that runs these before the snippet. */
async function answered(before, headers = {}) {
  const app = express();
  app.use(before, fareboxHeaders);
  app.get('/', (request, response) => response.json({}));
  const server = app.listen(0, '127.0.0.1');
  try {
    await new Promise((listening) => server.once('listening', listening));
    const response = await fetch(`http://127.0.0.1:${server.address().port}/`, { headers });
    return response.headers;
  } finally {
    server.close();
  }
}

function assertFigures(headers) {
  assert.equal(headers.get('x-ratelimit-limit'), '100');
  assert.equal(headers.get('ratelimit'), FIGURES.ratelimit);
  assert.equal(headers.get('ratelimit-policy'), FIGURES.ratelimit_policy);
  assert.equal(headers.get('x-quota-used'), '40041');
  assert.equal(headers.get('x-farebox-cost'), '1');
  assert.equal(headers.get('x-ratelimit-warning'), null);
}

test('Express: the figures of a REST API event', async () => {
  const event = { requestContext: { authorizer: FIGURES } };
  assertFigures(await answered((request, _, next) => { request.apiGateway = { event }; next(); }));
});

test('Express: the figures of an HTTP API event', async () => {
  const event = { requestContext: { authorizer: { lambda: FIGURES } } };
  assertFigures(await answered((request, _, next) => { request.event = event; next(); }));
});

test('Express: the figures of mapped headers', async () => {
  const headers = Object.fromEntries(Object.entries(FIGURES).map(([name, value]) => [`x-farebox-${name.replaceAll('_', '-')}`, value]));
  assertFigures(await answered((request, _, next) => next(), headers));
});

test('Express: headers of the caller do not count where there is an event', async () => {
  const event = { requestContext: { authorizer: FIGURES } };
  const headers = { 'x-farebox-limit': '1000000', 'x-farebox-warning': 'forged' };
  assertFigures(await answered((request, _, next) => { request.apiGateway = { event }; next(); }, headers));
});

test('CDK: the authorizer caches nothing and the refusals are there', () => {
  const stack = new Stack(new App(), 'Paid');
  const api = new apigateway.RestApi(stack, 'Api');
  const authorizerArn = 'arn:aws:lambda:eu-central-1:123456789012:function:farebox-authorizer';
  const farebox = new Farebox(stack, 'Farebox', { authorizerArn, api, docsUrl: 'https://example.com/docs/errors' });
  api.root.addResource('items').addMethod('GET', new apigateway.MockIntegration(), farebox.method);
  const template = Template.fromStack(stack);
  const authorizers = Object.values(template.findResources('AWS::ApiGateway::Authorizer'));
  assert.equal(authorizers.length, 1);
  assert.equal(authorizers[0].Properties.AuthorizerResultTtlInSeconds, 0);
  assert.ok(!authorizers[0].Properties.IdentitySource);
  template.hasResourceProperties('AWS::ApiGateway::Method', { HttpMethod: 'GET', AuthorizationType: 'CUSTOM' });
  template.hasResourceProperties('AWS::ApiGateway::GatewayResponse', {
    ResponseType: 'ACCESS_DENIED', StatusCode: '429',
    ResponseParameters: Match.objectLike({ 'gatewayresponse.header.Retry-After': 'context.authorizer.retry_after' }),
  });
  template.resourceCountIs('AWS::Lambda::Permission', 1);
  template.hasResourceProperties('AWS::Lambda::Permission', { FunctionName: authorizerArn, Principal: 'apigateway.amazonaws.com' });
});
