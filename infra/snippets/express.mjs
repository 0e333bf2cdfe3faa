// Puts the authorizer's figures on every response of an Express application: app.use(fareboxHeaders).
// They come with the Lambda event (serverless-express: req.apiGateway.event; @codegenie: req.event) or as x-farebox-* headers that
// the integration maps. Trust the headers only if nobody but the gateway can reach the application.
const HEADERS = {
  limit: 'X-RateLimit-Limit', remaining: 'X-RateLimit-Remaining', reset: 'X-RateLimit-Reset',
  warning: 'X-RateLimit-Warning', ratelimit: 'RateLimit', ratelimit_policy: 'RateLimit-Policy',
  quota_limit: 'X-Quota-Limit', quota_used: 'X-Quota-Used', quota_reset: 'X-Quota-Reset', cost: 'X-Farebox-Cost',
};

export function fareboxHeaders(req, res, next) {
  const authorizer = (req.apiGateway?.event ?? req.event)?.requestContext?.authorizer;
  const figures = authorizer?.lambda ?? authorizer; // an HTTP API puts them one level deeper
  for (const [figure, header] of Object.entries(HEADERS)) {
    const value = figures ? figures[figure] : req.get(`x-farebox-${figure.replace('_', '-')}`);
    if (value) res.set(header, String(value));
  }
  next();
}
