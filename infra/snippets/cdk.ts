// The authorizer of a Farebox stack on an API of your own, with the CDK.
//
//   const farebox = new Farebox(this, 'Farebox', { authorizerArn: '<output AuthorizerArn>', api, docsUrl: 'https://…/errors' });
//   api.root.addResource('items').addMethod('GET', integration, farebox.method);
import { Duration } from 'aws-cdk-lib';
import * as apigateway from 'aws-cdk-lib/aws-apigateway';
import * as lambda from 'aws-cdk-lib/aws-lambda';
import { Construct } from 'constructs';

export interface FareboxProps {
  /** The output AuthorizerArn of the Farebox stack. */
  readonly authorizerArn: string;
  readonly api: apigateway.RestApi;
  /** The page that explains error codes, without a fragment. */
  readonly docsUrl: string;
}

/** Which header of a refusal each figure of the authorizer becomes. */
const HEADERS: Record<string, string> = {
  'Retry-After': 'retry_after',
  'X-RateLimit-Limit': 'limit',
  'X-RateLimit-Remaining': 'remaining',
  'X-RateLimit-Reset': 'reset',
  'X-RateLimit-Warning': 'warning',
  RateLimit: 'ratelimit',
  'RateLimit-Policy': 'ratelimit_policy',
  'X-Quota-Limit': 'quota_limit',
  'X-Quota-Used': 'quota_used',
  'X-Quota-Reset': 'quota_reset',
};

export class Farebox extends Construct {
  /** Spread this into the options of every method that is to be paid for. */
  readonly method: apigateway.MethodOptions;

  constructor(scope: Construct, id: string, { authorizerArn, api, docsUrl }: FareboxProps) {
    super(scope, id);
    // The same account and region: so the CDK adds the permission to call it.
    const handler = lambda.Function.fromFunctionAttributes(this, 'Function', {
      functionArn: authorizerArn,
      sameEnvironment: true,
    });
    const authorizer = new apigateway.RequestAuthorizer(this, 'Authorizer', {
      handler,
      // A cached answer is neither counted nor limited.
      resultsCacheTtl: Duration.seconds(0),
      // None: a request that lacks one is refused unasked, and the key may come in either of two headers.
      identitySources: [],
    });
    api.addGatewayResponse('Unauthorized', {
      type: apigateway.ResponseType.UNAUTHORIZED,
      statusCode: '401',
      responseHeaders: { 'WWW-Authenticate': "'Bearer'" },
      templates: {
        'application/json': `{"code":"unauthorized","message":"Send a valid API key in x-api-key or as a bearer token. The key may be missing, revoked or expired, or the route may not be part of its tier.","docs_url":"${docsUrl}#unauthorized"}`,
      },
    });
    api.addGatewayResponse('Denied', {
      type: apigateway.ResponseType.ACCESS_DENIED,
      statusCode: '429',
      responseHeaders: Object.fromEntries(
        Object.entries(HEADERS).map(([header, figure]) => [header, `context.authorizer.${figure}`]),
      ),
      templates: {
        'application/json': `{"code":"$context.authorizer.code","message":"$context.authorizer.message","retry_after":$context.authorizer.retry_after,"docs_url":"${docsUrl}#$context.authorizer.code"}`,
      },
    });
    this.method = { authorizer, authorizationType: apigateway.AuthorizationType.CUSTOM };
  }
}
