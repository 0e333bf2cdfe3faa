# The authorizer of a Farebox stack on an API of your own, with Terraform. A REST API first, an HTTP API below it.

variable "authorizer_arn" {
  description = "The output AuthorizerArn of the Farebox stack."
  type        = string
}

variable "docs_url" {
  description = "The page that explains error codes, without a fragment."
  type        = string
}

data "aws_lambda_function" "farebox" {
  function_name = var.authorizer_arn
}

locals {
  arn  = split(":", var.authorizer_arn)
  apis = "arn:${local.arn[1]}:execute-api:${local.arn[3]}:${local.arn[4]}"
}

# ---- REST API

variable "rest_api_id" {
  type = string
}

resource "aws_api_gateway_authorizer" "farebox" {
  name           = "farebox"
  rest_api_id    = var.rest_api_id
  type           = "REQUEST"
  authorizer_uri = data.aws_lambda_function.farebox.invoke_arn

  # A cached answer is neither counted nor limited.
  authorizer_result_ttl_in_seconds = 0

  # Something that every request has. The provider's default is the Authorization header, and a request that lacks a named
  # source is refused unasked, but a key may come in x-api-key or Authorization. No source at all, which API Gateway allows
  # where nothing is cached, the provider has refused (its issue 12069).
  identity_source = "context.identity.sourceIp"
}

resource "aws_lambda_permission" "farebox_rest" {
  function_name = var.authorizer_arn
  action        = "lambda:InvokeFunction"
  principal     = "apigateway.amazonaws.com"
  source_arn    = "${local.apis}:${var.rest_api_id}/authorizers/${aws_api_gateway_authorizer.farebox.id}"
}

# On every method that is to be paid for:
#   authorization = "CUSTOM"
#   authorizer_id = aws_api_gateway_authorizer.farebox.id

resource "aws_api_gateway_gateway_response" "unauthorized" {
  rest_api_id   = var.rest_api_id
  response_type = "UNAUTHORIZED"
  status_code   = "401"
  response_parameters = {
    "gatewayresponse.header.WWW-Authenticate" = "'Bearer'"
  }
  response_templates = {
    "application/json" = "{\"code\":\"unauthorized\",\"message\":\"Send a valid API key in x-api-key or as a bearer token. The key may be missing, revoked or expired, or the route may not be part of its tier.\",\"docs_url\":\"${var.docs_url}#unauthorized\"}"
  }
}

resource "aws_api_gateway_gateway_response" "denied" {
  rest_api_id   = var.rest_api_id
  response_type = "ACCESS_DENIED"
  status_code   = "429"
  response_parameters = {
    "gatewayresponse.header.Retry-After"           = "context.authorizer.retry_after"
    "gatewayresponse.header.X-RateLimit-Limit"     = "context.authorizer.limit"
    "gatewayresponse.header.X-RateLimit-Remaining" = "context.authorizer.remaining"
    "gatewayresponse.header.X-RateLimit-Reset"     = "context.authorizer.reset"
    "gatewayresponse.header.X-RateLimit-Warning"   = "context.authorizer.warning"
    "gatewayresponse.header.RateLimit"             = "context.authorizer.ratelimit"
    "gatewayresponse.header.RateLimit-Policy"      = "context.authorizer.ratelimit_policy"
    "gatewayresponse.header.X-Quota-Limit"         = "context.authorizer.quota_limit"
    "gatewayresponse.header.X-Quota-Used"          = "context.authorizer.quota_used"
    "gatewayresponse.header.X-Quota-Reset"         = "context.authorizer.quota_reset"
  }
  response_templates = {
    "application/json" = "{\"code\":\"$context.authorizer.code\",\"message\":\"$context.authorizer.message\",\"retry_after\":$context.authorizer.retry_after,\"docs_url\":\"${var.docs_url}#$context.authorizer.code\"}"
  }
}

# ---- HTTP API: 403 instead of 429 and 401 by API Gateway's own rules; its refusals can't be changed.

variable "http_api_id" {
  type = string
}

resource "aws_apigatewayv2_authorizer" "farebox" {
  api_id                            = var.http_api_id
  name                              = "farebox"
  authorizer_type                   = "REQUEST"
  authorizer_uri                    = data.aws_lambda_function.farebox.invoke_arn
  authorizer_payload_format_version = "2.0"
  enable_simple_responses           = true
  authorizer_result_ttl_in_seconds  = 0
}

resource "aws_lambda_permission" "farebox_http" {
  function_name = var.authorizer_arn
  action        = "lambda:InvokeFunction"
  principal     = "apigateway.amazonaws.com"
  source_arn    = "${local.apis}:${var.http_api_id}/authorizers/${aws_apigatewayv2_authorizer.farebox.id}"
}

# The figures on successes of an HTTP API are response parameters of the integration. The request parameters are for a back end
# that asks who calls. All are mapped: what is not comes from the caller.
resource "aws_apigatewayv2_integration" "items" {
  api_id             = var.http_api_id
  integration_type   = "HTTP_PROXY"
  integration_method = "GET"
  integration_uri    = "https://backend.example.com/items"

  request_parameters = {
    "overwrite:header.x-farebox-customer"         = "$context.authorizer.customer"
    "overwrite:header.x-farebox-tier"             = "$context.authorizer.tier"
    "overwrite:header.x-farebox-meter"            = "$context.authorizer.meter"
    "overwrite:header.x-farebox-limit"            = "$context.authorizer.limit"
    "overwrite:header.x-farebox-remaining"        = "$context.authorizer.remaining"
    "overwrite:header.x-farebox-reset"            = "$context.authorizer.reset"
    "overwrite:header.x-farebox-warning"          = "$context.authorizer.warning"
    "overwrite:header.x-farebox-ratelimit"        = "$context.authorizer.ratelimit"
    "overwrite:header.x-farebox-ratelimit-policy" = "$context.authorizer.ratelimit_policy"
    "overwrite:header.x-farebox-quota-limit"      = "$context.authorizer.quota_limit"
    "overwrite:header.x-farebox-quota-used"       = "$context.authorizer.quota_used"
    "overwrite:header.x-farebox-quota-reset"      = "$context.authorizer.quota_reset"
    "overwrite:header.x-farebox-cost"             = "$context.authorizer.cost"
  }

  response_parameters {
    status_code = 200
    mappings = {
      "overwrite:header.X-RateLimit-Limit"     = "$context.authorizer.limit"
      "overwrite:header.X-RateLimit-Remaining" = "$context.authorizer.remaining"
      "overwrite:header.X-RateLimit-Reset"     = "$context.authorizer.reset"
      "overwrite:header.X-RateLimit-Warning"   = "$context.authorizer.warning"
      "overwrite:header.RateLimit"             = "$context.authorizer.ratelimit"
      "overwrite:header.RateLimit-Policy"      = "$context.authorizer.ratelimit_policy"
      "overwrite:header.X-Quota-Limit"         = "$context.authorizer.quota_limit"
      "overwrite:header.X-Quota-Used"          = "$context.authorizer.quota_used"
      "overwrite:header.X-Quota-Reset"         = "$context.authorizer.quota_reset"
      "overwrite:header.X-Farebox-Cost"        = "$context.authorizer.cost"
    }
  }
}
