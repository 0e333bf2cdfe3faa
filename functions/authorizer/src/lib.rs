//! The Lambda authorizer.
